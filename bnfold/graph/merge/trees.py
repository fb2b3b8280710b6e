"""Trees of additions: their terms with signs, and what is left when some of the terms go.

A tree is a root and every Add, Sub, Sum and Neg above it whose result only the tree reads. Sums may
be put in any order, also where operands are broadcast, as the result has the shape of all of them
together. So terms may be taken out of their places and added at another one.

A term that goes takes its addition along: of x + y, y is left, of x - y its negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bnfold.graph.facts import Facts
from bnfold.graph.index import Graph, Node, Use, Value
from bnfold.graph.merge.branches import is_private
from bnfold.graph.plan import DropOperands, Plan, Reroute

__all__ = ["Term", "Tree", "find_roots", "leave_out", "read_tree", "take_over"]

ADDITIONS = ("Add", "Sub", "Sum")
MAX_TERMS = 64


@dataclass(frozen=True, eq=False)
class Term:
    """One operand of a tree.

    Attributes:
        value: The operand.
        sign: 1 or -1.
        use: Where it is read.
    """

    value: Value
    sign: int
    use: Use


@dataclass(frozen=True, eq=False)
class Tree:
    """Additions that work together.

    Attributes:
        root: The last of them.
        nodes: All of them, from the root up.
        terms: What they add.
    """

    root: Node
    nodes: tuple[Node, ...]
    terms: tuple[Term, ...]

    def without(self, gone: Iterable[Term]) -> tuple[list[DropOperands], list[Value]]:
        """What happens to the tree when some terms go, though not all.

        Returns:
            The edits, from the top down, and the results of inner nodes that mean something else
            afterwards.
        """
        uses = {term.use for term in gone}
        edits: list[DropOperands] = []
        changed: list[Value] = []
        for node in reversed(self.nodes):
            dropped = [i for i in range(len(node.inputs)) if Use(node, i) in uses]
            inner = node.outputs[0]
            assert inner is not None  # noqa: S101 - read_tree has seen it
            if len(dropped) == len(node.inputs):
                uses |= set(inner.uses)
            elif dropped:
                edits.append(DropOperands(node, tuple(dropped), node is self.root))
                changed.append(inner)
            elif any(value in changed for value in node.inputs):
                changed.append(inner)
        return edits, [value for value in changed if value is not self.root.outputs[0]]

    def below(self, use: Use) -> list[Value]:
        """The results of inner nodes that take part of what is read at ``use``."""
        values: list[Value] = []
        node = use.node
        while node is not self.root:
            value = node.outputs[0]
            assert value is not None  # noqa: S101 - read_tree has seen it
            values.append(value)
            node = next(iter(value.uses)).node
        return values


def find_roots(graph: Graph, facts: Facts) -> list[Node]:
    """The roots of all trees of a model."""
    return [
        node
        for node in graph.nodes()
        if node.op in ADDITIONS and _adds(node, facts) and not _is_inner(node, facts)
    ]


def _is_inner(node: Node, facts: Facts) -> bool:
    value = node.outputs[0]
    assert value is not None  # noqa: S101 - _adds has seen it
    user = next((use.node for use in value.uses), None)
    return user is not None and is_private(value, user) and _adds(user, facts)


def _adds(node: Node, facts: Facts) -> bool:
    if node.op not in (*ADDITIONS, "Neg"):
        return False
    if node.has_references or len(node.outputs) != 1 or node in facts.excluded:
        return False
    if node.opset < 7 and node.attribute("broadcast", 0):
        return False
    return node.outputs[0] is not None and bool(node.inputs) and None not in node.inputs


def read_tree(root: Node, facts: Facts) -> Tree | None:
    """The tree of a root as it is now, or None where it is too large."""
    nodes: list[Node] = [root]
    terms: list[Term] = []
    stack: list[tuple[Use, int]] = [(use, 1) for use in _operands(root)]
    while stack:
        use, sign = stack.pop()
        value = use.node.inputs[use.index]
        assert value is not None  # noqa: S101 - _adds has seen it
        negative = use.node.op == "Neg" or (use.node.op == "Sub" and use.index == 1)
        sign = -sign if negative else sign
        inner = value.producer
        if inner is not None and is_private(value, use.node) and _adds(inner, facts):
            nodes.append(inner)
            stack += [(each, sign) for each in _operands(inner)]
        else:
            terms.append(Term(value, sign, use))
        if len(terms) > MAX_TERMS:
            return None
    return Tree(root, tuple(nodes), tuple(terms))


def _operands(node: Node) -> list[Use]:
    """Its operands, the last one first."""
    return [Use(node, index) for index in reversed(range(len(node.inputs)))]


def leave_out(plan: Plan, tree: Tree, gone: Iterable[Term]) -> list[Value]:
    """Add to a plan what happens when terms go, though not all; return what changes."""
    dropped, changed = tree.without(gone)
    plan.edits += dropped
    plan.changed += changed
    plan.reshaped += changed
    return changed


def take_over(
    plan: Plan,
    tree: Tree,
    node: Node,
    index: int,
    source: Value,
    home: Term,
    gone: Sequence[Term] | None,
) -> None:
    """Add to a plan that one node computes the sum of terms from a value.

    Args:
        plan: Its edits give the node the right constants.
        tree: The additions.
        node: The node that computes the sum.
        index: The input at which it reads ``source``.
        source: The value that all the terms begin at.
        home: The term whose place the sum takes, if others are left.
        gone: The terms, or None if the tree has no others.
    """
    if gone is None:
        plan.edits.insert(0, Reroute(node, index, source, instead_of=tree.root))
        return
    plan.edits.insert(0, Reroute(node, index, source, at=home.use))
    leave_out(plan, tree, (term for term in gone if term is not home))
    full = tree.below(home.use)  # the sum has the shape of each of its terms
    plan.changed = list(dict.fromkeys([*plan.changed, *full]))
    plan.reshaped = [value for value in plan.reshaped if value not in full]
