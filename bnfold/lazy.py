"""Tensors that are computed while they are written: in float64, block by block, rounded once.

A fold multiplies a weight by a scale per channel. Keeping the weight as it lies in the file beside
the float64 scale, instead of the product, has two uses: memory stays near one block, and a weight
that takes part in several folds is still rounded only once. :class:`Scaled` is that product; what
merges make of several weights is in ``kernels.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Float64, collapse

__all__ = ["Scaled", "Unrounded", "round_to"]

Array = NDArray[Any]


def round_to(array: Float64, dtype: np.dtype[Any]) -> Array:
    """Round float64 values to ``dtype``, to nearest even, in one rounding.

    The conversion of ml_dtypes goes through float32 and so rounds twice; here the intermediate
    float32 is rounded to odd, which makes the second rounding exact (Boldo and Melquiond 2008).

    Args:
        array: float64 values of any shape.
        dtype: A floating point dtype of NumPy or ml_dtypes.

    Returns:
        An array of ``dtype``; values beyond its range become infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.type not in (ml_dtypes.bfloat16,):
            return array.astype(dtype)
        nearest = np.ascontiguousarray(array, np.float64).astype(np.float32)
        bits = nearest.view(np.uint32).copy()
        inexact = np.isfinite(nearest) & (nearest.astype(np.float64) != array)
        away = inexact & (np.abs(nearest.astype(np.float64)) > np.abs(array))
        bits[away] -= 1
        bits[inexact] |= 1
        return bits.view(np.float32).reshape(array.shape).astype(dtype)


class Unrounded(ABC):
    """A float tensor whose values are known in float64 and rounded when they are written.

    Attributes:
        dtype: Storage dtype of the result.
        block_elements: Elements that are evaluated at a time.
    """

    dtype: np.dtype[Any]
    block_elements: ClassVar[int] = 1 << 18

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the stored weights that an evaluation reads."""

    @abstractmethod
    def times(self, scale: Float64) -> Unrounded:
        """The same tensor with one more scale that broadcasts against it, still unrounded."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Float64:
        """The unrounded values of rows ``start`` to ``stop`` of the first axis, in a new array."""

    @abstractmethod
    def same_as(self, other: Unrounded) -> bool:
        """True if both are known to hold the same values, from how they are made."""

    @property
    def is_uniform(self) -> bool:
        """True if all elements are known to be equal without looking at each of them."""
        return False

    @property
    def depth(self) -> int:
        """How many tensors are made of one another to make this one."""
        return 0

    def swapped(self) -> Unrounded:
        """The same tensor with its first two axes exchanged."""
        return Swapped(self)

    def float64(self) -> Float64:
        """All values, unrounded, shape of the tensor."""
        return self.rows(0, self.shape[0])

    def blocks(self) -> Iterator[Array]:
        """Yield consecutive pieces of the flattened tensor in the storage dtype."""
        for block in self.blocks64():
            yield np.ascontiguousarray(round_to(block, self.dtype)).reshape(-1)

    def rounded(self) -> Array:
        """All values in the storage dtype, shape of the tensor."""
        return round_to(self.float64(), self.dtype).reshape(self.shape)

    def any(self) -> bool:
        """True if an element is not zero; looks no further than the first of them."""
        return any(bool(block.any()) for block in self.blocks64())

    def out_of_range(self) -> str | None:
        """Say whether the storage dtype can hold the tensor.

        Returns:
            "overflows" if an element would not be finite, "underflows" if even the largest would
            be below the smallest normal number, so that all precision is lost; None if it fits.
        """
        if 0 in self.shape:
            return None
        peaks = np.array([np.abs(block).max(initial=0.0) for block in self.blocks64()])
        if not np.isfinite(round_to(peaks, self.dtype).astype(np.float64)).all():
            return "overflows"
        peak = peaks.max()
        tiny = float(ml_dtypes.finfo(self.dtype).smallest_normal)  # type: ignore[no-untyped-call]
        return "underflows" if 0.0 < peak < tiny else None

    def blocks64(self) -> Iterator[Float64]:
        """Yield the values of consecutive rows, unrounded, a few MB at a time."""
        shape = self.shape
        size = math.prod(shape)
        if not shape or size <= self.block_elements:
            yield self.float64()
            return
        step = max(1, self.block_elements * shape[0] // size)
        for start in range(0, shape[0], step):
            yield self.rows(start, min(start + step, shape[0]))


@dataclass(frozen=True, eq=False)
class Scaled(Unrounded):
    """The tensor ``base * scale`` in a storage dtype.

    Attributes:
        base: Any float dtype; a view into the file where the weight is stored there.
        scale: float64, broadcastable to ``base``; None for 1.
        dtype: Storage dtype of the result.
    """

    base: Array
    scale: Float64 | None
    dtype: np.dtype[Any]
    # A product is made in three passes over the block: it stays in the cache of one core.
    block_elements: ClassVar[int] = 1 << 16

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.base.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of ``base``."""
        return self.base.nbytes

    def times(self, scale: Float64) -> Scaled:
        """The same tensor with one more scale, still unrounded."""
        both = scale if self.scale is None else self.scale * scale
        return Scaled(self.base, collapse(both), self.dtype)

    def swapped(self) -> Scaled:
        """The same tensor with its first two axes exchanged: a view."""
        scale = None if self.scale is None else self.scale.swapaxes(0, 1)
        return Scaled(self.base.swapaxes(0, 1), scale, self.dtype)

    def float64(self) -> Float64:
        """All values, unrounded, shape of the tensor."""
        return self._product(self.base, self.scale)

    def rows(self, start: int, stop: int) -> Float64:
        """The unrounded values of some rows."""
        part = slice(start, stop)
        return self._product(self.base[part], self._scale_rows(part))

    def same_as(self, other: Unrounded) -> bool:
        """True if base, scale and dtype are equal."""
        if not isinstance(other, Scaled):
            return False
        if self.dtype != other.dtype or self.shape != other.shape:
            return False
        if self.base is not other.base and not np.array_equal(self.base, other.base):
            return False
        if self.scale is None or other.scale is None:
            return self.scale is other.scale
        return np.array_equal(self.scale, other.scale)

    @property
    def is_uniform(self) -> bool:
        """True if all elements are known to be equal without looking at each of them."""
        return all(
            stride == 0 or n == 1 for stride, n in zip(self.base.strides, self.shape, strict=True)
        ) and (self.scale is None or self.scale.size == 1)

    def out_of_range(self) -> str | None:
        """Say whether the storage dtype can hold the tensor; nearly always from base and scale."""
        if self.base.size == 0:
            return None
        info = ml_dtypes.finfo(self.dtype)  # type: ignore[no-untyped-call]
        largest, tiny = float(info.max), float(info.smallest_normal)
        peak = max(float(np.max(self.base)), -float(np.min(self.base)))
        if not np.isfinite(peak):
            return "overflows"
        scales = np.ones(1) if self.scale is None else np.abs(self.scale)
        # nearly every tensor passes here, without a product being formed
        if peak * float(scales.max()) < largest and peak * float(scales.min()) > tiny:
            return None
        return super().out_of_range()

    def blocks64(self) -> Iterator[Float64]:
        """Yield the values in order, unrounded; a row that is large comes in pieces as well."""
        if len(self.shape) < 2 or self.base.size <= 4 * self.block_elements * self.shape[0]:
            yield from super().blocks64()
            return
        for index in range(self.shape[0]):
            yield from self._row(index).blocks64()

    def _row(self, index: int) -> Scaled:
        scale = self._scale_rows(slice(index, index + 1))
        return Scaled(self.base[index], None if scale is None else scale[0], self.dtype)

    def _scale_rows(self, part: slice) -> Float64 | None:
        return self.scale if self.scale is None or self.scale.shape[0] == 1 else self.scale[part]

    @staticmethod
    def _product(base: Array, scale: Float64 | None) -> Float64:
        values = base.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # refused where it is stored
            return values if scale is None else np.multiply(values, scale, out=values)


@dataclass(frozen=True, eq=False)
class Swapped(Unrounded):
    """Another tensor with its first two axes exchanged.

    Attributes:
        inner: The other tensor.
    """

    inner: Unrounded

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """Storage dtype of the other tensor."""
        return self.inner.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        first, second, *rest = self.inner.shape
        return (second, first, *rest)

    @property
    def nbytes(self) -> int:
        """Bytes that the other tensor reads."""
        return self.inner.nbytes

    @property
    def depth(self) -> int:
        """One more than the other tensor."""
        return self.inner.depth + 1

    def times(self, scale: Float64) -> Unrounded:
        """The same tensor with one more scale, still unrounded."""
        return Swapped(self.inner.times(scale.swapaxes(0, 1)))

    def swapped(self) -> Unrounded:
        """The other tensor."""
        return self.inner

    def rows(self, start: int, stop: int) -> Float64:
        """The unrounded values of some columns of the other tensor."""
        return self.inner.float64()[:, start:stop].swapaxes(0, 1)

    def same_as(self, other: Unrounded) -> bool:
        """True if both exchange the axes of the same."""
        return isinstance(other, Swapped) and self.inner.same_as(other.inner)
