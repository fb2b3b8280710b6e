"""A branch: the run of linear nodes between a value and the place where it is added.

A branch goes up from the addition as long as each node is linear and nobody else reads what it
gives. What it computes is the product of its nodes; what it costs is counted for one position of
its last node's output, a node in front of strides as often as the strides make it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node, Value
from bnfold.graph.merge.cost import Cost
from bnfold.graph.merge.operators import Form, Operator, channelwise, compose
from bnfold.graph.merge.readers import Link, read_link
from bnfold.graph.plan import Refusal
from bnfold.report import Reason

__all__ = ["Branch", "is_private", "read_branch"]

MAX_LINKS = 8


@dataclass(frozen=True, eq=False)
class Branch:
    """Linear nodes one behind the other.

    Attributes:
        source: The value that the first of them reads.
        links: The nodes, the last one first; none where the value itself is added.
    """

    source: Value
    links: tuple[Link, ...]

    @property
    def form(self) -> Form | None:
        """The form of its operators, or None if it has none of its own."""
        forms = [link.operator.form for link in self.links if link.operator is not None]
        return forms[-1] if forms else None

    @property
    def nodes(self) -> list[Node]:
        """Its nodes, the last one first."""
        return [link.node for link in self.links]

    @property
    def channels(self) -> int | None:
        """Channels of the source, if a node tells."""
        operators = (link.operator for link in reversed(self.links))
        return next((each.inputs for each in operators if each is not None), None)

    def resolve(self, form: Form, channels: int, facts: Facts) -> Operator | Refusal:
        """What the branch computes, as an operator of a form.

        Args:
            form: The form of the operators that it is to be joined with.
            channels: Channels of the source.
            facts: Knowledge about the graph.
        """
        whole: Operator | Refusal = channelwise(form, None, channels)
        for link in reversed(self.links):
            if isinstance(whole, Refusal):
                return whole
            operator = _resolve(link, form, whole.outputs, facts)
            if isinstance(operator, Refusal):
                return operator
            composed = compose(operator, whole)
            if isinstance(composed, Refusal):
                return Refusal(composed.reason, f'before "{link.node.name}", {composed.detail}')
            whole = composed
        return whole

    def cost(self, channels: int) -> Cost:
        """What its nodes cost together.

        Args:
            channels: Channels of the source.
        """
        work, elements = 0, 0
        counts = []
        for link in reversed(self.links):
            counts.append(channels)
            channels = channels if link.operator is None else link.operator.outputs
        repeated = 1
        for link, count in zip(self.links, reversed(counts), strict=True):
            work += repeated * link.work * (count if link.operator is None else 1)
            elements += link.elements
            repeated *= link.stride
        return Cost(work, elements)


def _resolve(link: Link, form: Form, channels: int, facts: Facts) -> Operator | Refusal:
    if link.operator is not None:
        if link.operator.form != form:
            return Refusal(Reason.NONLINEAR, f'"{link.node.name}" is an operator of another form')
        return link.operator
    if link.axes:
        if form.op != "Conv" or len(link.axes) != form.spatial:
            return Refusal(Reason.NONLINEAR, f'"{link.node.name}" is a mean over a window')
        return channelwise(form, None, channels, link.axes)
    if link.affine is None:
        return channelwise(form, None, channels)
    return _affine(link, form, channels, facts)


def _affine(link: Link, form: Form, channels: int, facts: Facts) -> Operator | Refusal:
    assert link.affine is not None  # noqa: S101 - the caller has seen it
    rank: int | None = form.spatial + 2
    axis = 1
    if form.is_matrix:
        rank = facts.rank(link.node.inputs[link.index])
        axis = 0 if rank is None else rank - (1 if form.op == "XW" else 2)
    if rank is None or rank < 2:
        return Refusal(Reason.UNKNOWN_SHAPE, f'the rank at "{link.node.name}" is unknown')
    affine: Affine | Refusal = link.affine(rank)
    vectors = affine if isinstance(affine, Refusal) else affine.along(axis, channels)
    if vectors is None:
        return Refusal(
            Reason.NOT_PER_CHANNEL, f'"{link.node.name}" varies along another axis than channels'
        )
    if isinstance(vectors, Refusal):
        return vectors
    return channelwise(form, vectors, channels)


def read_branch(value: Value, facts: Facts, *, last: Node | None = None) -> Branch:
    """The longest run of linear nodes that ends in ``value`` and that nobody else reads.

    Args:
        value: Where it ends.
        facts: Knowledge about the graph.
        last: The node that computes ``value``, if it does not matter who reads it.
    """
    links: list[Link] = []
    while len(links) < MAX_LINKS:
        node = value.producer
        if node is None or (node is not last and not is_private(value, node)):
            break
        link = read_link(node, facts)
        if isinstance(link, Refusal):
            break
        links.append(link)
        source = node.inputs[link.index]
        assert source is not None  # noqa: S101 - a reader has seen it
        value = source
    return Branch(value, tuple(links))


def is_private(value: Value, node: Node) -> bool:
    """True if exactly one node input reads ``value``, in the scope of ``node``."""
    if value.is_output or value.is_protected or value.is_input or len(value.uses) != 1:
        return False
    return value.captured_by is None and value.scope is node.scope
