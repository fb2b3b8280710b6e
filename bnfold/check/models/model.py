"""The two models under comparison: where they lie, and what they take and give.

Only the skeleton of a model is kept in memory. The runtime reads the weights itself, from the same
file or bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from bnfold import store
from bnfold.errors import InputError

__all__ = [
    "Array",
    "Model",
    "ModelLike",
    "ValueSpec",
    "interface_difference",
    "open_model",
    "serialize",
]

ModelLike = str | os.PathLike[str] | bytes | onnx.ModelProto

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ValueSpec:
    """One graph input or output as declared.

    Attributes:
        name: Name of the value.
        kind: ``tensor``, ``sequence``, ``optional``, ``map``, ``sparse`` or ``unknown``.
        elem_type: ``TensorProto`` data type of a tensor; 0 for the other kinds.
        shape: One entry for each axis: a size, a symbol, or None where nothing is said. None
            where not even the rank is known.
        element: What a sequence or an optional holds, or the values of a map; None for a tensor.
        key_type: ``TensorProto`` data type of a map's keys; 0 for the other kinds.
    """

    name: str
    kind: str
    elem_type: int
    shape: tuple[int | str | None, ...] | None
    element: ValueSpec | None = None
    key_type: int = 0

    @property
    def type_name(self) -> str:
        """The type for messages, such as ``float32`` or ``sequence``."""
        if self.kind != "tensor":
            return self.kind
        return str(onnx.TensorProto.DataType.Name(self.elem_type)).lower()


@dataclass(frozen=True)
class Model:
    """A model that can be run.

    Attributes:
        label: How messages call it: the path as given, or its role.
        path: The file, or None for a model in memory.
        data: The serialized model where it is not that of the file; the file's folder is then
            where its external data lies.
        skeleton: The model without its large tensors, which stay in the file.
        inputs: What a caller has to feed, in order; initializers are not among them.
        outputs: The graph outputs, in order.
    """

    label: str
    path: Path | None
    data: bytes | None
    skeleton: store.LoadedModel
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]

    def load(self, *, external_data: bool = True) -> onnx.ModelProto:
        """Return the whole model, weights included.

        Args:
            external_data: False to leave weights in their own files where they are.
        """
        if self.data is None:
            return onnx.load(str(self.path), load_external_data=external_data)
        proto = onnx.load_model_from_string(self.data)
        if external_data and self.path is not None:
            onnx.load_external_data_for_model(proto, self.directory)
        return proto

    @property
    def nbytes(self) -> int:
        """Bytes of the model and its external data."""
        return self.skeleton.size

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph; what its large tensors hold is for :meth:`values` to say."""
        return self.skeleton.proto.graph

    def values(self, tensor: onnx.TensorProto) -> Array:
        """Return the values of a tensor of :attr:`graph`."""
        return self.skeleton.tensors.array(tensor)

    @property
    def directory(self) -> str:
        """Where the model's external data is looked up."""
        return "" if self.path is None else str(self.path.parent)


def serialize(model: onnx.ModelProto, role: str) -> bytes:
    """Serialize a model.

    Raises:
        InputError: It is too large for that.
    """
    try:
        return bytes(model.SerializeToString())
    except (ValueError, DecodeError, EncodeError) as error:
        raise InputError(
            f"the {role}: the model is too large for protobuf ({error})",
            hint="save it with external data and give its path",
        ) from error


def open_model(model: ModelLike, role: str) -> Model:
    """Open a model.

    Args:
        model: A path, a serialized model or a ``ModelProto``. External data needs a path.
        role: ``reference`` or ``candidate``, for messages about models in memory.

    Raises:
        InputError: The ``ModelProto`` is too large to be serialized.
        ModelError: There is no such file, it is not an ONNX model, or its external data is missing.
    """
    path: Path | None = None
    data: bytes | None = None
    if isinstance(model, onnx.ModelProto):
        model = serialize(model, role)
    if isinstance(model, bytes):
        label, data, loaded = f"the {role}", model, store.from_bytes(model)
    else:
        path = Path(model)
        label, loaded = str(path), store.load(path)
    graph = loaded.proto.graph
    constants = {init.name for init in graph.initializer}
    constants.update(init.values.name for init in graph.sparse_initializer)
    inputs = tuple(_spec(value) for value in graph.input if value.name not in constants)
    outputs = tuple(_spec(value) for value in graph.output)
    return Model(label, path, data, loaded, inputs, outputs)


def _spec(value: onnx.ValueInfoProto) -> ValueSpec:
    return _spec_of(value.name, value.type)


def _spec_of(name: str, declared: onnx.TypeProto) -> ValueSpec:
    match declared.WhichOneof("value"):
        case "tensor_type":
            tensor = declared.tensor_type
            shape = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
            return ValueSpec(name, "tensor", tensor.elem_type, shape)
        case "sequence_type":
            element = _spec_of(name, declared.sequence_type.elem_type)
            return ValueSpec(name, "sequence", 0, None, element)
        case "optional_type":
            element = _spec_of(name, declared.optional_type.elem_type)
            return ValueSpec(name, "optional", 0, None, element)
        case "map_type":
            element = _spec_of(name, declared.map_type.value_type)
            return ValueSpec(name, "map", 0, None, element, declared.map_type.key_type)
        case kind:
            return ValueSpec(name, (kind or "unknown").removesuffix("_type"), 0, None)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        # Old exporters write -1 for a dimension that they do not know.
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def interface_difference(reference: Model, candidate: Model) -> str | None:
    """Say where the two models cannot be exchanged for one another, or None if they can.

    Names, order and types of inputs and outputs have to be the same. Shapes are not compared
    here: a candidate that refuses a shape which the reference takes fails when it runs.
    """
    for what, ours, theirs in (
        ("inputs", reference.inputs, candidate.inputs),
        ("outputs", reference.outputs, candidate.outputs),
    ):
        names, others = [spec.name for spec in ours], [spec.name for spec in theirs]
        if names != others:
            missing = [name for name in names if name not in others]
            added = [name for name in others if name not in names]
            if missing or added:
                parts = []
                if missing:
                    parts.append(f"lacks {_quoted(missing)}")
                if added:
                    parts.append(f"has {_quoted(added)} in addition")
                return f"the {what} differ: the candidate {' and '.join(parts)}"
            return f"the {what} differ in order: {_quoted(names)} became {_quoted(others)}"
        for spec, other in zip(ours, theirs, strict=True):
            if (spec.kind, spec.elem_type) != (other.kind, other.elem_type):
                return (
                    f"the {what} differ: '{spec.name}' is {spec.type_name} in the reference and "
                    f"{other.type_name} in the candidate"
                )
    return None


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
