"""Walks up or down from a site with its affine and returns a plan, or the reason why there is none.

Backward, a *demand* on a value is the affine that it must take on: ``new = A(old)``. Forward, what
is *pending* on a value is the affine that it lacks: ``old = A(new)``. Nodes are visited in
topological order, each once, when every demand on (or everything pending at) it is known. A value
may change only if every use of it lies inside the plan, or provably reads elements that stay.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS, Constant
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node, Use, Value
from bnfold.graph.plan import Answer, Ask, Bypass, Edit, Plan, Refusal, SetConstant, Step, dense
from bnfold.graph.rules import RULES
from bnfold.graph.sites import Site
from bnfold.report import Reason

__all__ = ["plan_backward", "plan_forward"]

log = logging.getLogger(__name__)

MAX_ALTERNATIVES = 32
MAX_NODES = 4096
_SMALL = 1 << 12
"""Elements of a scale about which a rule answers at the cost of one."""
SHAPE_ONLY = ("Shape", "Size")
SELECTIONS = ("Slice", "Gather", "Split")


@dataclass(eq=False)
class _Search:
    """The state of one walk; copied where a rule offers alternatives."""

    affines: dict[Value, Affine] = field(default_factory=dict)
    covered: dict[Value, set[Use]] = field(default_factory=dict)
    queue: list[tuple[int, int, Node]] = field(default_factory=list)
    steps: list[tuple[Node, Step]] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    visited: set[Node] = field(default_factory=set)
    merged: set[Value] = field(default_factory=set)

    def copy(self) -> _Search:
        covered = {value: set(uses) for value, uses in self.covered.items()}
        return _Search(
            dict(self.affines),
            covered,
            list(self.queue),
            list(self.steps),
            list(self.edits),
            set(self.visited),
            set(self.merged),
        )


class _Walk(ABC):
    """One direction of one site. Subclasses say which way is on."""

    direction: str

    def __init__(self, site: Site, facts: Facts) -> None:
        self.site = site
        self.facts = facts
        self.alternatives = MAX_ALTERNATIVES
        self.order = itertools.count()

    def run(self, search: _Search) -> Plan | Refusal:
        """Visit nodes until none is left; of alternatives, the first that works."""
        while search.queue:
            if len(search.steps) > MAX_NODES:
                return Refusal(Reason.NO_GAIN, "too many nodes would have to change together")
            node = heapq.heappop(search.queue)[2]
            search.visited.add(node)
            answer = self.ask(node, search)
            if isinstance(answer, Refusal):
                return answer
            if len(answer) > 1 and self.alternatives > 0:
                return self._first_of(node, answer, search)
            refusal = self.take(node, answer[0], search)
            if refusal is not None:
                return refusal
        return self._plan(search)

    def _first_of(self, node: Node, steps: Sequence[Step], search: _Search) -> Plan | Refusal:
        first: Refusal | None = None
        for step in steps:
            self.alternatives -= 1
            branch = search.copy()
            result = self.take(node, step, branch) or self.run(branch)
            if isinstance(result, Plan):
                return result
            first = first or result
            if self.alternatives <= 0:
                break
        assert first is not None  # noqa: S101 - every step has failed
        return first

    def take(self, node: Node, step: Step, search: _Search) -> Refusal | None:
        """Record one step and go on to the values that it passes the affine to."""
        search.steps.append((node, step))
        for index, affine in step.passes.items():
            refusal = self.follow(node, index, affine, search)
            if refusal is not None:
                return refusal
        return None

    @abstractmethod
    def ask(self, node: Node, search: _Search) -> Answer:
        """What the rule of ``node`` answers."""

    @abstractmethod
    def follow(self, node: Node, index: int, affine: Affine, search: _Search) -> Refusal | None:
        """Go on to the value at input (or output) ``index``."""

    def rule(self, node: Node, affines: Mapping[int, Affine]) -> Answer:
        """Ask the rule of ``node`` in this direction."""
        rule = RULES.get(node.op)
        ask = None if rule is None else getattr(rule, self.direction)
        if node.proto.domain not in ("", "ai.onnx"):
            return Refusal(
                Reason.CUSTOM_DOMAIN, f'"{node.name}" is {node.op}, of another domain than ONNX'
            )
        return _answer(None if node.has_references else ask, node, affines, self.facts)

    def enqueue(self, node: Node, search: _Search, key: int) -> Refusal | None:
        """Visit ``node`` later; once, however often it is named."""
        if node in search.visited:
            return Refusal(Reason.NONLINEAR, f'"{node.name}" is not in topological order')
        if all(entry[2] is not node for entry in search.queue):
            heapq.heappush(search.queue, (key, next(self.order), node))
        return None

    def _plan(self, search: _Search) -> Plan | Refusal:
        plan = Plan(self.direction)
        plan.edits = [Bypass(node, index) for node, index in reversed(self.site.members)]
        gain = self.site.cost
        for node, step in search.steps:
            gain -= step.cost
            plan.edits += step.edits
            if step.absorbs:
                plan.into.append(node)
            elif not any(isinstance(edit, Bypass) for edit in step.edits):
                plan.through.append(node)
        gone = {edit.node for edit in plan.edits if isinstance(edit, Bypass)}
        # the constant that a node applies to changes before the node goes
        own = [edit for edit in search.edits if edit.node in gone]
        plan.edits = [*own, *plan.edits, *(edit for edit in search.edits if edit.node not in gone)]
        plan.into = list(dict.fromkeys(plan.into))
        plan.changed = list(search.affines)
        of_constant = self.facts.constants.get(self.site.input) is not None
        plan.constant = self.site.input.name if of_constant else ""
        if gain <= 0:
            return Refusal(
                Reason.NO_GAIN,
                f'folding "{self.site.name}" would add as many operations as it removes',
            )
        return plan


class _Backward(_Walk):
    direction = "backward"

    def ask(self, node: Node, search: _Search) -> Answer:
        demands: dict[int, Affine] = {}
        for index, value in enumerate(node.outputs):
            if value is None or value not in search.affines:
                continue
            refusal = self._uncovered(value, search)
            if refusal is not None:
                return refusal
            demands[index] = search.affines[value]
        if set(demands) != {0} and node.op != "Split":
            return Refusal(Reason.NONLINEAR, f'"{node.name}" has several outputs')
        return self.rule(node, demands)

    def _uncovered(self, value: Value, search: _Search) -> Refusal | None:
        """Every use of a changed value lies inside the plan, or reads what stays."""
        if value.is_output:
            return Refusal(Reason.GRAPH_OUTPUT, f'"{value.name}" is also an output of the graph')
        if value.is_protected:
            return Refusal(Reason.GRAPH_OUTPUT, f'"{value.name}" is named outside the nodes')
        for use in value.uses:
            if use in search.covered[value]:
                if value in search.merged and not self._keeps_to_demand(use, value, search):
                    return _two_affines(value)
                continue
            if use.node.scope is not value.scope:
                return Refusal(
                    Reason.CAPTURED, f'"{value.name}" is used inside the subgraph of another node'
                )
            if not self._reads_what_stays(use, search.affines[value]):
                return Refusal(Reason.FAN_OUT, f'"{value.name}" is also used by "{use.node.name}"')
        return None

    def _keeps_to_demand(self, use: Use, value: Value, search: _Search) -> bool:
        """True if what a selection reads of a merged demand is what its outputs demand."""
        if use.node.op not in SELECTIONS or use.index != 0:
            return False
        affine = search.affines[value]
        answer = _answer(RULES[use.node.op].forward, use.node, {0: affine}, self.facts)
        if isinstance(answer, Refusal):
            return False
        for index, output in enumerate(use.node.outputs):
            if output is None:
                continue
            read = answer[0].passes[index]
            wanted = search.affines.get(output)
            if not (read.is_identity if wanted is None else read.same_as(wanted)):
                return False
        return True

    def _reads_what_stays(self, use: Use, affine: Affine) -> bool:
        """A slice of other channels does not see the change, and a shape does not change."""
        if use.node.op in SHAPE_ONLY:
            return True
        if use.node.op not in SELECTIONS or use.index != 0:
            return False
        answer = _answer(RULES[use.node.op].forward, use.node, {0: affine}, self.facts)
        if isinstance(answer, Refusal):
            return False
        return all(a.is_identity for step in answer for a in step.passes.values())

    def follow(self, node: Node, index: int, affine: Affine, search: _Search) -> Refusal | None:
        value = node.inputs[index]
        assert value is not None  # noqa: S101 - rules name inputs that are there
        if self.facts.constants.get(value) is not None:
            return self._absorb_in_constant(node, index, affine, search)
        if affine.is_identity:
            return None
        if value.scope is not node.scope:
            return Refusal(Reason.CAPTURED, f'"{value.name}" comes from outside the subgraph')
        known = search.affines.get(value)
        if known is not None and not known.same_as(affine):
            # selections leave alone what they do not select: _keeps_to_demand has the last word
            merged = known.merged(affine)
            if merged is None:
                return _two_affines(value)
            search.affines[value] = merged
            search.merged.add(value)
        search.affines.setdefault(value, affine)
        search.covered.setdefault(value, set()).add(Use(node, index))
        producer = value.producer
        if producer is None:
            return self._no_producer(value, node, index)
        return self.enqueue(producer, search, -producer.position)

    def _no_producer(self, value: Value, node: Node, index: int) -> Refusal:
        if self.facts.constants.is_overridable(value):
            return self.facts.not_constant(node, index, "constant")
        kind = "an input of the graph" if value.is_input else "not computed by any node"
        return Refusal(Reason.GRAPH_INPUT, f'"{value.name}" is {kind}')

    def _absorb_in_constant(
        self, node: Node, index: int, affine: Affine, search: _Search
    ) -> Refusal | None:
        if affine.is_identity:
            return None
        constant = self.facts.constant(node.inputs[index])
        if constant is None or constant.any_shape:
            return self.facts.not_constant(node, index, "constant")
        new = _applied(affine, constant)
        dtype = FLOATS[constant.elem_type]
        if new is None or new.shape != constant.shape:
            return Refusal(
                Reason.NOT_PER_CHANNEL, f'a constant of "{node.name}" would have to grow'
            )
        data = dense(new, dtype)
        if data.out_of_range() is not None:
            return Refusal(Reason.OVERFLOW, f'a constant of "{node.name}" would leave its range')
        search.edits.append(SetConstant(node, index, data, constant.elem_type, "constant"))
        search.steps.append((node, Step(absorbs=True)))
        return None


def _answer(ask: Ask | None, node: Node, affines: Mapping[int, Affine], facts: Facts) -> Answer:
    """What a rule answers; it reads axes and lengths as the specification promises them."""
    if ask is None:
        return Refusal(Reason.NONLINEAR, f'{node.op} "{node.name}" does not let it pass')
    facts.effort -= 1 + sum(affine.scale.size for affine in affines.values()) // _SMALL
    if facts.effort < 0:
        return Refusal(Reason.NO_GAIN, "the search for folds would take too long in this model")
    try:
        return ask(node, affines, facts)
    except (ValueError, IndexError, OverflowError, MemoryError):
        log.debug("%s cannot be followed", node.name, exc_info=True)
        return Refusal(
            Reason.UNKNOWN_SHAPE, f'the axes or lengths at "{node.name}" are not understood'
        )


def _applied(affine: Affine, constant: Constant) -> Float64 | None:
    """The affine of a constant, or None where shapes that the model declares contradict it."""
    try:
        return affine.apply(constant.float64)
    except ValueError:
        return None


def _two_affines(value: Value) -> Refusal:
    return Refusal(Reason.FAN_OUT, f'"{value.name}" would have to take on two different affines')


class _Forward(_Walk):
    direction = "forward"

    def ask(self, node: Node, search: _Search) -> Answer:
        pending = {
            index: search.affines[value]
            for index, value in enumerate(node.inputs)
            if value is not None and value in search.affines
        }
        return self.rule(node, pending)

    def follow(self, node: Node, index: int, affine: Affine, search: _Search) -> Refusal | None:
        value = node.output(index)
        if value is None or affine.is_identity:
            return None
        return self.spread(value, affine, search)

    def spread(self, value: Value, affine: Affine, search: _Search) -> Refusal | None:
        """Every consumer of ``value`` must take what is pending on it."""
        if value.is_output:
            return Refusal(Reason.GRAPH_OUTPUT, f'"{value.name}" is an output of the graph')
        if value.is_protected:
            return Refusal(Reason.GRAPH_OUTPUT, f'"{value.name}" is named outside the nodes')
        search.affines[value] = affine
        for use in value.uses:
            if use.node.scope is not value.scope:
                return Refusal(
                    Reason.CAPTURED, f'"{value.name}" is used inside the subgraph of another node'
                )
            if use.node.op in SHAPE_ONLY:
                continue
            refusal = self.enqueue(use.node, search, use.node.position)
            if refusal is not None:
                return refusal
        return None


def plan_backward(site: Site, facts: Facts) -> Plan | Refusal:
    """The plan that folds ``site`` into what produces its input."""
    walk = _Backward(site, facts)
    search = _Search()
    node, index = site.members[0]
    refusal = walk.follow(node, index, site.affine, search)
    return refusal if refusal is not None else walk.run(search)


def plan_forward(site: Site, facts: Facts) -> Plan | Refusal:
    """The plan that folds ``site`` into what consumes its output."""
    walk = _Forward(site, facts)
    search = _Search()
    refusal = walk.spread(site.output, site.affine, search)
    if refusal is not None:
        return refusal
    plan = walk.run(search)
    if isinstance(plan, Plan):
        # what was the output of the site goes with it
        plan.changed = [value for value in plan.changed if value is not site.output]
    return plan
