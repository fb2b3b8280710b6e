"""Two models part by part in float64: a fault stands out where it is, not where noise has grown.

Tensors of the same name stand in both models, and cut them into parts. Every part of the candidate
is fed with what the *reference* computed at its beginning, and has to give what the reference has
at its end, as far as rounding the weights of that part explains::

    D = rms(c - r)        N = largest rms(n - r)
    agree if D <= LIMIT * max(N, FLOOR * eps * rms(r))

with c the candidate's value, r the reference's, n what neighbours of the reference compute there
from the same beginning (:mod:`.evaluator`), over the whole tensor and over each of its
channels, where the noise of a channel is not less than it usually is, in proportion. A deep network
that multiplies every rounding by thousands cannot hide a part that is wrong: neither noise nor
faults of one part come into another.

**Names.** A tool may give an old name to another value: the output of a convolution that now holds
the normalized value, or is scaled while the next weights undo it. Two parts then disagree, and
together they agree. So a disagreement convicts only

1. after names that stand for values of another shape, and names whose next part disagrees too,
   have been given up, so that both parts are one;
2. where it is the only one: all other parts agree, nothing can undo it; or where it remains when
   everything from the first to the last disagreement is one part.

The outputs always have names in both, so that models without another common name are compared
whole. Where an operator jumps (rounding to integers, comparisons), what follows it is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from bnfold.check.exact.evaluator import ExactRunner, Walk
from bnfold.check.exact.flow import after_jumps, between, next_shared, produced
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import Array, Model
from bnfold.check.runtimes.sessions import RunError, Value

__all__ = ["LIMIT", "LIMIT_16", "Disagreement", "PartChecker"]

# Correct folds reach 2.8, by tools that compute in float32, faults begin at 10.
LIMIT = 6.0
# Weights of 16 bits are rounded so coarsely that a fault can be 4 times that; but every tool folds
# them in float32 and rounds once, which is never more than 1.5 times what is measured here.
LIMIT_16 = 4.0
_FLOOR = 0.25
_FEW_DRAWS = 3
_MORE_DRAWS = 5
# More neighbours do not explain this many times what is allowed.
_HOPELESS = 1000.0

# Spacing at 1 of float32, float16 and bfloat16, by TensorProto type.
_SPACING = {1: 2.0**-23, 10: 2.0**-10, 16: 2.0**-7}


@dataclass
class Disagreement:
    """A part of the candidate that does not compute what the reference does.

    Attributes:
        tensor: The tensor at its end.
        node: The candidate's node that produces the tensor.
        times: How many times what rounding the weights of the part explains.
        limit: How many times would have passed.
        feed: On which feed.
    """

    tensor: str
    node: str
    times: float
    limit: float
    feed: Feed


@dataclass
class _Sizes:
    """Root mean squares of a tensor: of all of it, and of its slices along some axes."""

    whole: float
    slices: list[Array]

    @classmethod
    def of(cls, values: Array) -> _Sizes:
        """Measure an array of any shape; an empty one is 0."""
        if not values.size:
            return cls(0.0, [np.zeros(values.shape[axis]) for axis in _axes(values)])
        slices = []
        for axis in _axes(values):
            before = math.prod(values.shape[:axis])
            view = values.reshape(before, values.shape[axis], -1)
            sums = np.einsum("abc,abc->b", view, view)
            slices.append(np.sqrt(sums * (values.shape[axis] / values.size)))
        whole = slices[0] if slices else values.reshape(-1)
        return cls(math.sqrt(float(np.mean(np.square(whole)))), slices)


def _axes(values: Array) -> tuple[int, ...]:
    """The axes whose slices are looked at: channels, and where rank leaves it open the last."""
    return ((), (), (1,), (1, 2))[values.ndim] if values.ndim < 4 else (1,)


@dataclass
class _Joint:
    """One shared tensor: what noise does to it, and how far the candidate is from it."""

    scale: _Sizes
    floor: float
    noise: list[_Sizes] = field(default_factory=list)
    difference: _Sizes | None = None

    def times(self) -> float:
        """How many times the noise the candidate is away, in the worst of all slices."""
        if self.difference is None:
            return 0.0
        whole = max((noise.whole for noise in self.noise), default=0.0)
        usual = max(whole, self.floor * self.scale.whole)
        result = _quotient(self.difference.whole, usual)
        for index, scale in enumerate(self.scale.slices):
            noise = np.zeros_like(scale)
            for draw in self.noise:
                noise = np.maximum(noise, draw.slices[index])
            live = scale > 0
            relative = noise[live] / scale[live]
            typical = float(np.median(relative)) if relative.size else 0.0
            allowed = np.maximum(noise, max(typical, self.floor) * scale)
            # Nothing is expected of slices that are nothing beside the others.
            allowed = np.maximum(allowed, 1e-3 * usual)
            with np.errstate(all="ignore"):
                quotients = np.where(
                    self.difference.slices[index] == 0,
                    0.0,
                    self.difference.slices[index] / allowed,
                )
            result = max(result, float(quotients.max(initial=0.0)))
        return math.inf if math.isnan(result) else result


def _quotient(difference: float, allowed: float) -> float:
    if difference == 0:
        return 0.0
    return difference / allowed if allowed else math.inf


class PartChecker:
    """Compares two models part by part.

    Args:
        reference: The original.
        candidate: What should compute the same.
        seed: Where the random numbers of the neighbours start.
        work: How many multiplications one evaluation of a model may take.
        deadline: A ``time.monotonic()`` at which to give up.

    Attributes:
        work: Multiplications of the last comparison, estimated.
        agreeing: Tensors behind jumps where the candidate, from the same values on, had what the
            reference has in the last comparison.

    Raises:
        RunError: The evaluator does not know an operator of one of the models.
    """

    def __init__(
        self,
        reference: Model,
        candidate: Model,
        *,
        seed: int,
        work: float = math.inf,
        deadline: float = math.inf,
    ) -> None:
        def neighbour(draw: int) -> ExactRunner:
            return ExactRunner(reference, moved=(seed, draw, 3), work=work, deadline=deadline)

        self._reference = ExactRunner(reference, work=work, deadline=deadline)
        self._candidate = ExactRunner(candidate, work=work, deadline=deadline)
        self._neighbours = [neighbour(draw) for draw in range(_FEW_DRAWS + _MORE_DRAWS)]
        self._graph = candidate.graph
        shared = produced(reference.graph) & produced(candidate.graph)
        jumping = after_jumps(candidate.graph, shared) | after_jumps(reference.graph, shared)
        self._judged = frozenset(shared - jumping)
        self.agreeing: set[str] = set()
        self._odd: set[str] = set()
        self._forced = frozenset(shared)
        self._next = next_shared(candidate.graph, shared)
        self._makers = {
            name: node.name or f"{node.op_type} of '{name}'"
            for node in candidate.graph.node
            for name in node.output
        }
        self.work = 0.0
        self._eps = _coarsest_eps(reference.graph)
        self._limit = LIMIT if self._eps <= _SPACING[1] else LIMIT_16

    def disagreements(self, feed: Feed) -> list[Disagreement]:
        """Return the parts that are wrong on one feed; none if the models agree.

        Raises:
            RunError: A model does not run on the feed.
        """
        found = self._look(feed, frozenset())
        given_up = {name for name in found if any(n in found for n in self._next.get(name, ()))}
        given_up |= self._odd
        if given_up:
            found = self._look(feed, frozenset(given_up))
        if len(found) > 1:
            inner = between(self._graph, found)
            found = self._look(feed, frozenset(given_up | inner))
        return [
            Disagreement(name, self._makers.get(name, name), times, self._limit, feed)
            for name, times in found.items()
        ]

    def _look(self, feed: Feed, free: frozenset[str]) -> dict[str, float]:
        found = self._measure(feed, free, self._neighbours[:_FEW_DRAWS])
        worst = max(found.values(), default=0.0)
        if self._limit < worst < _HOPELESS * self._limit:
            found = self._measure(feed, free, self._neighbours)
        return {name: times for name, times in found.items() if times > self._limit}

    def _measure(
        self, feed: Feed, free: frozenset[str], neighbours: Sequence[ExactRunner]
    ) -> dict[str, float]:
        """Return by how many times its noise the candidate misses each shared tensor."""
        watched = self._forced - free
        joints: dict[str, _Joint] = {}
        # Values of the reference that the candidate has not reached yet.
        waiting: dict[str, Array] = {}
        walk = self._reference.walk(feed.arrays, watched)
        others = [_Follower(n.walk(feed.arrays, watched)) for n in neighbours]

        def advance() -> Iterator[str]:
            """Let the reference and its neighbours compute the next shared tensor."""
            for name, value in walk:
                known = _finite(value) if _is_float(value) else np.zeros(())
                joints[name] = joint = _Joint(_Sizes.of(known), _FLOOR * self._eps)
                for other in others:
                    moved = other.reach(name)
                    if _is_float(value) and np.shape(moved) == np.shape(value):
                        joint.noise.append(_difference(moved, value))
                    other.go_on(value)
                waiting[name] = value
                yield name

        steps = advance()
        self.work = 0.0
        self.agreeing.clear()
        self._odd.clear()
        follower = _Follower(self._candidate.walk(feed.arrays, watched))
        while follower.name is not None:
            name = follower.name
            while name not in waiting:
                if next(steps, None) is None:
                    raise RunError(f"the reference does not compute '{name}'")
            value, joint = waiting.pop(name), joints[name]
            mine = follower.value
            if name not in self._judged and _same(mine, value, self._eps):
                self.agreeing.add(name)
            if _is_float(value) and np.shape(mine) == np.shape(value) and _is_float(mine):
                joint.difference = _difference(mine, value) if name in self._judged else None
                follower.go_on(value)
            else:
                # Another type or shape is another value; that of an output shows elsewhere.
                if _is_float(value) or _is_float(mine):
                    self._odd.add(name)
                follower.go_on(None)
        self.work = self._candidate.spent * (len(neighbours) + 2)
        return {name: joint.times() for name, joint in joints.items()}


class _Follower:
    """A walk that stands at one watched tensor."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self.name: str | None = None
        self.value: Value = None
        self._to(lambda: next(walk))

    def _to(self, step: Callable[[], tuple[str, Value]]) -> None:
        try:
            self.name, self.value = step()
        except StopIteration:
            self.name = self.value = None

    def reach(self, name: str) -> Value:
        """Return the value of the tensor at which the walk stands."""
        assert self.name == name  # noqa: S101 - neighbours have the order of the reference
        return self.value

    def go_on(self, value: Value) -> None:
        """Go to the next watched tensor, with a value in place of this one."""
        self._to(lambda: self._walk.send(value))


def _is_float(value: Value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _same(mine: Value, theirs: Value, eps: float) -> bool:
    """True if two values are equal but for a rounding of each element."""
    if np.shape(mine) != np.shape(theirs):
        return False
    if not _is_float(theirs):
        return bool(np.array_equal(mine, theirs))
    return bool(np.allclose(mine, theirs, rtol=eps, atol=0.0, equal_nan=True))


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)


def _difference(mine: Array, theirs: Array) -> _Sizes:
    """Measure how far apart two arrays of one shape are; NaN where only one of them is NaN."""
    with np.errstate(all="ignore"):
        distance = mine - theirs
    sizes = _Sizes.of(distance)
    if math.isfinite(sizes.whole):
        return sizes
    # The same infinity or NaN in both is no difference.
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    return _Sizes.of(np.where(same, 0.0, distance))


def _coarsest_eps(graph: onnx.GraphProto) -> float:
    """Return the spacing at 1 of the coarsest type that weights are stored in."""
    kinds = {tensor.data_type for tensor in graph.initializer if math.prod(tensor.dims) > 1}
    return max((_SPACING[kind] for kind in kinds & _SPACING.keys()), default=_SPACING[1])
