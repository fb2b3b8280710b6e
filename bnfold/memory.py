"""Models in memory: ``ModelProto``, ``onnx_ir.Model`` and ``ONNXProgram``, in and out."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import onnx

from bnfold.errors import InputError
from bnfold.store import LoadedModel, from_bytes, iter_tensors, load, to_bytes

__all__ = ["as_given", "is_program", "open_any", "to_proto"]


def open_any(model: Any) -> LoadedModel:
    """Open a model of any kind; what comes back shares nothing that could change it.

    Args:
        model: A path, a ``ModelProto``, an ``onnx_ir.Model`` or an ``ONNXProgram``.

    Raises:
        InputError: It is none of these, or too large to be serialized.
        ModelError: The model cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        return from_bytes(_serialize(model))
    if is_program(model):
        model = model.model
    if _is_onnx_ir(model):
        from bnfold.ir_models import open_ir  # noqa: PLC0415 - its caller has onnx_ir

        return open_ir(model)
    try:
        path = Path(model)
    except TypeError as error:
        raise InputError(
            f"a {type(model).__name__} is no model that bnfold knows",
            hint="give a path, an onnx.ModelProto, an onnx_ir.Model or an ONNXProgram",
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


def as_given(given: Any, model: LoadedModel) -> Any:
    """Return a model as an object of the type of ``given``, or a ``ModelProto`` for a path.

    Its weights are inside.
    """
    if is_program(given):
        return type(given)(as_given(given.model, model), given.exported_program)
    if not _is_onnx_ir(given):
        return to_proto(model)
    from bnfold.ir_models import with_contents  # noqa: PLC0415 - its caller has onnx_ir

    return with_contents(given, model)


def _is_onnx_ir(model: object) -> bool:
    """Whether this is an ``onnx_ir.Model``: only if its caller has imported onnx_ir."""
    module = sys.modules.get("onnx_ir")
    return module is not None and isinstance(model, module.Model)


def is_program(model: object) -> bool:
    """Whether this is an ``ONNXProgram``, what ``torch.onnx.export`` returns."""
    module = sys.modules.get("torch.onnx")
    return module is not None and isinstance(model, module.ONNXProgram)


def _serialize(proto: onnx.ModelProto) -> bytes:
    try:
        data: bytes = proto.SerializeToString()
    except ValueError as error:  # also protobuf's EncodeError
        raise InputError(
            f"the model cannot be serialized: {error}",
            hint="save it with external data, and give its path",
        ) from error
    return data
