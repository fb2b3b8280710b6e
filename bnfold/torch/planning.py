"""Decides which batch normalizations of a module go, over all traces of it at once.

The planner of the ONNX side walks over the surrogate graph. Its steps are limited to what can be
done to a module without touching its code: constants at slots change, and batch normalizations go.
Then two things must hold, or one more thing is forbidden and everything is planned anew:

1. All calls of a normalization are folded, in every trace, or none (a module called twice; a branch
   that another shape takes).
2. All uses of a parameter change alike (a convolution called twice, tied weights).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from bnfold.affine import Affine
from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Answer, Edit, Plan, Refusal, SetConstant, Step
from bnfold.graph.planner import _Backward, _Forward, _Search
from bnfold.graph.sites import Candidate, Site
from bnfold.lazy import Unrounded
from bnfold.report import Reason, Verdict
from bnfold.torch.surrogate import Slot, Surrogate

__all__ = ["Norm", "Outcome", "Setup", "solve"]


@dataclass(eq=False)
class Norm:
    """One batch normalization, with all of its calls.

    Attributes:
        key: What identifies it in every trace.
        name: Name for the report.
        calls: A candidate for each call.
        kept: Why it must stay whatever stands around it, or None.
    """

    key: Hashable
    name: str
    calls: list[Candidate] = field(default_factory=list)
    kept: Refusal | None = None


@dataclass(eq=False)
class Setup:
    """A surrogate graph that is ready to be planned on.

    Attributes:
        graph: All traces.
        norms: What may go, in order.
        watched: Values that somebody sees from outside: a hook.
        others: Verdicts on normalizations that no trace calls.
    """

    graph: Surrogate
    norms: list[Norm]
    watched: list[Value] = field(default_factory=list)
    others: list[Verdict] = field(default_factory=list)


@dataclass
class Outcome:
    """What was decided.

    Attributes:
        verdicts: One for each normalization.
        folded: The keys of those that go.
        changes: The new values of each slot that changes.
    """

    verdicts: list[Verdict]
    folded: set[Hashable]
    changes: dict[Hashable, tuple[Slot, Unrounded]]


@dataclass
class _Forbidden:
    norms: dict[Hashable, Refusal] = field(default_factory=dict)
    slots: dict[Hashable, str] = field(default_factory=dict)


def solve(
    prepare: Callable[[], Setup],
    keep: Sequence[str] = (),
    refused: dict[Hashable, Refusal] | None = None,
) -> Outcome:
    """Plan until what is planned can be done to the module.

    Args:
        prepare: Builds a fresh surrogate graph.
        keep: Globs of names to leave alone.
        refused: Normalizations that must stay, and why.
    """
    forbidden = _Forbidden(norms=dict(refused or {}))
    while True:
        attempt = _Attempt(prepare(), keep, forbidden)
        attempt.run()
        if not attempt.find_conflicts():
            return attempt.outcome()


class _Attempt:
    def __init__(self, setup: Setup, keep: Sequence[str], forbidden: _Forbidden) -> None:
        self.setup = setup
        self.graph = setup.graph
        self.forbidden = forbidden
        self.plans: dict[Candidate, Plan] = {}
        self.refusals: dict[Candidate, Refusal] = {}
        self.owners = {node: c for norm in setup.norms for c in norm.calls for node in c.nodes}
        for value in setup.watched:
            value.is_protected = True
        for key, why in forbidden.slots.items():
            slot = self.graph.slots.get(key)
            if slot is not None:
                slot.blocked = slot.blocked or why
        for norm in setup.norms:
            if any(fnmatchcase(norm.name, pattern) for pattern in keep):
                norm.kept = Refusal(Reason.EXCLUDED, f'"{norm.name}" is excluded by name')
                self.graph.facts.excluded.update(n for call in norm.calls for n in call.nodes)
            elif norm.kept is None:
                norm.kept = forbidden.norms.get(norm.key)

    def run(self) -> None:
        """Fold calls until none is left that can go."""
        left = [call for norm in self.setup.norms if norm.kept is None for call in norm.calls]
        while left:
            folded = [call for call in left if self._try(call)]
            left = [call for call in left if call not in self.plans]
            if not folded:
                return

    def _try(self, call: Candidate) -> bool:
        facts = self.graph.facts
        site = call.read(facts)
        result = site if isinstance(site, Refusal) else self._plan(site)
        if isinstance(result, Refusal):
            self.refusals[call] = result
            return False
        self.graph.apply(result)
        self.plans[call] = result
        return True

    def _plan(self, site: Site) -> Plan | Refusal:
        with np.errstate(all="ignore"):
            backward = _Up(site, self.graph).plan()
            if isinstance(backward, Plan):
                return backward
            forward = _Down(site, self.graph).plan()
        return forward if isinstance(forward, Plan) else _better(site, backward, forward)

    # --- what must hold of all plans together

    def find_conflicts(self) -> bool:
        """Forbid what only some calls or uses support; True if there was anything."""
        partial = False
        for norm in self.setup.norms:
            refused = [call for call in norm.calls if call not in self.plans]
            if refused and len(refused) < len(norm.calls):
                cause = self.refusals[refused[0]]
                several = f'"{norm.name}" is called several times, and not all calls can be folded'
                detail = f"{several}: {cause.detail}"
                self.forbidden.norms[norm.key] = Refusal(cause.reason, detail)
                partial = True
        if partial:
            return True
        conflicts = [slot for slot in self.graph.slots.values() if self._differs(slot)]
        for slot in conflicts:
            self.forbidden.slots[slot.key] = "is read in several places that need different values"
        return bool(conflicts)

    def _differs(self, slot: Slot) -> bool:
        finals = [self.graph.final(use, slot) for use in slot.uses if use.node.alive]
        if not slot.original.is_float:
            return False
        return any(not _equal(finals[0], other) for other in finals[1:])

    def outcome(self) -> Outcome:
        """The verdicts, and the changes of all slots."""
        changes: dict[Hashable, tuple[Slot, Unrounded]] = {}
        for slot in self.graph.slots.values():
            uses = [use for use in slot.uses if use.node.alive]
            if not uses or not slot.original.is_float:
                continue
            final = self.graph.final(uses[0], slot)
            if not _equal(final, slot.original.lazy()):
                changes[slot.key] = (slot, final)
        folded = {
            norm.key
            for norm in self.setup.norms
            if norm.calls and all(call in self.plans for call in norm.calls)
        }
        verdicts = [self._verdict(norm, norm.key in folded) for norm in self.setup.norms]
        return Outcome([*verdicts, *self.setup.others], folded, changes)

    def _verdict(self, norm: Norm, folded: bool) -> Verdict:
        first = norm.calls[0]
        if folded:
            plans = [self.plans[call] for call in norm.calls]
            into = dict.fromkeys(name for plan in plans for name in self._final(plan.into))
            through = dict.fromkeys(node.name for plan in plans for node in plan.through)
            through = {name: None for name in through if name not in into}
            return Verdict(
                norm.name, "BatchNormalization", "main", first.channels, folded=True,
                direction=plans[0].direction, into=tuple(into), through=tuple(through),
            )  # fmt: skip
        refusal = norm.kept or next(self.refusals[call] for call in norm.calls)
        return Verdict(
            norm.name, "BatchNormalization", "main", first.channels, folded=False,
            reason=refusal.reason, detail=refusal.detail.replace(_PROTECTED, _WATCHED),
        )  # fmt: skip

    def _final(self, nodes: Sequence[Node]) -> Iterator[str]:
        """The nodes that hold the affine in the end: an absorber may be gone itself."""
        for node in nodes:
            owner = self.owners.get(node)
            plan = None if owner is None else self.plans.get(owner)
            if plan is None or node.alive:
                yield node.name
            else:
                yield from self._final(plan.into)


_PROTECTED = "is named outside the nodes"
_WATCHED = "is seen by a hook, or by code that looks at values"


class _Limits:
    """What a plan may do to a module."""

    graph: Surrogate

    def limited(self, answer: Answer) -> Answer:
        """The steps that change slots only; the first reason where there is none."""
        if isinstance(answer, Refusal):
            return answer
        refusal: Refusal | None = None
        steps: list[Step] = []
        for step in answer:
            why = next((r for edit in step.edits if (r := self.forbids(edit)) is not None), None)
            if why is None:
                steps.append(step)
            refusal = refusal or why
        if steps:
            return steps
        return refusal or Refusal(Reason.NONLINEAR, "no way to do it")

    def forbids(self, edit: Edit) -> Refusal | None:
        """Why an edit cannot be made, or None."""
        if not isinstance(edit, SetConstant):
            return Refusal(
                Reason.DYNAMIC_WEIGHT, f'it would take another operation at "{edit.node.name}"'
            )
        return self.fixed(edit.node, edit.index)

    def fixed(self, node: Node, index: int) -> Refusal | None:
        """Why input ``index`` of a node cannot get another constant, or None."""
        slot = self.graph.slot_at.get((node, index))
        if slot is None:
            return Refusal(
                Reason.DYNAMIC_WEIGHT,
                f'what "{node.name}" reads is no parameter of its own that could change',
            )
        if slot.blocked is not None:
            return Refusal(Reason.FAN_OUT, f'"{slot.name}" {slot.blocked}')
        return None


class _Up(_Limits, _Backward):
    def __init__(self, site: Site, graph: Surrogate) -> None:
        super().__init__(site, graph.facts)
        self.graph = graph

    def plan(self) -> Plan | Refusal:
        search = _Search()
        node, index = self.site.members[0]
        refusal = self.follow(node, index, self.site.affine, search)
        return refusal if refusal is not None else self.run(search)

    def rule(self, node: Node, affines: dict[int, Affine]) -> Answer:  # type: ignore[override]
        return self.limited(super().rule(node, affines))

    def _absorb_in_constant(
        self, node: Node, index: int, affine: Affine, search: _Search
    ) -> Refusal | None:
        if not affine.is_identity:
            refusal = self.fixed(node, index)
            if refusal is not None:
                return refusal
        return super()._absorb_in_constant(node, index, affine, search)


class _Down(_Limits, _Forward):
    def __init__(self, site: Site, graph: Surrogate) -> None:
        super().__init__(site, graph.facts)
        self.graph = graph

    def plan(self) -> Plan | Refusal:
        search = _Search()
        refusal = self.spread(self.site.output, self.site.affine, search)
        return refusal if refusal is not None else self.run(search)

    def rule(self, node: Node, affines: dict[int, Affine]) -> Answer:  # type: ignore[override]
        return self.limited(super().rule(node, affines))


def _better(site: Site, backward: Refusal, forward: Refusal) -> Refusal:
    """The refusal that tells more: where one side is a plain wall, what blocks the other."""
    walls = (Reason.NONLINEAR, Reason.GRAPH_INPUT)
    detail = f"backward, {backward.detail}; forward, {forward.detail}"
    if site.input.is_input and site.output.is_output:
        return Refusal(Reason.NO_LINEAR_NEIGHBOUR, detail)
    informative = forward.reason not in (*walls, Reason.GRAPH_OUTPUT)
    return Refusal(
        (forward if backward.reason in walls and informative else backward).reason, detail
    )


def _equal(left: Unrounded, right: Unrounded) -> bool:
    """True if both hold the same values."""
    if left.same_as(right):
        return True
    return left.shape == right.shape and np.array_equal(left.float64(), right.float64())
