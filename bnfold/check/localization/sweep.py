"""Both models side by side, node by node: what :mod:`.localize` is about."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import Hint
from bnfold.check.localization.joints import Joint, Judgement, apart
from bnfold.check.localization.stepwise import Step, Stepper, shaken
from bnfold.check.runtimes.sessions import RunError, Value
from bnfold.check.verdict.compare import failure
from bnfold.check.verdict.noise import move_inputs

__all__ = ["Row", "Sweep"]

# A difference that is on its way is followed until it is this part of what noise allows: what a
# correct rewrite leaves behind stays well below.
_GONE = 0.5
# How many nodes behind a tensor of the reference its name is looked for in the candidate.
_BEHIND = 4


@dataclass(frozen=True)
class Row:
    """What was found at one tensor.

    Attributes:
        name: The tensor.
        judgement: How far apart the models are.
        beyond: True if they part here or have parted before.
        origins: The tensors at which the difference began.
        stands_for: The tensor of the reference that the candidate's was compared with, where that
            is another one: a tool has given its name to the value.
    """

    name: str
    judgement: Judgement
    beyond: bool
    origins: frozenset[str]
    stands_for: str | None = None

    @property
    def used(self) -> float:
        """Which part of what is allowed the difference takes."""
        return self.judgement.used


class Sweep:
    """One pass over both models.

    Args:
        reference: The original.
        candidate: What should compute the same.
        feed: The inputs.
        hints: Advice by input name.
        seed: Where the random numbers start.
        draws: Number of neighbours.
        pinned: True to go on with the reference's value wherever the models agree; False to let
            each go on with its own, so that errors add up.

    Attributes:
        rows: The tensors that both models have, in the order of the reference.
    """

    def __init__(
        self,
        reference: Stepper,
        candidate: Stepper,
        feed: Feed,
        hints: Mapping[str, Hint],
        *,
        seed: int,
        draws: int,
        pinned: bool,
    ) -> None:
        self.rows: list[Row] = []
        self._pinned = pinned
        self._order = _shared(reference, candidate)
        self._reference = _Reference(reference, feed, hints, seed, draws, self._order)
        self._candidate = _Candidate(candidate, feed, self._order, self._reference)
        self._outputs = reference.outputs

    @property
    def effective(self) -> frozenset[str]:
        """The origins whose difference reaches an output."""
        reached = (row.origins for row in self.rows if row.beyond and row.name in self._outputs)
        return frozenset().union(*reached)

    @property
    def first(self) -> Row | None:
        """The first origin whose difference reaches an output, or None."""
        effective = self.effective
        return next((row for row in self.rows if row.name in effective), None)

    def go(self, tell: Callable[[str], None]) -> None:
        """Run the models.

        Raises:
            RunError: The reference does not run.
        """
        for index, name in enumerate(self._order):
            tell(f"tensor {index + 1} of {len(self._order)}")
            self._reference.reach(name)
            joint = self._reference.joint(name)
            try:
                self._candidate.reach(name)
            except RunError as error:
                # What the candidate cannot compute from values as good as the reference's own is
                # where they part; nothing behind it can be told.
                judgement = Judgement(failure(f"the candidate does not run: {error}"), math.inf)
                self.rows.append(Row(name, judgement, True, self._candidate.origins_of(name)))
                self.rows += [
                    Row(output, judgement, True, self.rows[-1].origins)
                    for output in self._outputs
                    if output in self._order[index + 1 :]
                ]
                return
            self._judge(name, joint)

    def _judge(self, name: str, joint: Joint) -> None:
        origins = self._candidate.origins.get(name, frozenset())
        value = self._candidate.world[name]
        judgement = joint.judge(value)
        beyond = judgement.used > (_GONE if origins else 1.0)
        meant = name
        if beyond and not origins:
            meant = self._reference.nearest(name, value)
            if meant != name:
                judgement = self._reference.joint(meant).judge(value)
                beyond = judgement.used > 1.0
        if beyond:
            origins = origins or frozenset({name})
        else:
            origins = frozenset()
            if self._pinned:
                self._candidate.pin(name, meant)
                self._reference.pin(meant)
        self._candidate.origins[name] = origins
        self._reference.used(name)
        self._candidate.used(name)
        self.rows.append(Row(name, judgement, beyond, origins, None if meant == name else meant))


def _shared(reference: Stepper, candidate: Stepper) -> list[str]:
    """Return the names of tensors that both models have and at least one of them computes."""
    known = candidate.producers.keys() | candidate.constants.keys()
    computed = [n for step in reference.steps for n in step.node.output if n and n in known]
    # What is a constant in the reference is known from the start, if it is in the candidate too.
    early: set[str] = set()
    for step in candidate.steps:
        if early.issuperset(step.reads):
            early.update(filter(None, step.node.output))
    fixed = [n for n in candidate.producers if n in reference.constants and n in early]
    return fixed + computed


def _pending(stepper: Stepper, name: str, done: set[int]) -> list[Step]:
    """Return the steps that have to run before a value is there, in order."""
    found: dict[int, Step] = {}
    waiting = [name]
    while waiting:
        step = stepper.producers.get(waiting.pop())
        if step is not None and step.index not in done and step.index not in found:
            found[step.index] = step
            waiting += step.reads
    return [found[index] for index in sorted(found)]


class _Side(ABC):
    """Values of one model that are still needed, in one world or several."""

    def __init__(self, stepper: Stepper, joints: Sequence[str]) -> None:
        self.stepper = stepper
        self.worlds: list[dict[str, Value]] = []
        self._done: set[int] = set()
        self._left = stepper.uses()
        self._left.update(joints)

    def reach(self, name: str) -> None:
        """Compute a value.

        Raises:
            RunError: A node does not run.
        """
        for step in _pending(self.stepper, name, self._done):
            self.run(step)
            self._done.add(step.index)
            for read in step.reads:
                self.used(read)
            for output in step.node.output:
                if not self._left[output]:
                    self._forget(output)
            self.stepper.model.skeleton.tensors.release()

    @abstractmethod
    def run(self, step: Step) -> None:
        """Run a node in every world."""

    def used(self, name: str) -> None:
        """Note that a value was read; after the last time it is forgotten."""
        self._left[name] -= 1
        if self._left[name] <= 0:
            self._forget(name)

    def _forget(self, name: str) -> None:
        for world in self.worlds:
            world.pop(name, None)


class _Reference(_Side):
    """The reference and its neighbours; the first world is the reference itself."""

    def __init__(
        self,
        stepper: Stepper,
        feed: Feed,
        hints: Mapping[str, Hint],
        seed: int,
        draws: int,
        joints: Sequence[str],
    ) -> None:
        super().__init__(stepper, joints)
        self._seed = seed
        self._rngs = [np.random.default_rng((seed, draw, 4)) for draw in range(draws)]
        moved = [move_inputs(feed, hints, rng) or feed for rng in self._rngs]
        self.worlds = [dict(feed.arrays), *(dict(each.arrays) for each in moved)]
        self._joints = frozenset(joints)

    def run(self, step: Step) -> None:
        # One neighbour in three keeps its weights, so that it shares the reference's session.
        same = [0, *(i for i in range(1, len(self.worlds)) if i % 3 == 1)]
        own = {i: self._moved(step, i) for i in range(len(self.worlds)) if i not in same}
        same = sorted(same + [i for i, weights in own.items() if not weights])
        found = dict(zip(same, self._run(step, same, {}), strict=True))
        for i, weights in own.items():
            if weights:
                try:
                    (found[i],) = self._run(step, [i], weights)
                except RunError:
                    found[i] = found[0]
        for i, outputs in found.items():
            for name, value in outputs.items():
                moves = i and not step.is_exact and name not in self._joints
                self.worlds[i][name] = self._shaken(i, value) if moves else value

    def _run(
        self, step: Step, worlds: Sequence[int], weights: Mapping[str, Value]
    ) -> list[dict[str, Value]]:
        return self.stepper.run(step, [self.worlds[i] for i in worlds], weights)

    def _moved(self, step: Step, world: int) -> dict[str, Value]:
        return dict(self.stepper.moved(step, (self._seed, world, 5)))

    def _shaken(self, world: int, value: Value) -> Value:
        return shaken(value, self._rngs[world - 1], alike=world % 2 == 0)

    def reach(self, name: str) -> None:
        """See :class:`_Side`; a constant is there once it is asked for."""
        super().reach(name)
        if name not in self.worlds[0]:
            for world in self.worlds:
                world[name] = self.stepper.value(name)

    def joint(self, name: str) -> Joint:
        """Return a tensor with its noise."""
        value, *others = (world[name] for world in self.worlds)
        joint = Joint(value)
        for other in others:
            joint.add_neighbour(other)
        return joint

    def nearest(self, name: str, value: Value) -> str:
        """Return the tensor that the candidate's is nearest to: the one of its name, or one behind.

        Tools that fuse nodes may keep the name of the first one's output for that of the last.

        Args:
            name: A tensor that both models have.
            value: What the candidate has under that name.
        """
        best, least = name, apart(self.worlds[0][name], value)
        behind = [name]
        for _ in range(_BEHIND):
            steps = [s for each in behind for s in self.stepper.readers.get(each, ())]
            behind = []
            for step in steps:
                found = [n for n in step.node.output if n and n not in self._joints]
                pending = _pending(self.stepper, found[0], self._done) if found else []
                if not found or self._joints & {n for s in pending for n in s.node.output}:
                    continue
                self.reach(found[0])
                behind += found
                for each in found:
                    if each in self.worlds[0]:
                        distance = apart(self.worlds[0][each], value)
                        best, least = (each, distance) if distance < least else (best, least)
        return best

    def pin(self, name: str) -> None:
        """Let the neighbours go on from the reference's value."""
        exact = self.stepper.producers[name].is_exact if name in self.stepper.producers else True
        for i, world in enumerate(self.worlds[1:], 1):
            value = self.worlds[0][name]
            world[name] = value if exact else self._shaken(i, value)


class _Candidate(_Side):
    """The candidate; where it agrees with the reference it has the reference's own values."""

    def __init__(
        self, stepper: Stepper, feed: Feed, joints: Sequence[str], reference: _Reference
    ) -> None:
        super().__init__(stepper, joints)
        self.worlds = [dict(feed.arrays)]
        self.origins: dict[str, frozenset[str]] = {}
        self._reference = reference
        # Values that are the reference's own.
        self._pure = set(feed.arrays)

    @property
    def world(self) -> dict[str, Value]:
        """The values."""
        return self.worlds[0]

    def reach(self, name: str) -> None:
        """See :class:`_Side`; a constant is there once it is asked for."""
        super().reach(name)
        if name not in self.world:
            self.world[name] = self.stepper.value(name)

    def run(self, step: Step) -> None:
        outputs = self._taken_over(step)
        self._pure.update(outputs or ())
        if outputs is None:
            (outputs,) = self.stepper.run(step, self.worlds)
        self.world.update(outputs)
        known = (self.origins.get(name, frozenset()) for name in (*step.reads, *step.constants))
        begun = frozenset[str]().union(*known)
        self.origins.update(dict.fromkeys(outputs, begun))

    def pin(self, name: str, meant: str) -> None:
        """Go on with the reference's value, which may have another name there."""
        self.world[name] = self._reference.worlds[0][meant]
        if name == meant:
            self._pure.add(name)

    def origins_of(self, name: str) -> frozenset[str]:
        """Return where the difference began in a value that could not be computed."""
        names = {read for step in _pending(self.stepper, name, self._done) for read in step.reads}
        known = frozenset[str]().union(*(self.origins.get(each, frozenset()) for each in names))
        return known or frozenset({name})

    def _taken_over(self, step: Step) -> dict[str, Value] | None:
        """Return the reference's outputs for a node that is the same and reads the same values."""
        theirs = self._reference.stepper
        outputs = [name for name in step.node.output if name]
        twin = theirs.producers.get(outputs[0])
        there = self._reference.worlds[0]
        if twin is None or not all(name in there for name in outputs):
            return None
        if step.reads != twin.reads or not self._pure.issuperset(step.reads):
            return None
        same = [
            (ours in step.constants and other in twin.constants) or ours == other
            for ours, other in zip(step.node.input, twin.node.input, strict=False)
        ]
        if len(step.node.input) != len(twin.node.input) or not all(same):
            return None
        if not step.is_like(twin) or not self.stepper.same_constants(step, theirs, twin):
            return None
        return {name: there[name] for name in outputs}
