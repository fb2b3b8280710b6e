"""Convolution and pooling for the ONNX reference evaluator, fast enough to judge whole networks.

The evaluator's own build large index arrays or loop over windows in Python. Here one strided view
of the input is taken for each tap of the kernel: what all output positions see through that tap::

    y[n, m, p] = sum over c, k of W[m, c, k] * x[n, c, stride * p + dilation * k - pad]

They compute in the type that they are given, which is float64 in :mod:`.evaluator`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from bnfold.check.models.model import Array

__all__ = ["fast_operators"]

# Gathered taps are multiplied at once up to this many bytes, beyond that tap by tap.
_MAX_COLUMNS = 2**26


class _Window:
    """Where a kernel stands over an input.

    Args:
        sizes: Spatial sizes of the input.
        kernel: Spatial sizes of the kernel.
        strides: As the attribute; None is 1.
        dilations: As the attribute; None is 1.
        pads: As the attribute, beginnings then ends; None is 0.
        auto_pad: As the attribute.
        ceil: True to count positions that the end cuts.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        pads: Sequence[int] | None,
        auto_pad: str | None,
        *,
        ceil: bool = False,
    ) -> None:
        rank = len(sizes)
        self.kernel = tuple(kernel)
        self.strides = tuple(strides or (1,) * rank)
        self.dilations = tuple(dilations or (1,) * rank)
        given = tuple(pads or (0,) * (2 * rank))
        extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        self.begins, self.ends, self.counts = [], [], []
        for axis, (size, extent, stride) in enumerate(
            zip(sizes, extents, self.strides, strict=True)
        ):
            begin, end = given[axis], given[axis + rank]
            if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
                total = max((-(-size // stride) - 1) * stride + extent - size, 0)
                begin = (total + (auto_pad == "SAME_LOWER")) // 2
                end = total - begin
            elif auto_pad == "VALID":
                begin = end = 0
            steps = size + begin + end - extent
            count = (-(-steps // stride) if ceil else steps // stride) + 1
            if ceil and (count - 1) * stride >= size + begin:
                count -= 1
            self.begins.append(begin)
            self.ends.append(end)
            self.counts.append(max(count, 0))

    def padded(self, x: Array, value: float) -> Array:
        """Return the input with everything around it that any tap sees."""
        widths = [(0, 0)] * 2
        for axis, begin in enumerate(self.begins):
            extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            needed = (self.counts[axis] - 1) * self.strides[axis] + extent
            end = max(self.ends[axis], needed - begin - x.shape[axis + 2])
            widths.append((begin, end))
        if not any(map(any, widths)):
            return x
        return np.pad(x, widths, constant_values=value)

    def taps(self, padded: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Yield the index of each tap, and the view (N, C, *counts) of what it sees."""
        for tap in itertools.product(*map(range, self.kernel)):
            view = tuple(
                slice(k * d, k * d + (count - 1) * stride + 1, stride)
                for k, d, count, stride in zip(
                    tap, self.dilations, self.counts, self.strides, strict=True
                )
            )
            yield tap, padded[(slice(None), slice(None), *view)]


def _convolve(x: Array, w: Array, window: _Window, groups: int) -> Array:
    """Convolve x (N, C, ...) with w (M, C/g, k...), without the bias; returns (N, M, ...)."""
    batch, outputs = x.shape[0], w.shape[0]
    counts, positions = tuple(window.counts), math.prod(window.counts)
    if not batch * outputs * positions:
        return np.zeros((batch, outputs, *counts), x.dtype)
    width = w.shape[1]
    padded = window.padded(x, 0.0)
    if width == 1:
        y = np.zeros((batch, groups, outputs // groups, *counts), x.dtype)
        flat = w.reshape(1, groups, outputs // groups, *w.shape[2:])
        for tap, seen in window.taps(padded):
            factor = flat[(slice(None),) * 3 + tap].reshape(1, groups, -1, *(1,) * len(counts))
            y += factor * seen[:, :, None]
        return y.reshape(batch, outputs, *counts)
    taps = math.prod(window.kernel)
    matrix = w.reshape(groups, outputs // groups, width, taps)
    y = np.empty((batch, groups, outputs // groups, positions), x.dtype)
    together = x.shape[1] * taps * positions * x.itemsize <= _MAX_COLUMNS
    for image in range(batch):
        one = padded[image : image + 1]
        if together:
            columns = np.empty((groups, width, taps, positions), x.dtype)
            for index, (_, seen) in enumerate(window.taps(one)):
                columns[:, :, index] = seen.reshape(groups, width, positions)
            kernel = matrix.reshape(groups, outputs // groups, width * taps)
            np.matmul(kernel, columns.reshape(groups, width * taps, positions), out=y[image])
        else:
            y[image] = 0.0
            for index, (_, seen) in enumerate(window.taps(one)):
                kernel = np.ascontiguousarray(matrix[..., index])
                y[image] += kernel @ seen.reshape(groups, width, positions)
    return y.reshape(batch, outputs, *counts)


def _spread(
    x: Array,
    w: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    extra: Sequence[int],
) -> Array:
    """Transposed convolution of x (N, C, ...) with w (C, M/g, k...), nothing cropped.

    Args:
        x: The input.
        w: The weight.
        strides: One for each spatial axis.
        dilations: One for each spatial axis.
        groups: Number of groups.
        extra: Positions to add at the end of each spatial axis.
    """
    batch, channels, *sizes = x.shape
    kernel, per_group = w.shape[2:], w.shape[1]
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1 + more
        for size, stride, k, dilation, more in zip(
            sizes, strides, kernel, dilations, extra, strict=True
        )
    ]
    y = np.zeros((batch, groups * per_group, *full), x.dtype)
    positions = math.prod(sizes)
    columns = x.reshape(batch, groups, channels // groups, positions)
    matrix = w.reshape(groups, channels // groups, per_group, *kernel).swapaxes(1, 2)
    for tap in itertools.product(*map(range, kernel)):
        view = tuple(
            slice(k * d, k * d + (size - 1) * stride + 1, stride)
            for k, d, size, stride in zip(tap, dilations, sizes, strides, strict=True)
        )
        part = np.ascontiguousarray(matrix[(slice(None),) * 3 + tap]) @ columns
        y[(slice(None), slice(None), *view)] += part.reshape(batch, groups * per_group, *sizes)
    return y


def _pool(x: Array, window: _Window) -> Array:
    """Return the maximum over the window, padding left out."""
    padded = window.padded(x, -np.inf)
    result: Array | None = None
    for _, seen in window.taps(padded):
        result = seen.copy() if result is None else np.maximum(result, seen, out=result)
    assert result is not None  # noqa: S101 - a kernel has at least one tap
    return result


def _average(x: Array, window: _Window, *, count_padding: bool) -> Array:
    """Return the mean over the window; padding counts, or is left out."""
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if count_padding:
        widths = [(0, 0)] * 2 + list(zip(window.begins, window.ends, strict=True))
        ones = np.ones([1, 1, *(s + sum(w) for s, w in zip(x.shape[2:], widths[2:], strict=True))])
        lacking = [
            (0, total - size)
            for total, size in zip(window.padded(x[:1, :1], 0.0).shape, ones.shape, strict=True)
        ]
        counted = np.pad(ones, lacking)
    else:
        counted = window.padded(ones, 0.0)
    total = sum(seen for _, seen in window.taps(window.padded(x, 0.0)))
    count = sum(seen for _, seen in window.taps(counted))
    return np.asarray(total / count, dtype=x.dtype)


@cache
def fast_operators() -> tuple[Any, ...]:
    """Return the operators' classes, for the evaluator's ``new_ops``."""
    from onnx.reference.op_run import OpRun  # noqa: PLC0415 - slow import, rarely needed

    class Conv(OpRun):
        op_domain = ""

        def _run(  # noqa: PLR0913 - the operator has these inputs and attributes
            self,
            x: Array,
            w: Array,
            b: Array | None = None,
            *,
            auto_pad: str | None = None,
            dilations: Sequence[int] | None = None,
            group: int | None = None,
            kernel_shape: Sequence[int] | None = None,
            pads: Sequence[int] | None = None,
            strides: Sequence[int] | None = None,
        ) -> tuple[Array]:
            window = _Window(
                x.shape[2:], kernel_shape or w.shape[2:], strides, dilations, pads, auto_pad
            )
            y = _convolve(x, w, window, group or 1)
            if b is not None:
                y += b.reshape(-1, *(1,) * (y.ndim - 2))
            return (y,)

    class ConvTranspose(OpRun):
        op_domain = ""

        def _run(  # noqa: PLR0913 - the operator has these inputs and attributes
            self,
            x: Array,
            w: Array,
            b: Array | None = None,
            *,
            auto_pad: str | None = None,
            dilations: Sequence[int] | None = None,
            group: int | None = None,
            kernel_shape: Sequence[int] | None = None,
            output_padding: Sequence[int] | None = None,
            output_shape: Sequence[int] | None = None,
            pads: Sequence[int] | None = None,
            strides: Sequence[int] | None = None,
        ) -> tuple[Array]:
            rank = x.ndim - 2
            steps, spread = strides or [1] * rank, dilations or [1] * rank
            extra = list(output_padding or [0] * rank)
            given = list(pads or [0] * (2 * rank))
            wanted = list(output_shape)[-rank:] if output_shape else None
            if wanted is None and auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
                wanted = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
            y = _spread(x, w, steps, spread, group or 1, extra)
            if wanted is not None:
                for axis, size in enumerate(wanted):
                    total = y.shape[axis + 2] - size
                    # An output that is larger than what the taps reach ends in zeros.
                    if total < 0:
                        y = np.pad(y, [(0, -total if a == axis + 2 else 0) for a in range(y.ndim)])
                        total = 0
                    begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
                    given[axis], given[axis + rank] = begin, total - begin
            crop = tuple(
                slice(given[axis], y.shape[axis + 2] - given[axis + rank]) for axis in range(rank)
            )
            y = np.ascontiguousarray(y[(slice(None), slice(None), *crop)])
            if b is not None:
                y += b.reshape(-1, *(1,) * rank)
            return (y,)

    class MaxPool(OpRun):
        op_domain = ""

        def _run(
            self,
            x: Array,
            *,
            auto_pad: str | None = None,
            ceil_mode: int | None = None,
            dilations: Sequence[int] | None = None,
            kernel_shape: Sequence[int] = (),
            pads: Sequence[int] | None = None,
            storage_order: int | None = None,
            strides: Sequence[int] | None = None,
        ) -> tuple[Array]:
            if len(self.onnx_node.output) > 1:
                raise NotImplementedError("MaxPool with indices")
            ceil = bool(ceil_mode)
            window = _Window(
                x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil=ceil
            )
            return (_pool(x, window),)

    class AveragePool(OpRun):
        op_domain = ""

        def _run(
            self,
            x: Array,
            *,
            auto_pad: str | None = None,
            ceil_mode: int | None = None,
            count_include_pad: int | None = None,
            dilations: Sequence[int] | None = None,
            kernel_shape: Sequence[int] = (),
            pads: Sequence[int] | None = None,
            strides: Sequence[int] | None = None,
        ) -> tuple[Array]:
            ceil = bool(ceil_mode)
            window = _Window(
                x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil=ceil
            )
            return (_average(x, window, count_padding=bool(count_include_pad)),)

    return (Conv, ConvTranspose, MaxPool, AveragePool)
