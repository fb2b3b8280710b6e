"""Brings a skeleton in line with the edits of its graph: data of new tensors, protobuf lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import GraphProto, TensorProto, helper

from bnfold.graph.index import Graph, Node, Scope, Value
from bnfold.lazy import Scaled
from bnfold.store import LazyTensor, TensorStore

__all__ = ["UNIFORM_FROM", "fill_tensors", "write_back"]

UNIFORM_FROM = 1024
"""Elements from which a tensor of one number is not written out."""


def fill_tensors(graph: Graph, made: Iterable[Value], tensors: TensorStore) -> None:
    """Give new tensors their data, in initializers or in the nodes that hold them.

    Args:
        graph: The model.
        made: Values that have been given constants; those that are gone by now are passed over.
        tensors: Takes the data.
    """
    for value in made:
        if value.lazy is None or value.scope.values.get(value.name) is not value:
            continue
        node = value.producer
        if value.tensor is not None:
            _fill(value.tensor, value.lazy, value, tensors)
        elif node is not None and node.alive and not _fill_uniform(graph, node, value):
            attribute = node.proto.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
            attribute.t.name = value.name
            _fill(attribute.t, value.lazy, value, tensors)


def _fill(tensor: TensorProto, lazy: LazyTensor, value: Value, tensors: TensorStore) -> None:
    tensor.data_type = value.elem_type
    tensor.dims[:] = lazy.shape
    tensors.attach(tensor, lazy)


def _fill_uniform(graph: Graph, node: Node, value: Value) -> bool:
    """A tensor of one number stays the few bytes that it was; False for any other."""
    lazy = value.lazy
    if not isinstance(lazy, Scaled) or not lazy.is_uniform or node.opset < 9:
        return False
    if lazy.base.size < UNIFORM_FROM:
        return False
    first = Scaled(lazy.base[(slice(0, 1),) * lazy.base.ndim], lazy.scale, lazy.dtype)
    number = TensorProto(dims=[1], data_type=value.elem_type)
    number.raw_data = first.rounded().reshape(1).tobytes()
    shape = graph.new_value(node.scope, f"{value.name}_shape")
    dims = helper.make_tensor("", TensorProto.INT64, [len(lazy.shape)], lazy.shape)
    name = graph.fresh(f"{shape.name}_node")
    source = helper.make_node("Constant", [], [""], name=name, value=dims)
    graph.insert(source, [], shape, before=node)
    node.proto.op_type = "ConstantOfShape"
    attribute = node.proto.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.CopyFrom(number)
    graph.connect(node, 0, shape)
    return True


def write_back(graph: Graph) -> None:
    """Write nodes, initializers, value infos and inputs of every scope."""
    for scope in reversed(graph.scopes):  # a node is copied with its subgraphs, so these go first
        _write_nodes(scope)
        if isinstance(scope.proto, GraphProto):
            _write_initializers(scope)
            _write_value_info(scope)
    if graph.dropped_inputs:
        inputs = graph.model.graph.input
        kept = [info for info in inputs if info.name not in graph.dropped_inputs]
        del inputs[:]
        inputs.extend(kept)


def _write_nodes(scope: Scope) -> None:
    if len(scope.nodes) == len(scope.proto.node) and all(node.alive for node in scope.nodes):
        return
    inserted = {id(other) for node in scope.nodes for other in (*node.followers, *node.leaders)}
    order: list[Node] = []
    for node in scope.nodes:
        if id(node) not in inserted:
            _emit(node, order)
    protos = [node.proto for node in order if node.alive]
    del scope.proto.node[:]
    scope.proto.node.extend(protos)


def _emit(node: Node, order: list[Node]) -> None:
    for leader in node.leaders:
        _emit(leader, order)
    order.append(node)
    for follower in reversed(node.followers):
        _emit(follower, order)


def _write_initializers(scope: Scope) -> None:
    graph = scope.proto
    alive = {v.name: v.tensor for v in scope.values.values() if v.tensor is not None}
    known = [tensor.name for tensor in graph.initializer]
    if list(alive) == known:
        return
    ordered = [alive.pop(name) for name in known if name in alive]
    ordered += alive.values()
    del graph.initializer[:]
    graph.initializer.extend(ordered)


def _write_value_info(scope: Scope) -> None:
    graph = scope.proto
    described = {info.name: info for info in graph.value_info}
    if not described:
        return
    infos: list[Any] = []
    seen: set[str] = set()
    moved = (v for v in scope.values.values() if v.described_as not in ("", v.name))
    renamed = {value.described_as: value for value in moved}
    boundary = {v.name for v in scope.values.values() if v.is_input or v.is_output}
    for info in graph.value_info:
        value = scope.values.get(info.name)
        if value is not None:
            seen.add(info.name)
            infos.append(info)
        other = renamed.get(info.name)
        if other is not None and other.name not in described and other.name not in boundary | seen:
            copy = onnx.ValueInfoProto()
            copy.CopyFrom(info)
            copy.name = other.name
            seen.add(other.name)
            infos.append(copy)
    if [info.name for info in infos] != [info.name for info in graph.value_info]:
        del graph.value_info[:]
        graph.value_info.extend(infos)
