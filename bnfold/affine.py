"""Affine maps over a tensor, in float64: the one algebra of every fold.

An :class:`Affine` is ``y = (x - center) * scale + shift`` with arrays that *broadcast against the
tensor*: all three have the rank of the tensor, and each of their axes is 1 or as long as the
tensor's. For a BatchNormalization over (N, C, H, W) they are (1, C, 1, 1). Whatever a node does to
the elements of a tensor (transpose, reshape, slice, concatenate) it does to the arrays.

``center`` is kept apart from ``shift`` because ``(b - mean) * s + beta`` does not cancel where
``b * s + (beta - mean * s)`` does.

Source: Ioffe and Szegedy 2015, arXiv 1502.03167, for the inference form of batch normalization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Affine", "Float64", "collapse", "contracted", "require_small"]

Float64 = NDArray[np.float64]

MAX_ELEMENTS = 1 << 22
"""Most elements of an array of an affine: a model can declare axes that are longer than any."""


@dataclass(frozen=True, eq=False)
class Affine:
    """``y = (x - center) * scale + shift``, elementwise.

    Attributes:
        scale: float64, rank of the tensor, every axis 1 or the tensor's.
        shift: As ``scale``.
        center: As ``scale``.

    Axes along which an array does not vary are stored with length 1, so two affines that act alike
    have equal arrays.
    """

    scale: Float64
    shift: Float64
    center: Float64

    def __post_init__(self) -> None:
        if not self.scale.ndim == self.shift.ndim == self.center.ndim:
            msg = "scale, shift and center must have one rank"
            raise ValueError(msg)
        for name in ("scale", "shift", "center"):
            object.__setattr__(self, name, collapse(getattr(self, name)))

    # --- construction

    @staticmethod
    def of(scale: Any, shift: Any, center: Any = None) -> Affine:
        """Build from arrays of any numeric dtype and of equal rank.

        Args:
            scale: Array of the rank of the tensor.
            shift: Array of the same rank.
            center: Array of the same rank; zeros if absent.
        """
        scale64 = np.asarray(scale, np.float64)
        return Affine(
            scale64,
            np.asarray(shift, np.float64),
            np.zeros((1,) * scale64.ndim) if center is None else np.asarray(center, np.float64),
        )

    @staticmethod
    def identity(rank: int) -> Affine:
        """The affine that changes nothing, for a tensor of ``rank`` axes."""
        one = np.ones((1,) * rank)
        return Affine(one, one * 0.0, one * 0.0)

    @staticmethod
    def from_batchnorm(
        gamma: Any, beta: Any, mean: Any, var: Any, epsilon: float, *, rank: int, axis: int = 1
    ) -> Affine:
        """The inference form of batch normalization: (x - mean) * gamma / sqrt(var + eps) + beta.

        Args:
            gamma: Scale, shape (C,).
            beta: Bias, shape (C,).
            mean: Running mean, shape (C,).
            var: Running variance, shape (C,).
            epsilon: Added to the variance.
            rank: Rank of the tensor.
            axis: Channel axis of the tensor.

        Returns:
            Arrays of shape (1, C, 1, ...). They are not finite where the parameters are not, or
            where ``var + epsilon <= 0``: see :attr:`finite`.
        """
        shape = [1] * rank
        shape[axis] = -1
        gamma64, beta64, mean64, var64 = (
            np.asarray(array, np.float64).reshape(shape) for array in (gamma, beta, mean, var)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(var64 + epsilon > 0, gamma64 / np.sqrt(var64 + epsilon), np.nan)
        return Affine(scale, beta64, mean64)

    # --- what it is

    @property
    def rank(self) -> int:
        """Rank of the tensor it acts on."""
        return self.scale.ndim

    @cached_property
    def offset(self) -> Float64:
        """What becomes of zero: ``shift - center * scale``."""
        return collapse(self.shift - self.center * self.scale)

    @cached_property
    def finite(self) -> bool:
        """True if every array is finite."""
        return all(bool(np.isfinite(a).all()) for a in (self.scale, self.shift, self.center))

    @cached_property
    def is_linear(self) -> bool:
        """True if it maps zero to zero exactly, everywhere: the shift is 0."""
        return not self.offset.any()

    @cached_property
    def is_shift(self) -> bool:
        """True if the scale is exactly 1 everywhere."""
        return bool((self.scale == 1.0).all())

    @cached_property
    def is_nonnegative(self) -> bool:
        """True if no element of the scale is negative."""
        return bool((self.scale >= 0.0).all())

    @property
    def is_identity(self) -> bool:
        """True if it changes nothing."""
        return self.is_shift and self.is_linear

    @property
    def is_uniform(self) -> bool:
        """True if it does the same to every element."""
        return not self.axes

    @cached_property
    def axes(self) -> frozenset[int]:
        """The axes along which it varies."""
        return frozenset(
            axis
            for array in (self.scale, self.shift, self.center)
            for axis, length in enumerate(array.shape)
            if length != 1
        )

    def same_as(self, other: Affine) -> bool:
        """True if both do exactly the same to every element."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.offset, other.offset)

    def merged(self, other: Affine) -> Affine | None:
        """The affine that is the one of both that is not the identity, element by element.

        Returns:
            None where an element would have to take on two different affines, or where the two do
            not act on tensors of one shape.
        """
        pairs = [
            (self.scale, other.scale), (self.shift, other.shift), (self.center, other.center)
        ]  # fmt: skip
        if any(
            1 not in lengths and len(set(lengths)) > 1
            for pair in pairs
            for lengths in zip(*(a.shape for a in pair), strict=True)
        ):
            return None
        idle = (self.scale == 1.0) & (self.offset == 0.0)
        alike = (self.scale == other.scale) & (self.offset == other.offset)
        if not (idle | alike | ((other.scale == 1.0) & (other.offset == 0.0))).all():
            return None
        return Affine(*(np.where(idle, second, first) for first, second in pairs))

    # --- arithmetic

    def apply(self, x: Any) -> Float64:
        """Return ``(x - center) * scale + shift`` in float64, broadcast against ``x``."""
        return (np.asarray(x, np.float64) - self.center) * self.scale + self.shift

    def then(self, after: Affine) -> Affine:
        """The composition ``after(self(x))``."""
        scale = self.scale * after.scale
        return Affine(scale, after.apply(self.shift), self.center)

    def linear(self) -> Affine:
        """The same scale without any shift."""
        zero = np.zeros((1,) * self.rank)
        return Affine(self.scale, zero, zero)

    # --- along with the tensor

    def map(self, change: Callable[[Float64], Float64]) -> Affine:
        """Apply one change of shape to all three arrays."""
        return Affine(change(self.scale), change(self.shift), change(self.center))

    def transpose(self, perm: Sequence[int]) -> Affine:
        """Follow a transpose: output axis i is input axis ``perm[i]``."""
        return self.map(lambda array: array.transpose(perm))

    def expand_dims(self, axes: Sequence[int]) -> Affine:
        """Follow an unsqueeze; ``axes`` count in the result and are not negative."""
        return self.map(lambda array: np.expand_dims(array, tuple(axes)))

    def squeeze(self, axes: Sequence[int]) -> Affine:
        """Follow the removal of axes of length 1."""
        return self.map(lambda array: array.squeeze(tuple(axes)))

    def take(self, axis: int, indices: NDArray[np.int64]) -> Affine:
        """Follow a selection of elements along one axis.

        Raises:
            ValueError: Too many elements are selected.
        """

        def select(array: Float64) -> Float64:
            if array.shape[axis] == 1:
                return array
            require_small((*array.shape[:axis], len(indices), *array.shape[axis + 1 :]))
            return np.take(array, indices, axis=axis)

        return self.map(select)

    def scatter(self, axis: int, indices: NDArray[np.int64], length: int) -> Affine:
        """The affine of the whole tensor of which this one acts on a selection.

        Args:
            axis: Axis of the selection.
            indices: Distinct positions along ``axis`` of the elements of this affine, in order.
            length: Length of the whole tensor along ``axis``.

        Returns:
            An affine that leaves alone the elements that are not named.

        Raises:
            ValueError: The whole tensor is too large.
        """

        def place(array: Float64, rest: float) -> Float64:
            shape = list(array.shape)
            shape[axis] = length
            require_small(shape)
            whole = np.full(shape, rest)
            index: list[Any] = [slice(None)] * len(shape)
            index[axis] = indices
            whole[tuple(index)] = array
            return whole

        return Affine(place(self.scale, 1.0), place(self.shift, 0.0), place(self.center, 0.0))

    @staticmethod
    def concatenate(parts: Sequence[Affine], axis: int, lengths: Sequence[int]) -> Affine:
        """The affine of a concatenation.

        Args:
            parts: One affine for each tensor.
            axis: Axis of the concatenation.
            lengths: Length of each tensor along ``axis``.

        Raises:
            ValueError: They are too long together.
        """

        def join(name: str) -> Float64:
            arrays = [getattr(part, name) for part in parts]
            shape = np.broadcast_shapes(
                *((*array.shape[:axis], 1, *array.shape[axis + 1 :]) for array in arrays)
            )
            require_small((*shape[:axis], sum(lengths), *shape[axis + 1 :]))
            blocks = [
                np.broadcast_to(array, (*shape[:axis], length, *shape[axis + 1 :]))
                for array, length in zip(arrays, lengths, strict=True)
            ]
            return np.concatenate(blocks, axis=axis)

        return Affine(join("scale"), join("shift"), join("center"))

    # --- as vectors

    def along(self, axis: int, length: int) -> Affine | None:
        """The same affine with vectors of shape (length,), if it varies along ``axis`` only.

        Returns:
            A rank 1 affine whose arrays all have shape (length,), or None if it also varies along
            another axis or does not fit ``length``.
        """
        if not self.axes <= {axis}:
            return None
        if any(a.shape[axis] not in (1, length) for a in (self.scale, self.shift, self.center)):
            return None
        vectors = [
            np.broadcast_to(a.reshape(-1), (length,)) for a in (self.scale, self.shift, self.center)
        ]
        return _uncollapsed(vectors)


def require_small(shape: Sequence[int]) -> None:
    """Refuse an array that no tensor of a real model has the like of.

    Raises:
        ValueError: It would have more than `MAX_ELEMENTS` elements.
    """
    if math.prod(shape) > MAX_ELEMENTS:
        msg = f"an affine of {math.prod(shape)} elements"
        raise ValueError(msg)


def _uncollapsed(vectors: Sequence[Float64]) -> Affine:
    affine = object.__new__(Affine)
    scale, shift, center = vectors
    named = {"scale": scale, "shift": shift, "center": center, "offset": shift - center * scale}
    for name, vector in named.items():
        object.__setattr__(affine, name, vector)
    return affine


def collapse(array: Float64) -> Float64:
    """Reduce every axis along which ``array`` does not vary to length 1."""
    for axis, length in enumerate(array.shape):
        if length > 1:
            first = array.take([0], axis=axis)
            if (array == first).all():
                array = first
    return array


def contracted(axes: str, left: Float64, right: Float64) -> Float64:
    """Return a sum of products, written as for ``numpy.einsum``, added up in one order everywhere.

    BLAS is faster, but its sums depend on the processor and on the number of threads.
    """
    return np.asarray(np.einsum(axes, left, right, optimize=False))
