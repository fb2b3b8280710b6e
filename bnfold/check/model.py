"""The two models under comparison: where they lie, and what they take and give.

Only the outside of a model is kept in memory: its graph with every large tensor cut down to its
type and dimensions. The runtime reads the weights itself, from the same file or bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bnfold.errors import InputError, ModelError
from bnfold.store import load

__all__ = ["Model", "ModelLike", "ValueSpec", "interface_difference", "open_model"]

ModelLike = str | os.PathLike[str] | bytes | onnx.ModelProto

# Values above this many bytes play no part in shapes or index bounds.
_SMALL_TENSOR_BYTES = 4096


@dataclass(frozen=True)
class ValueSpec:
    """One graph input or output as declared.

    Attributes:
        name: Name of the value.
        kind: ``tensor``, ``sequence``, ``optional``, ``map``, ``sparse`` or ``unknown``.
        elem_type: ``TensorProto`` data type of a tensor; 0 for the other kinds.
        shape: One entry for each axis: a size, a symbol, or None where nothing is said. None
            where not even the rank is known.
    """

    name: str
    kind: str
    elem_type: int
    shape: tuple[int | str | None, ...] | None

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
        graph: The main graph; its large tensors have lost their values.
        inputs: What a caller has to feed, in order; initializers are not among them.
        outputs: The graph outputs, in order.
    """

    label: str
    path: Path | None
    data: bytes | None
    graph: onnx.GraphProto
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
    def directory(self) -> str:
        """Where the model's external data is looked up."""
        return "" if self.path is None else str(self.path.parent)


def open_model(model: ModelLike, role: str) -> Model:
    """Read the outside of a model.

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
        label = f"the {role}"
        try:
            data = model.SerializeToString()
        except (ValueError, DecodeError) as error:
            raise InputError(
                f"{label}: the model is too large for protobuf ({error})",
                hint="save it with external data and give its path",
            ) from error
    elif isinstance(model, bytes):
        label, data = f"the {role}", model
    else:
        path = Path(model)
        label = str(path)
        load(path)  # refuses what is not a model, and says what it is instead
    try:
        if data is None:
            proto = onnx.load(str(path), load_external_data=False)
        else:
            proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{label}: not an ONNX model ({error})") from error
    except OSError as error:
        raise InputError(f"{label}: {error.strerror or error}") from error
    if not proto.HasField("graph"):
        raise ModelError(f"{label}: not an ONNX model (it has no graph)")
    graph = proto.graph
    constants = {init.name for init in graph.initializer}
    constants.update(init.values.name for init in graph.sparse_initializer)
    inputs = tuple(_spec(value) for value in graph.input if value.name not in constants)
    outputs = tuple(_spec(value) for value in graph.output)
    for tensor in _tensors(graph):
        if tensor.ByteSize() > _SMALL_TENSOR_BYTES:
            dims, elem_type, name = list(tensor.dims), tensor.data_type, tensor.name
            tensor.Clear()
            tensor.dims.extend(dims)
            tensor.data_type, tensor.name = elem_type, name
    return Model(label, path, data, graph, inputs, outputs)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            elif attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _spec(value: onnx.ValueInfoProto) -> ValueSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return ValueSpec(value.name, (kind or "unknown").removesuffix("_type"), 0, None)
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueSpec(value.name, "tensor", tensor.elem_type, None)
    return ValueSpec(value.name, "tensor", tensor.elem_type, tuple(map(_dim, tensor.shape.dim)))


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
