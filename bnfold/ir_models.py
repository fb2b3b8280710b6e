"""``onnx_ir`` models in and out: their big tensors stay the objects that they are.

A model goes through a small serialized skeleton. In it a big initializer is a placeholder, whose
``doc_string`` says which tensor it stands for; the tensor itself, in memory, external or lazy, is
read if a fold needs it. What comes back has the same object wherever nothing has changed.

Imported only for a caller who has a model of onnx_ir, and so has onnx_ir.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir

from bnfold.errors import ModelError
from bnfold.memory import to_proto
from bnfold.store import LoadedModel, from_bytes
from bnfold.store.dtypes import Array, dtype_of
from bnfold.store.tensors import THRESHOLD, ArraySource, LazyBytes

__all__ = ["open_ir", "replace_contents", "to_ir", "with_contents"]

Tensor = onnx_ir.TensorProtocol


class _Borrowed:
    """The values of a tensor of onnx_ir, as a `bnfold.store.LazyTensor`.

    Attributes:
        tensor: The tensor.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return _dims(self.tensor)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensor.dtype.numpy()

    def blocks(self) -> Iterator[Array]:
        yield from ArraySource(self.tensor.numpy()).blocks()


def open_ir(model: onnx_ir.Model) -> LoadedModel:
    """Open a model of onnx_ir, which is not changed.

    Raises:
        ModelError: Two values have one name.
    """
    skeleton, mark = model.clone(), secrets.token_hex(16)
    borrowed: dict[str, Tensor] = {}
    for graph in skeleton.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and _can_be_borrowed(tensor):
                key = f"{mark}:{len(borrowed)}"
                borrowed[key] = tensor
                value.const_value = _placeholder(tensor, key)
    skeleton = onnx_ir.external_data.load_to_model(skeleton)
    proto: onnx.ModelProto = onnx_ir.to_proto(skeleton)
    _require_one_producer_each(proto.graph, frozenset())
    loaded = from_bytes(proto.SerializeToString())
    for graph_proto in _graphs(loaded.proto):
        for entry in graph_proto.initializer:
            if entry.doc_string in borrowed:
                source = _Borrowed(borrowed[entry.doc_string])
                entry.dims[:] = source.shape
                entry.doc_string = source.tensor.doc_string or ""
                loaded.tensors.attach(entry, source)
    return loaded


def to_ir(model: LoadedModel) -> onnx_ir.Model:
    """Return a model as one of onnx_ir; what `open_ir` has borrowed is the same object again."""
    proto, mark = onnx.ModelProto(), secrets.token_hex(16)
    proto.CopyFrom(model.proto)
    tensors: dict[str, Tensor] = {}
    for graph_proto in _graphs(proto):
        for entry in graph_proto.initializer:
            if entry.data_location == onnx.TensorProto.EXTERNAL:
                key = f"{mark}:{len(tensors)}"
                tensors[key] = _tensor(model, entry)
                placeholder = onnx_ir.to_proto(_placeholder(tensors[key], key))
                placeholder.name = entry.name
                entry.CopyFrom(placeholder)
    result = onnx_ir.from_proto(to_proto(dataclasses.replace(model, proto=proto)))
    for graph in result.graphs():
        for value in graph.initializers.values():
            tensor = tensors.get(getattr(value.const_value, "doc_string", None) or "")
            if tensor is not None:
                value.const_value = tensor
                if not value.is_graph_input():
                    value.shape = onnx_ir.Shape(_dims(tensor))
    return result


def replace_contents(model: onnx_ir.Model, contents: onnx_ir.Model) -> None:
    """Make ``model`` what ``contents`` is; ``meta`` is kept by the names of nodes and values."""
    nodes = {node.name: node for node in model.graph.all_nodes() if node.name}
    values = {value.name: value for value in _values(model.graph) if value.name}
    for node in contents.graph.all_nodes():
        if node.name in nodes:
            node.meta.update(nodes[node.name].meta)
    for value in _values(contents.graph):
        if value.name in values:
            before = values[value.name]
            value.meta.update(before.meta)
            if _same(value.const_value, before.const_value):
                value.const_value = before.const_value
    contents.graph.meta.update(model.graph.meta)
    model.graph = contents.graph
    model.functions.clear()
    model.functions.update(contents.functions)
    model.metadata_props.clear()
    model.metadata_props.update(contents.metadata_props)


def with_contents(given: onnx_ir.Model, model: LoadedModel) -> onnx_ir.Model:
    """Return a copy of ``given`` that is what ``model`` is, its weights in memory."""
    result = given.clone()
    replace_contents(result, to_ir(model))
    return onnx_ir.external_data.load_to_model(result)


def _can_be_borrowed(tensor: Tensor) -> bool:
    return tensor.nbytes >= THRESHOLD and dtype_of(int(tensor.dtype)) == tensor.dtype.numpy()


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two small tensors are equal; of big ones an unchanged one is the same object."""
    return (
        one is not None
        and other is not None
        and max(one.nbytes, other.nbytes) < THRESHOLD
        and (one.dtype, _dims(one), one.tobytes()) == (other.dtype, _dims(other), other.tobytes())
    )


def _placeholder(tensor: Tensor, key: str) -> Tensor:
    """Return an empty tensor of the same type that says what it stands for."""
    empty = np.zeros(0, tensor.dtype.numpy())
    return onnx_ir.Tensor(empty, dtype=tensor.dtype, name=tensor.name, doc_string=key)


def _tensor(model: LoadedModel, entry: onnx.TensorProto) -> Tensor:
    """Return the tensor of an initializer: the borrowed one, or a new one in memory."""
    record = model.tensors.find(entry)
    payload = None if record is None else record.payload
    if isinstance(payload, LazyBytes) and isinstance(payload.source, _Borrowed):
        return payload.source.tensor
    return onnx_ir.Tensor(
        model.tensors.array(entry),
        dtype=onnx_ir.DataType(entry.data_type),
        name=entry.name,
        doc_string=entry.doc_string or None,
    )


def _dims(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape.numpy())


def _require_one_producer_each(graph: onnx.GraphProto, outer: frozenset[str]) -> None:
    """Values of onnx_ir are objects, in a file they are their names.

    Raises:
        ModelError: Two values that can be seen from one place have the same name.
    """
    made = [each.name for each in graph.input]
    made += [name for node in graph.node for name in node.output if name]
    seen: set[str] = set()
    for name in made:
        if name in seen or name in outer:
            raise ModelError(
                f"two values of the model in memory are named '{name}'",
                hint="run onnx_ir.passes.common.NameFixPass first",
            )
        seen.add(name)
    seen.update(each.name for each in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            for each in _graphs_of(attribute):
                _require_one_producer_each(each, outer | seen)


def _graphs_of(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and every subgraph, also of functions."""
    yield proto.graph
    waiting = [proto.graph.node, *(function.node for function in proto.functions)]
    while waiting:
        for attribute in (each for node in waiting.pop() for each in node.attribute):
            for graph in _graphs_of(attribute):
                yield graph
                waiting.append(graph.node)


def _values(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    """Yield the values of a graph and its subgraphs."""
    for each in (graph, *graph.subgraphs()):
        yield from each.inputs
        yield from each.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs
