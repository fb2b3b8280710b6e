"""The verdict on one output for one feed.

With r the reference, c the candidate and n any of the reference's neighbours
(:mod:`bnfold.check.verdict.noise`), all upcast to float64::

    difference  D = max|c - r| / scale          scale = max|r|
    noise       N = max(max|n - r| / scale, eps)
    equivalent  D <= FACTOR * N, and rms(c - r) <= SYSTEMATIC * max(rms(n - r), eps * rms(r))

``eps`` is that of the output's type: results that differ by a few roundings at the end are equal
whatever the noise. The second condition is asked of outputs with many elements that differ. The
largest of many differences varies by chance, their root mean square hardly does: for correct
folds it is 0.9 to 2.5 times that of noise, so that a small error everywhere (an epsilon dropped in
one layer of forty) shows before it shows in the maximum.

The scale is taken over the elements that noise moves at all: a mask of -3e38 in a corner of the
output must not make everything else look small. Where nothing moves, it is taken over all of them,
and where all of them are zero it is 1.

NaN and infinity have to stand in the same places, except where noise alone changes them, and in
``FACTOR`` times as many others as one neighbour changes. Outputs that are not floats have to be
equal; where noise alone flips some of their elements (the index of a maximum between two nearly
equal values), as many may flip as ``FACTOR`` times the flips of the worst neighbour, and where that
is most of them, each by at most ``FACTOR`` times what noise does. Sequences, maps and optionals are
compared tensor by tensor.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from bnfold.check.feeds.draws import is_float
from bnfold.check.models.model import Array
from bnfold.check.runtimes.sessions import Value
from bnfold.check.verdict.noise import eps_of
from bnfold.report import OutputComparison

__all__ = ["FACTOR", "HOPELESS", "SYSTEMATIC", "Finding", "Tolerance", "Truth"]

FACTOR = 8.0
SYSTEMATIC = 4.0
# A root mean square means something from this many elements on, this many of them different.
_MANY = 256
_MANY_DIFFERENT = 64
_TINY = 1e-300
# No noise that is still to be found excuses this many times what is allowed.
HOPELESS = 1000.0


@dataclass(frozen=True)
class Tolerance:
    """A caller's own rule: |c - r| <= atol + rtol * |r| for every element."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Finding:
    """What the comparison of one output on one feed says; fields as in ``OutputComparison``.

    Attributes:
        share: The fraction of elements that differ by more than is allowed; of the size where the
            shapes differ.
    """

    equivalent: bool
    difference: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    allowed: float = 0.0
    worst_index: tuple[int, ...] | None = None
    detail: str | None = None
    share: float = 1.0

    @property
    def severity(self) -> tuple[bool, float]:
        """Sorts findings: failures last, then by how much of what is allowed they use."""
        used = self.difference / max(self.allowed, _TINY)
        return not self.equivalent, math.inf if math.isnan(used) else used

    def doubtful(self, hopeless: float) -> bool:
        """True for a failure that better knowledge of the noise could turn into a pass.

        Args:
            hopeless: Differences of more than this many times what is allowed are failures.
        """
        beyond = math.isfinite(self.difference) and self.difference > hopeless * self.allowed > 0
        return not self.equivalent and not beyond

    def named(self, name: str) -> OutputComparison:
        """Return the report's form."""
        exact = self.noise == 0 or not math.isfinite(self.difference)
        return OutputComparison(
            name=name,
            equivalent=self.equivalent,
            difference=self.difference,
            noise=self.noise,
            ratio=None if exact else self.difference / self.noise,
            max_abs=self.max_abs,
            allowed=self.allowed,
            worst_index=self.worst_index,
            detail=self.detail,
        )


def failure(detail: str) -> Finding:
    """Return the finding for an output of which there is nothing to measure."""
    return Finding(False, difference=math.inf, max_abs=math.inf, detail=detail)


def flatten(value: Value) -> tuple[str, list[Array]]:
    """Take a value apart.

    Returns:
        Its structure as text, with the types of its tensors, and the tensors in order. Lists of
        maps with the same keys (the probabilities of a classifier) become one tensor of values.
    """
    if value is None:
        return "none", []
    if isinstance(value, Mapping):
        keys = sorted(value, key=repr)
        parts = [flatten(value[key]) for key in keys]
        text = ", ".join(f"{key!r}: {part[0]}" for key, part in zip(keys, parts, strict=True))
        return f"map({text})", [leaf for part in parts for leaf in part[1]]
    if isinstance(value, list | tuple):
        parts = [flatten(item) for item in value]
        structures = [part[0] for part in parts]
        leaves = [leaf for part in parts for leaf in part[1]]
        same = len(set(structures)) == 1 and len({leaf.shape for leaf in leaves}) == 1
        if same and all(len(part[1]) == len(parts[0][1]) for part in parts):
            width = len(parts[0][1])
            stacked = [np.stack(leaves[start::width]) for start in range(width)]
            return f"{len(parts)} x {structures[0]}", stacked
        return f"sequence({', '.join(structures)})", leaves
    array = np.asarray(value)
    kind = "string" if array.dtype.kind in "OUS" else str(array.dtype)
    return kind, [array]


def fits_range(values: Sequence[Value]) -> bool:
    """True if all floats of all outputs are finite and far from the largest of their type."""
    for _, leaves in map(flatten, values):
        for leaf in leaves:
            if is_float(leaf.dtype):
                finfo: Any = ml_dtypes.finfo
                limit = float(finfo(leaf.dtype).max) / 16
                if not np.all(np.abs(leaf.astype(np.float64)) <= limit):
                    return False
    return True


class Truth:
    """One output of the reference on one feed, with what noise does to it.

    Args:
        value: The output.
    """

    def __init__(self, value: Value) -> None:
        self._structure, leaves = flatten(value)
        self._leaves = [_leaf(array) for array in leaves]
        self._unstable_structure = False

    def add_neighbour(self, value: Value) -> None:
        """Learn from the same output of a neighbour of the reference."""
        structure, leaves = flatten(value)
        if structure != self._structure or len(leaves) != len(self._leaves):
            self._unstable_structure = True
            return
        for leaf, array in zip(self._leaves, leaves, strict=True):
            leaf.add_neighbour(array)

    def rebased(self, value: Value) -> Truth:
        """Return another value of the same output as the truth, with the noise of this one."""
        other = Truth(value)
        if other._structure == self._structure and len(other._leaves) == len(self._leaves):
            other._unstable_structure = self._unstable_structure
            for leaf, known in zip(other._leaves, self._leaves, strict=True):
                leaf.take_noise(known)
        return other

    def compare(self, value: Value, tolerance: Tolerance | None = None) -> Finding:
        """Compare the candidate's output; without a tolerance by the noise rule."""
        structure, leaves = flatten(value)
        if structure != self._structure or len(leaves) != len(self._leaves):
            if self._unstable_structure:
                return Finding(True, detail="unstable: noise alone changes its structure")
            return failure(f"it is {structure}, but {self._structure} in the reference")
        findings = [
            leaf.compare(array, tolerance) for leaf, array in zip(self._leaves, leaves, strict=True)
        ]
        return max(findings, key=lambda finding: finding.severity, default=Finding(True))


def _leaf(array: Array) -> _ExactLeaf | _FloatLeaf:
    if eps_of(array.dtype):
        return _FloatLeaf(array)
    return _ExactLeaf(array)


class _ExactLeaf:
    """Integers, booleans or strings."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.flips = 0
        self.furthest = 0.0
        self.reshaped = False

    def add_neighbour(self, other: Array) -> None:
        if other.shape != self.array.shape:
            self.reshaped = True
        else:
            self.flips = max(self.flips, int(np.count_nonzero(other != self.array)))
            self.furthest = max(self.furthest, float(self._distance(other).max(initial=0.0)))

    def take_noise(self, known: _ExactLeaf | _FloatLeaf) -> None:
        if isinstance(known, _ExactLeaf):
            self.flips, self.furthest = known.flips, known.furthest
            self.reshaped = known.reshaped

    def _distance(self, other: Array) -> Array:
        if self.array.dtype.kind not in "iu":
            return np.asarray(other != self.array).astype(np.float64)
        return np.abs(other.astype(np.float64) - self.array.astype(np.float64))

    def compare(self, other: Array, tolerance: Tolerance | None) -> Finding:
        if other.shape != self.array.shape:
            return _wrong_shape(self.array, other, unstable=self.reshaped)
        unequal = np.asarray(other != self.array)
        count = int(np.count_nonzero(unequal))
        if not count:
            detail = "unstable: noise alone flips elements" if self.flips else None
            return Finding(True, detail=detail)
        detail = f"{count} of {unequal.size} elements differ"
        distance, magnitude = self._distance(other), np.ones(unequal.shape)
        if self.array.dtype.kind in "iu":
            magnitude = np.abs(self.array.astype(np.float64))
        limit = np.zeros(unequal.shape)
        if tolerance is not None and self.array.dtype.kind in "iu":
            limit += tolerance.atol + tolerance.rtol * magnitude
        finding = _within(distance, limit, float(magnitude.max()) or 1.0, 0.0, detail)
        allowed = int(FACTOR * self.flips)
        if tolerance is None and allowed:
            unstable = f"{detail}; unstable: noise alone flips up to {self.flips} of them"
            passes = count <= allowed
            if 2 * allowed > unequal.size:
                # The number says little then: rounded numbers may be near, but not anywhere.
                passes &= float(distance.max()) <= FACTOR * self.furthest
            return dataclasses.replace(finding, equivalent=passes, detail=unstable)
        return dataclasses.replace(finding, share=count / unequal.size)


class _FloatLeaf:
    """Floating-point numbers."""

    def __init__(self, array: Array) -> None:
        self.dtype = array.dtype
        self.values = _upcast(array)
        self.finite = np.isfinite(self.values)
        self.noise = 0.0
        self.rms = 0.0
        self.moved = np.zeros(array.shape, bool)
        # Where noise alone changes NaN or infinity, and in how many elements at a time.
        self.unstable = np.zeros(array.shape, bool)
        self.breaks = 0
        self.reshaped = False

    def add_neighbour(self, other: Array) -> None:
        if other.shape != self.values.shape:
            self.reshaped = True
            return
        values = _upcast(other)
        changed = ~_same_kind(self.values, values)
        self.unstable |= changed
        self.breaks = max(self.breaks, int(np.count_nonzero(changed)))
        distance = _distance(self.values, values, self.finite & np.isfinite(values))
        self.moved |= distance > 0
        self.noise = max(self.noise, float(distance.max(initial=0.0)))
        self.rms = max(self.rms, _rms(distance))

    def take_noise(self, known: _ExactLeaf | _FloatLeaf) -> None:
        if isinstance(known, _FloatLeaf):
            self.noise, self.rms, self.reshaped = known.noise, known.rms, known.reshaped
            if known.values.shape == self.values.shape:
                self.moved, self.unstable = known.moved, known.unstable
                self.breaks = known.breaks

    def compare(self, other: Array, tolerance: Tolerance | None) -> Finding:
        if other.shape != self.values.shape:
            return _wrong_shape(self.values, other, unstable=self.reshaped)
        values = _upcast(other)
        both = self.finite & np.isfinite(values)
        distance = _distance(self.values, values, both)
        magnitude = np.where(self.finite, np.abs(self.values), 0.0)
        live = magnitude[self.moved] if self.moved.any() else magnitude
        scale = float(live.max(initial=0.0)) or 1.0
        eps = eps_of(self.dtype)
        noise = max(self.noise / scale, eps)
        other_kind = ~_same_kind(self.values, values) & ~self.unstable
        count = int(np.count_nonzero(other_kind))
        if count > FACTOR * self.breaks:
            where = tuple(int(i) for i in np.argwhere(other_kind)[0])
            finding = failure(f"NaN or infinity in other places: {count} of {values.size} elements")
            return dataclasses.replace(finding, noise=noise, worst_index=where)
        if tolerance is not None:
            limit = tolerance.atol + tolerance.rtol * magnitude
            return _within(distance, limit, scale, noise, self._remark(noise))
        # A few roundings of an element's own are never an error, however small the scale.
        limit = FACTOR * np.maximum(noise * scale, eps * magnitude)
        finding = _within(distance, limit, scale, noise, self._remark(noise))
        times = _rms(distance) / max(self.rms, eps * _rms(live), _TINY)
        many = distance.size >= _MANY and np.count_nonzero(distance) >= _MANY_DIFFERENT
        if not finding.equivalent or not many or times <= SYSTEMATIC:
            return finding
        return dataclasses.replace(
            finding,
            equivalent=False,
            allowed=min(finding.allowed, finding.difference * SYSTEMATIC / times),
            detail=f"the error is systematic: its root mean square is {times:.3g} times that of "
            f"noise, and {SYSTEMATIC:g} times would have passed",
        )

    def _remark(self, noise: float) -> str | None:
        if self.values.size and not self.finite.any():
            return "it has no finite element"
        if self.unstable.any():
            return "unstable: noise alone makes NaN or infinity"
        if noise * FACTOR >= 1.0:
            return "unstable: noise alone changes it as much as any error would"
        return None


def _upcast(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _same_kind(ours: Array, theirs: Array) -> Array:
    """True where both are finite, both NaN, or the same infinity."""
    nan = np.isnan(ours) & np.isnan(theirs)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    return np.asarray(nan | finite | (ours == theirs))


def _distance(ours: Array, theirs: Array, where: Array) -> Array:
    zero = np.zeros((), ours.dtype)
    return np.asarray(np.abs(np.where(where, theirs, zero) - np.where(where, ours, zero)))


def _rms(distance: Array) -> float:
    return math.sqrt(float(np.mean(np.square(distance)))) if distance.size else 0.0


def _within(
    distance: Array, limit: Array, scale: float, noise: float, detail: str | None = None
) -> Finding:
    """Judge every element by its own limit; the worst of them is the one that is shown."""
    if not distance.size:
        return Finding(True, detail=detail)
    with np.errstate(all="ignore"):
        used = np.where(distance == 0, 0.0, distance / limit)
    worst = int((used if used.any() else limit).argmax())
    largest, passing = float(distance.flat[worst]), float(limit.flat[worst])
    return Finding(
        equivalent=bool(used.flat[worst] <= 1.0),
        difference=largest / scale,
        noise=noise,
        max_abs=largest,
        allowed=passing / scale,
        worst_index=tuple(int(i) for i in np.unravel_index(worst, distance.shape)),
        detail=detail,
        share=float(np.mean(used > 1.0)),
    )


def _wrong_shape(ours: Array, theirs: Array, *, unstable: bool) -> Finding:
    if unstable:
        return Finding(True, detail="unstable: noise alone changes its shape")
    finding = failure(f"its shape is {theirs.shape}, but {ours.shape} in the reference")
    share = 1.0 - min(ours.size, theirs.size) / max(ours.size, theirs.size, 1)
    return dataclasses.replace(finding, share=share if ours.ndim == theirs.ndim else 1.0)
