"""Tensors of types that NumPy does not have, into ONNX Runtime and out of it again.

The runtime's Python interface takes and gives bfloat16 and the types of eight bits and less as
memory only. What the rest of the check sees are ``ml_dtypes`` arrays.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from bnfold.check.feeds.draws import is_extended
from bnfold.check.models.model import Array
from bnfold.check.runtimes.installed import require_runtime

__all__ = ["needs_memory", "ort_value", "run_by_memory"]

_EXTENDED = re.compile(r"tensor\((bfloat16|float8\w+|float4\w+|u?int[24])\)")


def needs_memory(session: Any, arrays: Mapping[str, Any]) -> bool:
    """True if a session's inputs or outputs have a type that only passes as memory."""
    return any(
        isinstance(value, np.ndarray) and is_extended(value.dtype) for value in arrays.values()
    ) or any(_EXTENDED.fullmatch(output.type) for output in session.get_outputs())


def run_by_memory(
    session: Any, names: Sequence[str], arrays: Mapping[str, Any], options: Any
) -> list[Array]:
    """Run a session on tensors of any type but string.

    Args:
        session: What to run.
        names: Outputs to return.
        arrays: Tensors by input name; sequences and maps cannot be passed this way.
        options: Run options of the runtime.
    """
    values = {name: ort_value(np.asarray(array)) for name, array in arrays.items()}
    return [_array(value) for value in session.run_with_ort_values(names, values, options)]


def ort_value(array: Array) -> Any:
    """Return a tensor as the runtime's own; what NumPy knows is read without a copy."""
    ort = require_runtime()
    if not is_extended(array.dtype):
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    tensor = numpy_helper.from_array(array)
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), tensor.data_type)
    ctypes.memmove(value.data_ptr(), tensor.raw_data, len(tensor.raw_data))
    return value


def _array(value: Any) -> Array:
    if not (value.is_tensor() and _EXTENDED.fullmatch(value.data_type())):
        return np.asarray(value.numpy())
    if value.device_name().lower() != "cpu":
        raise RuntimeError(f"an output of type {value.data_type()} stayed on the device")
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    tensor = TensorProto(data_type=value.element_type(), dims=value.shape(), raw_data=content)
    return numpy_helper.to_array(tensor)
