"""The verdict on one tensor inside of two models: the rule for outputs, and one for channels.

A fault in one channel of many is small beside the largest element of the tensor and beside the root
mean square of all of it. So every channel is judged by itself too, by root mean squares::

    rms(c - r)  <=  CHANNEL * max(rms(n - r), what is usual for a channel of its size)

where "usual" is the median of ``rms(n - r) / rms(r)`` over the channels: a few draws can miss the
noise of one channel, not that of most. The rule asks for channels of some length only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bnfold.check.feeds.draws import is_float
from bnfold.check.models.model import Array
from bnfold.check.runtimes.sessions import Value
from bnfold.check.verdict.compare import Finding, Truth
from bnfold.check.verdict.noise import eps_of

__all__ = ["CHANNEL", "Joint", "Judgement", "apart"]

CHANNEL = 8.0
# Fewer numbers than these say little about the size of the noise that they have.
_LEAST_LENGTH = 16
# Nothing is expected of a channel that is less than this beside the others.
_NEGLIGIBLE = 1e-3
_TINY = 1e-300


@dataclass(frozen=True)
class Judgement:
    """How far the candidate is from the reference at one tensor.

    Attributes:
        finding: The numbers, as for an output.
        used: Which part of what is allowed the difference takes; more than 1 is beyond noise.
    """

    finding: Finding
    used: float


class Joint:
    """One tensor of the reference with what noise does to it.

    Args:
        value: The tensor.
    """

    def __init__(self, value: Value) -> None:
        self._truth = Truth(value)
        self._value = value
        self._axes = _channel_axes(value)
        self._scales = [_along(value, axis) for axis in self._axes]
        self._noise = [np.zeros_like(scale) for scale in self._scales]

    def add_neighbour(self, value: Value) -> None:
        """Learn from the same tensor of a neighbour of the reference."""
        self._truth.add_neighbour(value)
        if self._axes and np.shape(value) == self._value.shape:
            apart = _distance(self._value, value)
            for index, axis in enumerate(self._axes):
                self._noise[index] = np.maximum(self._noise[index], _along(apart, axis))

    def judge(self, value: Value) -> Judgement:
        """Compare the candidate's tensor."""
        finding = self._truth.compare(value)
        used = finding.difference / max(finding.allowed, _TINY)
        used = max(used, 1.01) if not finding.equivalent else min(used, 1.0)
        if not finding.equivalent or not self._axes or finding.difference == 0:
            return Judgement(finding, math.inf if math.isnan(used) else used)
        times, axis, channel = self._worst_channel(value)
        if times > used * CHANNEL:
            used = times / CHANNEL
            finding = Finding(
                equivalent=used <= 1.0,
                difference=finding.difference,
                noise=finding.noise,
                max_abs=finding.max_abs,
                allowed=finding.difference / used,
                worst_index=finding.worst_index,
                detail=f"channel {channel} along axis {axis} is {times:.3g} times its noise away, "
                f"and {CHANNEL:g} times would have passed"
                if used > 1.0
                else finding.detail,
            )
        return Judgement(finding, used)

    def _worst_channel(self, value: Value) -> tuple[float, int, int]:
        """Return by how many times the worst channel exceeds its noise, its axis and number."""
        apart = _distance(self._value, value)
        eps = eps_of(self._value.dtype)
        worst = (0.0, 0, 0)
        for axis, scale, noise in zip(self._axes, self._scales, self._noise, strict=True):
            live = scale > 0
            usual = max(float(np.median(noise[live] / scale[live])) if live.any() else 0.0, eps)
            allowed = np.maximum(noise, usual * scale)
            allowed = np.maximum(allowed, _NEGLIGIBLE * usual * float(scale.max(initial=0.0)))
            distance = _along(apart, axis)
            with np.errstate(all="ignore"):
                times = np.where(distance == 0, 0.0, distance / np.maximum(allowed, _TINY))
            channel = int(times.argmax())
            worst = max(worst, (float(times[channel]), axis, channel))
        return worst


def apart(ours: Value, theirs: Value) -> float:
    """Return the root mean square of a difference; infinity for what is not alike."""
    arrays = isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray)
    if not arrays or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return math.inf
    if not is_float(ours.dtype) or not ours.size:
        return math.inf
    return math.sqrt(float(np.square(_distance(ours, theirs)).mean()))


def _channel_axes(value: Value) -> tuple[int, ...]:
    """Return the axes that may be channels: the second, and the last of a short shape."""
    if not isinstance(value, np.ndarray) or not is_float(value.dtype) or value.ndim < 2:
        return ()
    axes = {1} if value.ndim > 3 else {1, value.ndim - 1}
    return tuple(
        axis
        for axis in sorted(axes)
        if value.shape[axis] > 1 and value.size // value.shape[axis] >= _LEAST_LENGTH
    )


def _distance(ours: Array, theirs: Array) -> Array:
    with np.errstate(all="ignore"):
        apart = theirs.astype(np.float64) - ours.astype(np.float64)
    return np.where(np.isfinite(apart), apart, 0.0)


def _along(value: Array, axis: int) -> Array:
    """Return the root mean square of each slice along an axis."""
    others = tuple(each for each in range(value.ndim) if each != axis)
    with np.errstate(all="ignore"):
        squares = np.square(value.astype(np.float64))
    return np.asarray(np.sqrt(np.where(np.isfinite(squares), squares, 0.0).mean(axis=others)))
