"""What a convolution sees along one axis, and how the windows of several are made one.

A Conv of kernel k, stride s, dilation d and padding (p, q) reads, for its output o, the inputs
``o s + i d - p`` with i < k: it has *taps* at the offsets ``i d - p``. With reach r = (k - 1) d + 1
an input of length L gives floor((L + p + q - r) / s) + 1 outputs. A ConvTranspose writes what it
reads at j to ``j s + i d - p``, and has (L - 1) s + x + r - p - q outputs, x its output padding.

**Side by side.** Windows of one stride and one output length are one window: its taps are all their
taps, on the coarsest grid that holds them. The output length is proved for every L where p + q - r
(transposed x + r - p - q) agree, else from the actual L.

**One behind the other.** Behind (k1, s1, d1, p1, q1), the taps of (k2, s2, d2, p2, q2) stand at
i1 d1 - p1 + s1 (i2 d2 - p2), and the strides multiply. What the second one pads with is 0, but the
first one, continued over the border, would give its bias there, and what reaches over the border.
So p2 > 0 needs a first operator without bias and (k1 - 1) d1 < s1 + p1; q2 > 0 needs one without
bias and (k1 - 1) d1 <= q1.

Source: the ONNX operator specification of Conv and ConvTranspose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Step", "align", "compose"]


@dataclass(frozen=True)
class Axis:
    """The window of a convolution along one axis.

    Attributes:
        kernel: Number of taps.
        stride: Distance of two windows, in inputs (transposed: in outputs).
        dilation: Distance of two taps; 1 where there is one tap only.
        begin: Padding before.
        end: Padding after.
        extra: Output padding of a ConvTranspose.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0
    extra: int = 0

    @property
    def reach(self) -> int:
        """Inputs from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def is_padded(self) -> bool:
        """True if it may read padding (transposed: if it cuts outputs off)."""
        return self.begin > 0 or self.end > 0

    @property
    def slack(self) -> int:
        """What is added to the length of the input before it is divided by the stride."""
        return self.begin + self.end - self.reach

    def outputs(self, length: int) -> int:
        """Output length of a Conv."""
        return (length + self.slack) // self.stride + 1


Step = slice
"""Which taps of a larger kernel are those of a smaller one."""


def align(
    axes: Sequence[Axis], *, transposed: bool, length: int | None
) -> tuple[Axis, list[Step]] | str:
    """The window that sees what all of these see.

    Args:
        axes: Windows over one input.
        transposed: True for those of ConvTranspose.
        length: Length of the input, or None where it is unknown.

    Returns:
        The window, and for each of ``axes`` its place in it; or what is in the way.
    """
    if len({axis.stride for axis in axes}) > 1:
        return "their strides differ"
    slacks = {axis.slack - axis.extra for axis in axes}
    if len(slacks) > 1 and (transposed or not _same_length(axes, length)):
        return "their padding is not aligned"
    low = -max(axis.begin for axis in axes)
    high = max(axis.reach - 1 - axis.begin for axis in axes)
    distances = [axis.dilation for axis in axes if axis.kernel > 1]
    dilation = math.gcd(*distances, *(-axis.begin - low for axis in axes)) or 1
    kernel = (high - low) // dilation + 1
    reach = (kernel - 1) * dilation + 1
    stride, slack = axes[0].stride, max(slacks)
    rest = slack + reach + low  # what is left to pad behind, or to add to the output
    window = Axis(kernel, stride, dilation, -low, max(rest, 0), max(-rest, 0))
    places = []
    for axis in axes:
        first = (-axis.begin - low) // dilation
        step = max(1, axis.dilation // dilation)
        places.append(slice(first, first + (axis.kernel - 1) * step + 1, step))
    return window, places


def _same_length(axes: Sequence[Axis], length: int | None) -> bool:
    return length is not None and len({axis.outputs(length) for axis in axes}) == 1


def compose(outer: Axis, inner: Axis, *, silent: bool) -> tuple[Axis, int, int] | str:
    """The window of one Conv behind another.

    Args:
        outer: The second one.
        inner: The first one.
        silent: True if the first one has no bias.

    Returns:
        The window, and the distances of the taps of ``outer`` and ``inner`` in it; or what is in
        the way.
    """
    reach = (inner.kernel - 1) * inner.dilation
    if outer.is_padded and not silent:
        return "the first one has a bias, which the padding of the second one lacks"
    if outer.begin > 0 and reach >= inner.stride + inner.begin:
        return "the first one would reach over the border that the second one pads"
    if outer.end > 0 and reach > inner.end:
        return "the first one would reach over the border that the second one pads"
    far = outer.dilation * inner.stride
    used = [
        far for _ in range(outer.kernel > 1)
    ] + [inner.dilation for _ in range(inner.kernel > 1)]  # fmt: skip
    dilation = math.gcd(*used) or 1
    whole = reach + (outer.kernel - 1) * far
    window = Axis(
        whole // dilation + 1,
        outer.stride * inner.stride,
        dilation,
        inner.begin + inner.stride * outer.begin,
        inner.end + inner.stride * outer.end,
    )
    return window, max(1, far // dilation), max(1, inner.dilation // dilation)
