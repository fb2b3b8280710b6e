"""What depends on what in the main graph of a model."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

import onnx

__all__ = ["after_jumps", "between", "next_shared", "produced", "reachable"]

# Operators that turn a small change into a large one, or into chance.
_JUMPS = frozenset(
    {"ArgMax", "ArgMin", "BitShift", "Ceil", "DynamicQuantizeLinear", "Equal", "Floor", "Greater"}
    | {"GreaterOrEqual", "If", "IsInf", "IsNaN", "Less", "LessOrEqual", "Loop", "Mod", "NonZero"}
    | {"NonMaxSuppression", "QuantizeLinear", "Round", "Sign", "TopK", "Unique", "Hardmax", "Not"}
    | {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
    | {"Multinomial", "RoiAlign", "MaxRoiPool", "Scan"}
)


def produced(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that nodes of the main graph compute."""
    return {
        name for node in graph.node if node.op_type != "Constant" for name in node.output if name
    }


def after_jumps(graph: onnx.GraphProto, shared: Container[str]) -> set[str]:
    """Return the shared tensors that jump: small changes can change them much."""
    jumping: set[str] = set()
    exempt: set[str] = set()
    for node in graph.node:
        to_number = node.op_type == "Cast" and any(
            a.name == "to" and a.i not in {1, 10, 11, 16} for a in node.attribute
        )
        if node.op_type in _JUMPS or to_number or any(name in jumping for name in _reads(node)):
            exempt.update(name for name in node.output if name in shared)
            jumping.update(name for name in node.output if name not in shared)
    return exempt


def next_shared(graph: onnx.GraphProto, shared: Container[str]) -> Mapping[str, set[str]]:
    """Return for each shared tensor the shared ones at the ends of the parts that it begins."""
    sources: dict[str, set[str]] = {}
    following: dict[str, set[str]] = {}
    for node in graph.node:
        begins: set[str] = set().union(
            *({name} if name in shared else sources.get(name, set()) for name in _reads(node))
        )
        for name in node.output:
            if name in shared:
                for begin in begins:
                    following.setdefault(begin, set()).add(name)
            else:
                sources[name] = begins
    return following


def between(graph: onnx.GraphProto, found: Iterable[str]) -> set[str]:
    """Return the tensors on the ways from one of the found to another, without the last."""
    wanted = set(found)
    after: set[str] = set()
    for node in graph.node:
        if any(name in wanted or name in after for name in _reads(node)):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(graph.node):
        if any(name in wanted or name in before for name in node.output):
            before.update(_reads(node))
    return (after | wanted) & before


def reachable(graph: onnx.GraphProto, tensors: Iterable[str]) -> frozenset[str]:
    """Return the graph outputs that depend on any of the tensors."""
    reached = set(tensors)
    for node in graph.node:
        if any(name in reached for name in _reads(node)):
            reached.update(node.output)
    return frozenset(output.name for output in graph.output if output.name in reached)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, in its subgraphs too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)
