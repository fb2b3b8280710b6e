"""What becomes of the weights of linear operators that are joined: pure NumPy, no graph.

A weight has shape (R, S/g, k...): R rows in g groups, each of which sees S/g columns, and a kernel.
For Conv rows are output channels and columns are input channels, for ConvTranspose the other way
round; a matrix has one group and no kernel. Two operations build everything::

    sum      operators on one input whose results are added:   W = sum over i of place(W_i)
    product  operators one behind the other:                   W = sum over j of L[r, j] * R[j, s]

``place`` puts a kernel at its taps in a larger one, zeros elsewhere, and a group at its columns in
a wider one. A scale per channel is a weight of R groups with kernel 1. The taps of a product add,
as in the multiplication of polynomials.

Everything stays unrounded: a merged weight is computed in float64, block by block, when it is
written, and rounded once, however many weights and folds take part in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bnfold.affine import Float64, collapse, contracted
from bnfold.lazy import Scaled, Unrounded

__all__ = ["Joined", "Placed", "Product", "contract", "depthwise"]


@dataclass(frozen=True, eq=False)
class Placed:
    """One weight, and where it stands in a larger one.

    Attributes:
        weight: Shape (R, S/h, k...), of h groups.
        groups: h, a multiple of the number of groups of the larger weight.
        taps: For each kernel axis, the taps of the larger kernel that those of the weight are.
        row: Row of the larger weight at which it begins; the other rows it leaves alone.
        column: Column within its group at which it begins.
    """

    weight: Unrounded
    groups: int
    taps: tuple[slice, ...]
    row: int = 0
    column: int = 0

    def add_to(self, out: Float64, start: int, groups: int) -> None:
        """Add its rows to a block of the larger weight.

        Args:
            out: (n, columns, K...), rows ``start`` to ``start + n`` of the larger weight.
            start: First row of the block.
            groups: Number of groups of the larger weight.
        """
        total, width = self.weight.shape[:2]
        first = max(start, self.row)
        last = min(start + len(out), self.row + total)
        if first >= last:
            return
        values = self.weight.rows(first - self.row, last - self.row)
        block = out[first - start : last - start]
        if self.groups == groups:
            block[(slice(None), slice(self.column, self.column + width), *self.taps)] += values
            return
        rows = np.arange(first - self.row, last - self.row)
        within = rows // (total // self.groups) % (self.groups // groups)
        columns = within[:, None] * width + np.arange(width)
        place: tuple[Any, ...] = (np.arange(len(rows))[:, None], columns, *self.taps)
        block[place] += values

    def same_as(self, other: Placed) -> bool:
        """True if the same stands at the same place."""
        place = (self.groups, self.taps, self.row, self.column)
        return place == (other.groups, other.taps, other.row, other.column) and (
            self.weight.same_as(other.weight)
        )


@dataclass(frozen=True, eq=False)
class Joined(Unrounded):
    """The sum of weights at their places, times a scale.

    Attributes:
        full: Shape of the sum, (R, S/g, K...).
        groups: g.
        parts: The weights.
        scale: float64, broadcastable to ``full``; None for 1.
        dtype: Storage dtype of the result.
    """

    full: tuple[int, ...]
    groups: int
    parts: tuple[Placed, ...]
    scale: Float64 | None
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.full

    @property
    def nbytes(self) -> int:
        """Bytes that all weights read."""
        return sum(part.weight.nbytes for part in self.parts)

    @cached_property
    def depth(self) -> int:
        """One more than the deepest of the weights."""
        return 1 + max((part.weight.depth for part in self.parts), default=0)

    def times(self, scale: Float64) -> Joined:
        """The same sum with one more scale, still unrounded."""
        both = scale if self.scale is None else self.scale * scale
        return Joined(self.full, self.groups, self.parts, collapse(both), self.dtype)

    def rows(self, start: int, stop: int) -> Float64:
        """The unrounded values of some rows."""
        out = np.zeros((stop - start, *self.full[1:]))
        for part in self.parts:
            part.add_to(out, start, self.groups)
        if self.scale is not None:
            out *= self.scale if self.scale.shape[0] == 1 else self.scale[start:stop]
        return out

    def same_as(self, other: Unrounded) -> bool:
        """True if both add the same weights at the same places."""
        if not isinstance(other, Joined) or len(self.parts) != len(other.parts):
            return False
        alike = (self.full, self.groups, self.dtype) == (other.full, other.groups, other.dtype)
        pairs = zip(self.parts, other.parts, strict=True)
        return (
            alike
            and _same_scale(self.scale, other.scale)
            and all(one.same_as(two) for one, two in pairs)
        )


@dataclass(frozen=True, eq=False)
class Product(Unrounded):
    """One operator behind another, as one weight of shape (R, S/g, K...).

    Attributes:
        left: (R, J/h, k...) of h groups.
        left_groups: h.
        right: (J, S/i, l...) of i groups.
        right_groups: i.
        groups: The largest number that divides h and i.
        kernel: K..., into which all sums of taps fit.
        left_steps: Distance of the taps of ``left``, along each axis, in taps of K.
        right_steps: The same of ``right``.
        dtype: Storage dtype of the result.
    """

    left: Unrounded
    left_groups: int
    right: Unrounded
    right_groups: int
    groups: int
    kernel: tuple[int, ...]
    left_steps: tuple[int, ...]
    right_steps: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        columns = self.right.shape[1] * self.right_groups // self.groups
        return (self.left.shape[0], columns, *self.kernel)

    @property
    def nbytes(self) -> int:
        """Bytes that both weights read."""
        return self.left.nbytes + self.right.nbytes

    @cached_property
    def depth(self) -> int:
        """One more than the deeper of both weights."""
        return 1 + max(self.left.depth, self.right.depth)

    def times(self, scale: Float64) -> Unrounded:
        """The same product with one more scale, still unrounded."""
        full = tuple(slice(0, length) for length in self.kernel)
        whole = Joined(
            self.shape, self.groups, (Placed(self, self.groups, full),), None, self.dtype
        )
        return whole.times(scale)

    def rows(self, start: int, stop: int) -> Float64:
        """The unrounded values of some rows."""
        right = _widened(self.right, self.right_groups, self.groups).float64()
        left = _widened(self.left, self.left_groups, self.groups).rows(start, stop)
        out = np.zeros((stop - start, *self.shape[1:]))
        inner, height = right.shape[0] // self.groups, self.left.shape[0] // self.groups
        for group in range(start // height, (stop - 1) // height + 1):
            first, last = max(start, group * height), min(stop, (group + 1) * height)
            part = slice(first - start, last - start)
            weights = right[group * inner : (group + 1) * inner]
            self._multiply(left[part], weights, out[part])
        return out

    def _multiply(self, left: Float64, right: Float64, out: Float64) -> None:
        """Add the product of one group, (n, J/g, k...) and (J/g, S/g, l...), to ``out``."""
        for tap in itertools.product(*(range(length) for length in left.shape[2:])):
            taps = tuple(
                slice(index * step, index * step + (length - 1) * other + 1, other)
                for index, step, length, other in zip(
                    tap, self.left_steps, right.shape[2:], self.right_steps, strict=True
                )
            )
            chosen: tuple[Any, ...] = (slice(None), slice(None), *tap)
            matrix = left[chosen]
            out[(slice(None), slice(None), *taps)] += contracted("nj,j...->n...", matrix, right)

    def same_as(self, other: Unrounded) -> bool:
        """True if both multiply the same weights in the same way."""
        return (
            isinstance(other, Product)
            and self._way() == other._way()  # noqa: SLF001 - of its own class
            and self.left.same_as(other.left)
            and self.right.same_as(other.right)
        )

    def _way(self) -> tuple[Any, ...]:
        steps = (self.left_steps, self.right_steps)
        return (self.left_groups, self.right_groups, self.groups, self.kernel, *steps, self.dtype)


def contract(weight: Unrounded, shift: Float64) -> Float64:
    """What a constant on each column gives at each tap.

    Args:
        weight: (R, S, k...), of one group.
        shift: (S,).

    Returns:
        (R, 1, k...): sum over s of weight[r, s] * shift[s].
    """
    blocks = [contracted("rs...,s->r...", block, shift) for block in weight.blocks64()]
    return np.expand_dims(np.concatenate(blocks), 1)


def depthwise(scale: Float64, kernel: Sequence[int], dtype: np.dtype[Any]) -> Scaled:
    """A scale per channel, the same at every tap, as a weight of as many groups as channels.

    Args:
        scale: (C,).
        kernel: Lengths of the kernel axes.
        dtype: Storage dtype of the weight that it becomes part of.

    Returns:
        (C, 1, k...), a view.
    """
    column = scale.reshape(-1, *([1] * (1 + len(kernel))))
    return Scaled(np.broadcast_to(column, (len(scale), 1, *kernel)), None, dtype)


def _widened(weight: Unrounded, old: int, new: int) -> Unrounded:
    """The same weight in fewer groups: zeros where a row does not see a column."""
    if old == new:
        return weight
    rows, width, *kernel = weight.shape
    taps = tuple(slice(0, length) for length in kernel)
    shape = (rows, width * old // new, *kernel)
    return Joined(shape, new, (Placed(weight, old, taps),), None, weight.dtype)


def _same_scale(one: Float64 | None, other: Float64 | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
