"""Models in memory: ``ModelProto`` and ``onnx_ir.Model``, in and out."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from bnfold.errors import InputError
from bnfold.store import LoadedModel, from_bytes, iter_tensors, load, to_bytes

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["as_given", "open_any", "to_proto"]


def open_any(model: Any) -> LoadedModel:
    """Open a model of any kind; what comes back shares nothing that could change it.

    Args:
        model: A path, a ``ModelProto`` or an ``onnx_ir.Model``.

    Raises:
        InputError: It is none of these, or too large to be serialized.
        ModelError: The model cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        return from_bytes(_serialize(model))
    if _is_onnx_ir(model):
        return from_bytes(_serialize(_from_onnx_ir(model)))
    try:
        path = Path(model)
    except TypeError as error:
        raise InputError(
            f"a {type(model).__name__} is no model that bnfold knows",
            hint="give a path, an onnx.ModelProto or an onnx_ir.Model",
        ) from error
    return load(path)


def to_proto(model: LoadedModel) -> onnx.ModelProto:
    """Return a model as a ``ModelProto`` with all its weights inside.

    Args:
        model: The model; its external data is brought inside.

    Raises:
        ModelError: It would exceed the 2 GiB of protobuf.
    """
    store = model.tensors
    for tensor in iter_tensors(model.proto):
        record = store.find(tensor)
        if record is None or not record.external:
            continue
        tensor.ClearField("external_data")
        if not tensor.HasField("raw_data"):
            inside = dataclasses.replace(record, external=False, entries=None, location=None)
            tensor.external_data.add(key="location", value=store.add(inside))
    proto: onnx.ModelProto = onnx.ModelProto.FromString(to_bytes(model))
    return proto


def as_given(model: object, proto: onnx.ModelProto) -> onnx.ModelProto | onnx_ir.Model:
    """Return ``proto`` as an ``onnx_ir.Model`` if ``model`` is one."""
    if not _is_onnx_ir(model):
        return proto
    import onnx_ir  # noqa: PLC0415 - its caller has imported it

    return onnx_ir.from_proto(proto)


def _is_onnx_ir(model: object) -> bool:
    """Whether this is an ``onnx_ir.Model``: only if its caller has imported onnx_ir."""
    module = sys.modules.get("onnx_ir")
    return module is not None and isinstance(model, module.Model)


def _from_onnx_ir(model: onnx_ir.Model) -> onnx.ModelProto:
    """Serialize an ``onnx_ir.Model``, its external data inside."""
    import onnx_ir  # noqa: PLC0415 - its caller has imported it

    if any(
        isinstance(value.const_value, onnx_ir.ExternalTensor)
        for graph in model.graphs()
        for value in graph.initializers.values()
    ):
        model = onnx_ir.external_data.load_to_model(model.clone())
    proto: onnx.ModelProto = onnx_ir.to_proto(model)
    return proto


def _serialize(proto: onnx.ModelProto) -> bytes:
    try:
        data: bytes = proto.SerializeToString()
    except ValueError as error:  # also protobuf's EncodeError
        raise InputError(
            f"the model cannot be serialized: {error}",
            hint="save it with external data, and give its path",
        ) from error
    return data
