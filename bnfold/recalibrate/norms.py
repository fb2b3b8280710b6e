"""The batch normalizations of a model whose statistics can be gathered again.

Nodes that read the same scale, bias, mean and variance are one normalization that is used several
times, and have one set of statistics. Nodes that share only some of them (equal constants that an
exporter has merged) are normalizations of their own, and get copies where they need them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold.graph.constants import Constants
from bnfold.graph.facts import Facts
from bnfold.graph.index import Graph, Node, Value
from bnfold.graph.plan import Refusal
from bnfold.graph.rules.batchnorm import DEFAULT_EPSILON, channels, read_batchnorm
from bnfold.recalibrate.report import NormKept
from bnfold.report import Reason
from bnfold.store import TensorStore

__all__ = ["Norm", "find_norms", "levels", "reads"]

Float64 = NDArray[np.float64]

_FLOATS_OF_THE_RUNTIME = {1, 10, 11}
"""float32, float16, float64: what statistics can be gathered for."""


@dataclass(frozen=True, eq=False)
class Norm:
    """One normalization, used by one node or several.

    Attributes:
        name: Name of its first node, or of a PyTorch module.
        nodes: The nodes that use it, in file order; none for a PyTorch module.
        gamma: Scale, float64[C].
        beta: Bias, float64[C].
        mean: Stored mean, float64[C].
        var: Stored variance, float64[C].
        epsilon: Added to the variance.
        kind: Element type of what it normalizes.
        statistics_kind: Element type in which mean and variance are stored.
    """

    name: str
    nodes: tuple[Node, ...]
    gamma: Float64
    beta: Float64
    mean: Float64
    var: Float64
    epsilon: float
    kind: int
    statistics_kind: int

    @property
    def channels(self) -> int:
        """C."""
        return len(self.mean)


class _AnyInitializer(Constants):
    """Initializers are read although a caller may replace them: what the file has is renewed."""

    def is_overridable(self, value: Value) -> bool:
        return False


def find_norms(
    graph: Graph, tensors: TensorStore, only: Sequence[str] = ()
) -> tuple[list[Norm], list[NormKept]]:
    """Find all batch normalizations.

    Args:
        graph: The model, its shapes inferred.
        tensors: Where the data of its initializers lies.
        only: Globs on names; everything else is skipped. Without any, nothing is.

    Returns:
        Those that can be renewed, and the others with the reason, both in file order.
    """
    facts = Facts(_AnyInitializer(graph, tensors))
    found: dict[tuple[object, ...], list[Node]] = {}
    skipped: list[NormKept] = []
    for node in graph.nodes():
        if node.proto.op_type != "BatchNormalization":
            continue
        refusal = _refusal(node, graph, facts, only)
        if refusal is not None:
            skipped.append(NormKept(node.name, node.scope.label, channels(node, facts), *refusal))
            continue
        key = (*node.inputs[1:5], _epsilon(node))
        found.setdefault(key, []).append(node)
    return [_read(tuple(nodes), facts) for nodes in found.values()], skipped


def _refusal(node: Node, graph: Graph, facts: Facts, only: Sequence[str]) -> tuple[str, str] | None:
    """Why the statistics of a node stay as they are: a code and a sentence, or None."""
    name = f'"{node.name}"'
    if only and not any(fnmatchcase(node.name, pattern) for pattern in only):
        return "excluded", f"{name} is not among those asked for"
    if node.op != "BatchNormalization":
        return "custom_domain", f"{name} is not the ONNX operator"
    if node.scope is not graph.main:
        if node.scope.is_function:
            return "function", f"{name} stands in a function: its callers may differ in their data"
        return "subgraph", f"{name} stands in a body that may run never or many times"
    norm = read_batchnorm(node, facts)
    if isinstance(norm, Refusal):
        if norm.reason is not Reason.NON_FINITE_STATISTICS:
            return norm.reason.value, norm.detail
        # Statistics that are not finite are renewed; nothing renews a scale or a bias.
        if not all(np.isfinite(_vector(node.inputs[index], facts)).all() for index in (1, 2)):
            return norm.reason.value, f"the scale or bias of {name} is not finite"
    source = node.inputs[0]
    kind = _kind(node, facts)
    if source is None or kind not in _FLOATS_OF_THE_RUNTIME:
        return "unsupported_opset", f"the element type of {name} has no kernels to gather it with"
    return None


def _kind(node: Node, facts: Facts) -> int:
    """The element type of what a node normalizes: until opset 14 that of its parameters."""
    source, scale = node.inputs[0], facts.constant(node.inputs[1])
    if source is not None and source.elem_type:
        return source.elem_type
    return 0 if scale is None else scale.elem_type


def _epsilon(node: Node) -> float:
    return float(node.attribute("epsilon", DEFAULT_EPSILON))


def _read(nodes: tuple[Node, ...], facts: Facts) -> Norm:
    first = nodes[0]
    gamma, beta, mean, var = (_vector(value, facts) for value in first.inputs[1:5])
    stored = facts.constant(first.inputs[3])
    return Norm(
        first.name,
        nodes,
        gamma,
        beta,
        mean,
        var,
        _epsilon(first),
        _kind(first, facts),
        0 if stored is None else stored.elem_type,
    )


def _vector(value: Value | None, facts: Facts) -> Float64:
    """A parameter, float64[C]; `read_batchnorm` has seen that it is a constant."""
    constant = facts.constant(value)
    assert constant is not None  # noqa: S101
    return constant.float64


def levels(norms: Sequence[Norm], graph: Graph) -> list[list[int]]:
    """Group the indices of normalizations whose inputs hang on the same earlier ones.

    A normalization is in the level behind the last of the normalizations that its first use
    depends on; so each level can be gathered at once when those before are known.
    """
    own = {node: index for index, norm in enumerate(norms) for node in norm.nodes}
    depth: dict[str, int] = {}
    first: dict[int, int] = {}
    for node in graph.main.nodes:
        level = max((depth.get(name, 0) for name in reads(node.proto)), default=0)
        index = own.get(node)
        if index is not None:
            first.setdefault(index, level)
            level += 1
        depth.update((name, level) for name in node.proto.output)
    return [
        [index for index, its in first.items() if its == level]
        for level in sorted(set(first.values()))
    ]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those that its bodies capture among them."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from reads(inner)
            yield from (output.name for output in body.output)
