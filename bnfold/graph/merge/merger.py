"""Goes through a model for merges, applies what pays, and remembers what has become of each branch.

Additions come before runs: a branch of two operators is cheaper beside others than alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bnfold.graph.facts import Facts
from bnfold.graph.index import Graph, Node
from bnfold.graph.merge.parallel import plan_parallel
from bnfold.graph.merge.remainder import plan_normalization, plan_zeros
from bnfold.graph.merge.series import find_ends, plan_series, read_series
from bnfold.graph.merge.trees import find_roots, read_tree
from bnfold.graph.plan import Plan, Refusal
from bnfold.report import BRANCH, Reason, Verdict

__all__ = ["Merger"]


@dataclass(frozen=True, eq=False)
class _Merged:
    """A branch that is gone."""

    node: Node
    plan: Plan


class Merger:
    """The merges of one model.

    Args:
        graph: The model.
        facts: Knowledge about it.
        keep: Globs on names of nodes that must not take part.
        apply: Carries out a plan.
    """

    def __init__(
        self, graph: Graph, facts: Facts, keep: tuple[str, ...], apply: Callable[[Plan], None]
    ) -> None:
        self.graph = graph
        self.facts = facts
        self.keep = keep
        self.apply = apply
        self._merged: list[_Merged] = []
        self._refused: dict[Node, Refusal] = {}

    def run(self) -> bool:
        """Merge once all that can be merged now; True if anything was."""
        self.facts.constants.reconsider()
        merged = False
        for root in find_roots(self.graph, self.facts):
            while root.alive and self._try(root, self._parallel(root)):
                merged = True
        for end in find_ends(self.graph):
            while end.alive and self._try(end, self._series(end)):
                merged = True
        return merged

    def _parallel(self, root: Node) -> Plan | Refusal | None:
        tree = read_tree(root, self.facts)
        if tree is None:
            return None
        result = plan_parallel(tree, self.facts)
        if isinstance(result, Plan):
            return result
        rest = plan_normalization(tree, self.facts) or plan_zeros(tree, self.facts)
        return result if rest is None else rest

    def _series(self, end: Node) -> Plan | Refusal | None:
        branch = read_series(end, self.facts)
        return None if branch is None else plan_series(branch, self.facts)

    def _try(self, node: Node, result: Plan | Refusal | None) -> bool:
        """Carry a plan out, unless somebody asked to keep a node of it."""
        self._refused.pop(node, None)
        if isinstance(result, Plan):
            names = {each.name for each in (node, *result.into, *result.branches, *result.through)}
            if not any(fnmatchcase(name, glob) for glob in self.keep for name in names):
                self.apply(result)
                self._merged += [_Merged(branch, result) for branch in result.branches]
                return True
            result = Refusal(Reason.EXCLUDED, f'what "{node.name}" joins is excluded by name')
        if result is not None:
            self._refused[node] = result
        return False

    def verdicts(self, reported: Iterable[Node]) -> Iterator[Verdict]:
        """One verdict for each branch, and for each place where branches stay.

        Args:
            reported: Nodes that have a verdict of their own.
        """
        others = set(reported)
        for merged in self._merged:
            if merged.node not in others:
                yield Verdict(
                    name=merged.node.name,
                    kind=BRANCH,
                    graph=merged.node.scope.label,
                    channels=None,
                    folded=True,
                    direction=merged.plan.direction,
                    into=tuple(node.name for node in self.final(merged.plan.into)),
                    through=tuple(dict.fromkeys(n.name for n in merged.plan.through)),
                )
        for node, refusal in self._refused.items():
            if node.alive:
                yield Verdict(
                    name=node.name,
                    kind=BRANCH,
                    graph=node.scope.label,
                    channels=None,
                    folded=False,
                    reason=refusal.reason,
                    detail=refusal.detail,
                )

    def final(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that are left of some: a node that stayed may have gone in a later merge."""
        into = {merged.node: merged.plan.into for merged in self._merged}
        result: dict[Node, None] = {}
        stack, seen = list(nodes)[::-1], set()
        while stack:
            node = stack.pop()
            if node.alive or node not in into:
                result[node] = None
            elif node not in seen:
                seen.add(node)
                stack += into[node][::-1]
        return list(result)
