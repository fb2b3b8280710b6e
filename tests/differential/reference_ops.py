"""Operators that the reference evaluator of ONNX lacks, or has wrong, in plain NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as ReferenceConvTranspose

from tests.support import GlobalMaxPool

__all__ = ["REFERENCE_OPS"]

SAME = ("SAME_UPPER", "SAME_LOWER")


class BatchNormalization(OpRun):
    """At inference, or with the statistics of the batch; that of the evaluator takes its opset."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self, x, scale, bias, mean, var, epsilon=None, momentum=None, training_mode=None, **_
    ) -> tuple[np.ndarray, ...]:
        shape = (-1, *(1,) * (x.ndim - 2))
        epsilon = 1e-5 if epsilon is None else epsilon
        used = mean, var
        if training_mode:
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            used = x.mean(axis=axes), x.var(axis=axes)
        vectors = (vector.reshape(shape) for vector in (*used, scale, bias))
        center, spread, gamma, beta = vectors
        y = (x - center) / np.sqrt(spread + epsilon) * gamma + beta
        if not training_mode:
            return (y,)
        kept = 0.9 if momentum is None else momentum
        pairs = zip((mean, var), used, strict=True)
        return (y, *(old * kept + new * (1 - kept) for old, new in pairs))


class ConvTranspose(ReferenceConvTranspose):
    """With groups."""

    op_domain = ""

    def _run(self, x, w, b=None, group=None, **attributes) -> tuple[np.ndarray]:  # type: ignore[no-untyped-def]
        groups = group or 1
        biases = [None] * groups if b is None else np.split(b, groups)
        parts = [
            super(ConvTranspose, self)._run(*operands, group=1, **attributes)[0]
            for operands in zip(np.split(x, groups, 1), np.split(w, groups), biases, strict=True)
        ]
        return (np.concatenate(parts, axis=1),)


class Pad(OpRun):
    """With negative padding."""

    op_domain = ""

    def _run(self, x, *inputs, pads=None, mode=None, value=None) -> tuple[np.ndarray]:  # type: ignore[no-untyped-def]
        pads, fill, axes = (*inputs, None, None)[:3] if inputs else (pads, value, None)
        axes = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
        widths = [(0, 0)] * x.ndim
        for place, axis in enumerate(axes):
            widths[axis] = (int(pads[place]), int(pads[place + len(pads) // 2]))
        cut = [slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, widths, strict=True)]
        mode = mode or "constant"
        more = {"constant_values": 0 if fill is None else fill} if mode == "constant" else {}
        grown = [(max(a, 0), max(b, 0)) for a, b in widths]
        return (np.pad(x[tuple(cut)], grown, mode, **more),)


class DequantizeLinear(OpRun):
    """Of every opset, with one scale, one for each slice, or one for each block."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self, x, scale, zero=None, axis=None, block_size=None, **_
    ) -> tuple[np.ndarray]:
        axis = (1 if axis is None else axis) % max(x.ndim, 1)
        zero = np.zeros_like(scale) if zero is None else zero
        spread = [
            _spread(np.asarray(each).astype(np.float64), x.shape, axis, block_size or 0)
            for each in (scale, zero)
        ]
        return ((x.astype(np.float64) - spread[1]) * spread[0],)


def _spread(values: np.ndarray, shape: Sequence[int], axis: int, block: int) -> np.ndarray:
    if values.size == 1:
        return values.reshape(())
    if block:
        return np.repeat(values, block, axis=axis)[(slice(None),) * axis + (slice(shape[axis]),)]
    return values.reshape([-1 if place == axis else 1 for place in range(len(shape))])


class _Pool(OpRun):
    """Window by window, as the specification says it."""

    op_domain = ""

    def _windows(self, x: np.ndarray, **given: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Taps of each window along a last axis: values, if they are data, if they are padding."""
        rank = x.ndim - 2
        kernel = given["kernel_shape"]
        strides = given.get("strides") or [1] * rank
        dilations = given.get("dilations") or [1] * rank
        pads = list(given.get("pads") or [0] * 2 * rank)
        mode, ceil = given.get("auto_pad") or "NOTSET", given.get("ceil_mode")
        places, counts = [], []
        for axis, length in enumerate(x.shape[2:]):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            begin, end = (0, 0) if mode == "VALID" else (pads[axis], pads[rank + axis])
            if mode in SAME:
                whole = max((-(-length // strides[axis]) - 1) * strides[axis] + reach - length, 0)
                begin = whole // 2 if mode == "SAME_UPPER" else whole - whole // 2
                end = whole - begin
            room = length + begin + end - reach
            count = (-(-room // strides[axis]) if ceil else room // strides[axis]) + 1
            if ceil and (count - 1) * strides[axis] >= length + begin:
                count -= 1
            starts = np.arange(count) * strides[axis] - begin
            taps = starts[:, None] + np.arange(kernel[axis]) * dilations[axis]
            places.append((taps, (taps >= 0) & (taps < length), taps < length + end))
            counts.append(count)
        shape = (*counts, math.prod(kernel))
        values = np.zeros((*x.shape[:2], *shape))
        inside, padded = np.zeros(shape, bool), np.zeros(shape, bool)
        for number, tap in enumerate(itertools.product(*(range(k) for k in kernel))):
            chosen = [places[axis][0][:, k] for axis, k in enumerate(tap)]
            clipped = [np.clip(c, 0, n - 1) for c, n in zip(chosen, x.shape[2:], strict=True)]
            values[..., number] = x[(slice(None), slice(None), *np.ix_(*clipped))]
            inside[..., number] = _all(places[axis][1][:, k] for axis, k in enumerate(tap))
            padded[..., number] = _all(places[axis][2][:, k] for axis, k in enumerate(tap))
        return values, inside, padded


def _all(flags: Iterable[np.ndarray]) -> np.ndarray:
    """Where the flags of all axes are set."""
    result = np.ones((), bool)
    for flag in flags:
        result = result[..., None] & flag
    return result


class MaxPool(_Pool):
    """The maximum of what a window sees of the data."""

    def _run(self, x, **given) -> tuple[np.ndarray]:  # type: ignore[no-untyped-def]
        values, inside, _ = self._windows(x, **given)
        return (np.where(inside, values, -np.inf).max(axis=-1),)


class AveragePool(_Pool):
    """The mean of what a window sees, with padding counted or not."""

    def _run(self, x, count_include_pad=None, **given) -> tuple[np.ndarray]:  # type: ignore[no-untyped-def]
        values, inside, padded = self._windows(x, **given)
        counted = padded if count_include_pad else inside
        return (np.where(inside, values, 0).sum(axis=-1) / counted.sum(axis=-1),)


REFERENCE_OPS = [
    BatchNormalization, GlobalMaxPool, ConvTranspose, Pad, DequantizeLinear, MaxPool, AveragePool,
]  # fmt: skip
