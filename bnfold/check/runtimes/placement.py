"""Proof of placement: on which provider every node of a session runs.

A runtime whose libraries do not load, or that has no kernel for an operator, quietly takes the
CPU, and a comparison would prove nothing about the provider that was asked for. So the assignment
of nodes is read from every session. Only shape arithmetic may stand elsewhere: runtimes keep it on
the CPU on purpose. A node is shape arithmetic if it uses no data but shapes (and constants), or if
what it computes is used only as a shape, an axis, a size or a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx

from bnfold.check.runtimes.installed import runtime_name
from bnfold.check.runtimes.providers import CPU, provider_name
from bnfold.errors import ProviderError

__all__ = ["nodes_per_provider", "prove_placement", "shape_arithmetic"]

Path = tuple[int, ...]

_SHOWN = 8
# Operators whose result tells of a shape only.
_SHAPES = frozenset({"Shape", "Size"})
_CONSTANTS = frozenset({"Constant"})
# A runtime makes nodes of its own, by fusions and from functions. Those of these operators stand on
# the CPU where they compute shapes: for data every provider has kernels of them.
_OFTEN_SHAPES = frozenset(
    {"Add", "And", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand"}
    | {"Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or"}
    | {"Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub"}
    | {"Unsqueeze", "Where"}
)
# Inputs that are shapes, sizes, axes and bounds, by operator.
_SHAPE_INPUTS: Mapping[str, frozenset[int]] = {
    "AffineGrid": frozenset({1}),
    "CenterCropPad": frozenset({1}),
    "Col2Im": frozenset({1, 2}),
    "ConstantOfShape": frozenset({0}),
    "Expand": frozenset({1}),
    "EyeLike": frozenset({0}),
    "MaxUnpool": frozenset({2}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1, 3}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({2, 3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "SplitToSequence": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1, 2}),
    "TopK": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Upsample": frozenset({1}),
    "CumSum": frozenset({1}),
}


def prove_placement(session: Any, provider: str, label: str, graph: onnx.GraphProto) -> None:
    """Raise unless a session computes on the provider that was asked for.

    Args:
        session: An ``InferenceSession`` that recorded its assignment.
        provider: From :func:`bnfold.check.runtimes.providers.resolve_provider`.
        label: How messages call the model.
        graph: The main graph of the model.

    Raises:
        ProviderError: The runtime does not tell, or another provider got compute nodes.
    """
    name = provider_name(provider)
    if name == CPU:
        return
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise ProviderError(
            f"{runtime_name()} does not tell which provider runs which node",
            hint="update the runtime: what is not proved does not count",
        )
    astray = _astray(session.get_provider_graph_assignment_info(), name, graph)
    if astray:
        shown = ", ".join(astray[:_SHOWN])
        more = f" and {len(astray) - _SHOWN} more" if len(astray) > _SHOWN else ""
        count = "1 node is" if len(astray) == 1 else f"{len(astray)} nodes are"
        raise ProviderError(
            f"{label}: {count} not on {provider}: {shown}{more}",
            hint="the provider has no kernel for them; use --provider cpu for this model",
        )


def nodes_per_provider(session: Any) -> dict[str, int] | None:
    """Count the nodes of a session by provider; None where the runtime does not tell."""
    read = getattr(session, "get_provider_graph_assignment_info", None)
    if read is None:
        return None
    count: Counter[str] = Counter()
    for subgraph in read():
        count[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(count)


def _astray(assignment: Sequence[Any], provider: str, graph: onnx.GraphProto) -> list[str]:
    """List the compute nodes that another provider got, as ``Operator 'name'``."""
    excused = shape_arithmetic(graph)
    nodes = {path: (node.op_type, node.name) for path, node in _nodes(graph)}
    known = set(nodes.values())
    # Nodes may share a name or have none: excused only if no node that computes could be meant.
    compute = {told for path, told in nodes.items() if path not in excused}
    return [
        f"{node.op_type} '{node.name}'" if node.name else node.op_type
        for subgraph in assignment
        if subgraph.ep_name != provider
        for node in subgraph.get_nodes()
        if (node.op_type, node.name) in compute
        or ((node.op_type, node.name) not in known and node.op_type not in _OFTEN_SHAPES)
    ]


def _nodes(graph: onnx.GraphProto, path: Path = ()) -> Iterator[tuple[Path, onnx.NodeProto]]:
    """Yield the nodes of a graph and of all bodies in it, with their positions."""
    for position, node in enumerate(graph.node):
        yield (*path, position), node
        for number, body in enumerate(_bodies(node)):
            yield from _nodes(body, (*path, position, number))


def shape_arithmetic(graph: onnx.GraphProto, path: Path = ()) -> set[Path]:
    """Return the positions of all nodes, in bodies too, that compute shapes only.

    Args:
        graph: The main graph.
        path: Where the graph stands.

    Returns:
        Position in the main graph, or (position, number of the body, position in the body).
    """
    found = {(*path, at) for at in _derived_from_shapes(graph) | _used_as_shapes(graph)}
    for position, node in enumerate(graph.node):
        for number, body in enumerate(_bodies(node)):
            found |= shape_arithmetic(body, (*path, position, number))
    return found


def _derived_from_shapes(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes that no data reaches but through a shape."""
    known = {init.name for init in graph.initializer}
    known.update(init.values.name for init in graph.sparse_initializer)
    found = set()
    for index, node in enumerate(graph.node):
        if node.op_type in _SHAPES | _CONSTANTS or (
            node.input
            and not _bodies(node)
            and all(not name or name in known for name in node.input)
        ):
            found.add(index)
            known.update(node.output)
    return found


def _used_as_shapes(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes whose results are used, in the end, only as shapes."""
    data = {value.name for value in graph.output}
    shapes: set[str] = set()
    found: set[int] = set()
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        bodies = _bodies(node)
        results = set(filter(None, node.output))
        if results & shapes and not results & data and not bodies:
            found.add(index)
        positions = _shape_positions(node)
        for position, name in enumerate(node.input):
            (shapes if index in found or position in positions else data).add(name)
        for body in bodies:
            data.update(_captured(body))
    return found


def _shape_positions(node: onnx.NodeProto) -> frozenset[int]:
    if node.op_type in _SHAPES:
        return frozenset({0})
    if node.op_type.startswith("Reduce"):
        return frozenset({1})
    return _SHAPE_INPUTS.get(node.op_type, frozenset())


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return graphs + [body for attribute in node.attribute for body in attribute.graphs]


def _captured(body: onnx.GraphProto) -> Iterable[str]:
    for node in body.node:
        yield from node.input
        for inner in _bodies(node):
            yield from _captured(inner)
    yield from (value.name for value in body.output)
