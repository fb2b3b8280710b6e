"""Brings the protobuf lists of a skeleton in line with the edits of its graph."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import GraphProto

from bnfold.graph.index import Graph, Node, Scope

__all__ = ["write_back"]


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
