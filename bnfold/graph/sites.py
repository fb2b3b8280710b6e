"""Finds what should go: batch normalizations, and chains of elementwise operators with constants.

A chain is a maximal run of Add, Sub, Mul, Div and Neg with constants that together vary along one
axis: a decomposed batch normalization, Caffe's scale layer, a layer scale. Chains of scalars are no
sites (they would be attention scales), and an Add behind a MatMul is that MatMul's bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from bnfold.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.index import Graph, Node, Value
from bnfold.graph.plan import Refusal
from bnfold.graph.rules.batchnorm import channels, read_batchnorm
from bnfold.graph.rules.elementwise import ConstantOperand, constant_operand
from bnfold.report import Reason

__all__ = ["Candidate", "Site", "find"]

ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Neg"}
BATCHNORM_COST = 2


@dataclass(frozen=True, eq=False)
class Site:
    """An affine that stands in the graph, ready to be planned away.

    Attributes:
        name: Name for reports.
        members: Its nodes in order, each with the index of its computed input.
        affine: What all of them together compute.
        cost: Elementwise operations that it takes.
    """

    name: str
    members: list[tuple[Node, int]]
    affine: Affine
    cost: int

    @property
    def input(self) -> Value:
        """The computed value that the first member reads."""
        node, index = self.members[0]
        value = node.inputs[index]
        assert value is not None  # noqa: S101 - find() has seen it
        return value

    @property
    def output(self) -> Value:
        """The value that the last member computes."""
        value = self.members[-1][0].outputs[0]
        assert value is not None  # noqa: S101 - find() has seen it
        return value


@dataclass(eq=False)
class Candidate:
    """A place that may be a site, followed through all edits.

    Attributes:
        name: Name for reports.
        kind: ``BatchNormalization`` or ``Affine``.
        nodes: Its nodes in order.
        channels: Number of channels, or None.
    """

    name: str
    kind: str
    nodes: list[Node]
    channels: int | None = None
    graph: str = field(init=False)

    def __post_init__(self) -> None:
        self.graph = self.nodes[0].scope.label

    @property
    def is_gone(self) -> bool:
        """True if none of its nodes is left."""
        return not any(node.alive for node in self.nodes)

    def read(self, facts: Facts) -> Site | Refusal:
        """What it computes now."""
        if self.kind != "Affine":
            return self._read_batchnorm(facts)
        return read_chain(self.name, [node for node in self.nodes if node.alive], facts)

    def parts(self, facts: Facts) -> Iterator[Site]:
        """Its nodes one by one, where the whole could not be folded."""
        alive = [node for node in self.nodes if node.alive]
        if self.kind == "Affine" and len(alive) > 1:
            for node in reversed(alive):
                if node.alive:
                    site = read_chain(self.name, [node], facts)
                    if isinstance(site, Site):
                        yield site

    def _read_batchnorm(self, facts: Facts) -> Site | Refusal:
        node = self.nodes[0]
        if node.op != "BatchNormalization":
            return Refusal(
                Reason.CUSTOM_DOMAIN, f'"{self.name}" is {node.op}, not the ONNX operator'
            )
        norm = read_batchnorm(node, facts)
        if isinstance(norm, Refusal):
            return norm
        rank = facts.rank(node.input(0))
        rank = facts.rank(node.output()) if rank is None else rank
        if rank is None or rank < 2:
            return Refusal(
                Reason.UNKNOWN_SHAPE,
                f'the rank of the input of "{self.name}" is unknown or below 2',
            )
        return Site(self.name, [(node, 0)], norm.at_rank(rank), BATCHNORM_COST)


def read_chain(name: str, nodes: list[Node], facts: Facts) -> Site | Refusal:
    """What a run of elementwise nodes computes."""
    members: list[tuple[Node, int]] = []
    whole: Affine | None = None
    for node in nodes:
        if node in facts.excluded:
            return Refusal(Reason.EXCLUDED, f'"{node.name}" is excluded by name')
        operand = constant_operand(node, None, facts)
        if isinstance(operand, Refusal):
            return operand
        if members and operand.computed.producer is not members[-1][0]:
            return Refusal(Reason.NO_LINEAR_NEIGHBOUR, f'the chain is broken before "{node.name}"')
        members.append((node, operand.index))
        whole = operand.affine if whole is None else whole.then(operand.affine)
    assert whole is not None  # noqa: S101 - a chain has nodes
    if not whole.finite:
        return Refusal(Reason.NON_FINITE_STATISTICS, f'the constants of "{name}" are not finite')
    return Site(name, members, whole, len(members))


def find(graph: Graph, facts: Facts, keep: tuple[str, ...]) -> list[Candidate]:
    """All candidates of a model, in graph order; those named by ``keep`` become excluded.

    Args:
        graph: The model.
        facts: Knowledge about it; ``excluded`` is filled in.
        keep: Globs on the names of candidates.
    """
    found: list[Candidate] = []
    taken: set[Node] = set()
    for node in graph.nodes():
        if node in taken or not node.outputs:
            continue
        candidate = _candidate(node, facts)
        if candidate is None:
            continue
        taken.update(candidate.nodes)
        found.append(candidate)
        names = {candidate.name, *(member.name for member in candidate.nodes)}
        if any(fnmatchcase(name, pattern) for pattern in keep for name in names):
            facts.excluded.update(candidate.nodes)
    return found


def _candidate(node: Node, facts: Facts) -> Candidate | None:
    if node.proto.op_type == "BatchNormalization":
        return Candidate(node.name, "BatchNormalization", [node], channels(node, facts))
    if node.op not in ELEMENTWISE:
        return None
    operands = list(_run(node, facts))
    if not operands:
        return None
    axes = frozenset[int]().union(*(_axes(operand) for operand in operands))
    if len(axes) != 1:
        return None
    is_shift = all(operand.affine.is_shift for operand in operands)
    if is_shift and _is_bias(operands[0]):
        return None
    length = max(operand.values.shape[axis] for operand in operands for axis in axes)
    return Candidate(node.name, "Affine", [operand.node for operand in operands], length)


def _run(node: Node, facts: Facts) -> Iterator[ConstantOperand]:
    """The chain that starts at ``node`` and varies along one axis at most."""
    axes: frozenset[int] = frozenset()
    value: Value | None = None
    while True:
        operand = constant_operand(node, None, facts)
        if isinstance(operand, Refusal) or operand.computed is not (value or operand.computed):
            return  # of what is constant so far, the rest is no chain
        axes |= _axes(operand)
        if len(axes) > 1:
            return
        yield operand
        value = node.output()
        if value is None or value.is_output or len(value.uses) != 1:
            return
        use = next(iter(value.uses))
        if use.node.op not in ELEMENTWISE or use.node.scope is not node.scope:
            return
        node = use.node


def _axes(operand: ConstantOperand) -> frozenset[int]:
    """The axes along which the constant is stored, whether or not its values vary."""
    return frozenset(axis for axis, length in enumerate(operand.values.shape) if length > 1)


def _is_bias(operand: ConstantOperand) -> bool:
    producer = operand.computed.producer
    return producer is not None and producer.op == "MatMul"
