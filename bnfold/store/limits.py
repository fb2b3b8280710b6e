"""What a model file may ask for: bounds that no real model comes near.

A small file can describe a model that nobody has room for: functions that call each other, inputs
by the million. Refusing it here keeps the time and memory of everything behind in proportion to
the file, in code that is not bnfold's own too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import Any

import onnx

from bnfold.errors import ModelError
from bnfold.store.dtypes import quoted
from bnfold.store.wire import LENGTH_DELIMITED, read_fields

__all__ = [
    "MAX_EXPANDED_NODES",
    "MAX_GRAPH_INPUTS",
    "MAX_NODE_INPUTS",
    "require_few_inputs",
    "require_sane",
]

MAX_EXPANDED_NODES = 1 << 16
"""Nodes of all functions, each counted once for every call that leads to it."""

MAX_GRAPH_INPUTS = 1 << 17
"""Inputs and outputs of the main graph."""

MAX_NODE_INPUTS = 1 << 16
"""Inputs, and outputs, of one node."""

_GRAPH = (7, LENGTH_DELIMITED)
_ENDS = {11, 12}

_Key = tuple[str, str]


def require_sane(model: onnx.ModelProto, label: str) -> None:
    """Refuse a model whose size has no proportion to its file, or whose names are not text.

    Args:
        model: The skeleton of the model.
        label: What messages call it.

    Raises:
        ModelError: A bound is exceeded, functions call themselves, or a name is not UTF-8.
    """
    _require_text(model, label)
    if model.functions and _expanded(model, label) > MAX_EXPANDED_NODES:
        raise ModelError(
            f"{label}: its functions, written out, have more than {MAX_EXPANDED_NODES} nodes",
            hint="export it again without functions, if it is not hostile",
        )


def require_few_inputs(view: memoryview, label: str) -> None:
    """Refuse an encoded model with too many inputs, before they take memory.

    Raises:
        ModelError: There are more than `MAX_GRAPH_INPUTS`.
        MalformedError: It is no protobuf message.
        UnusualError: It contains a group.
    """
    graphs = (each for each in read_fields(view, 0, len(view)) if each[:2] == _GRAPH)
    ends = sum(
        field.number in _ENDS for graph in graphs for field in read_fields(view, graph.lo, graph.hi)
    )
    if ends > MAX_GRAPH_INPUTS:
        raise ModelError(f"{label}: {ends} inputs and outputs are more than {MAX_GRAPH_INPUTS}")


def _require_text(model: onnx.ModelProto, label: str) -> None:
    """Refuse names that are not UTF-8: protobuf gives bytes for them, which no string equals."""
    names: Iterable[str | bytes] = chain(
        *((each.domain, each.name) for each in model.functions),
        (each.domain for each in model.opset_import),
    )
    scopes: list[Any] = [model.graph, *model.functions]
    nodes = chain.from_iterable(_nodes(scope.node) for scope in scopes)
    for name in chain(names, chain.from_iterable(_names(node, label) for node in nodes)):
        if isinstance(name, bytes):
            raise ModelError(
                f"{label}: the name {quoted(name)} is not UTF-8",
                hint="rename it with the tool that made the model",
            )


def _names(node: onnx.NodeProto, label: str) -> Iterator[str | bytes]:
    if max(len(node.input), len(node.output)) > MAX_NODE_INPUTS:
        raise ModelError(
            f"{label}: node {quoted(node.name)} has more than {MAX_NODE_INPUTS} inputs or outputs"
        )
    yield from (node.op_type, node.domain, node.name)
    for attribute in node.attribute:
        is_count = node.op_type == "Split" and attribute.name == "num_outputs"
        if is_count and attribute.i < len(node.output):  # ends the process in shape inference
            raise ModelError(
                f"{label}: the Split {quoted(node.name)} has {len(node.output)} outputs and a "
                f"num_outputs of {attribute.i}"
            )
        yield from (attribute.name, attribute.ref_attr_name)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, those of their bodies included."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)


def _expanded(model: onnx.ModelProto, label: str) -> int:
    """Return how many nodes the functions have where each call is replaced by the body."""
    bodies = {_key(each.domain, each.name): each.node for each in model.functions}
    calls: dict[_Key, list[_Key]] = {}
    sizes: dict[_Key, int] = {}
    for key, body in bodies.items():
        inner = [_key(node.domain, node.op_type) for node in _nodes(body)]
        calls[key] = [each for each in inner if each in bodies]
        sizes[key] = len(inner)
    total: dict[_Key, int] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            found = sizes[key] + sum(total[each] for each in calls[key])
            total[key] = min(found, MAX_EXPANDED_NODES + 1)
    except CycleError as error:
        name = error.args[1][0][1]
        raise ModelError(f"{label}: the function {quoted(name)} calls itself") from error
    outer = (_key(node.domain, node.op_type) for node in _nodes(model.graph.node))
    return sum(total.get(each, 0) for each in outer)


def _key(domain: str, name: str) -> _Key:
    return ("" if domain == "ai.onnx" else domain, name)
