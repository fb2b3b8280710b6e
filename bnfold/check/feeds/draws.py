"""Random values that bring errors to light.

Each kind of draw hides something that another one shows:

========  ==========================================================================================
normal    standard normal: every sign, every weight in use
border    values at the edge of an image unlike those inside: a shift folded over zero padding
wide      magnitudes from 1e-4 to 1e3 (float16: 1e-3 to 1e1): clipped and saturated branches
channels  every channel with its own scale and offset: channels exchanged or scaled wrongly
negative  nothing but negative numbers: what a Relu hides, and roots and logarithms of them
unit      in [0, 1): what images and probabilities look like, and never negative
constant  one value for each channel: only offsets and borders are left to differ
sparse    zeros, and here and there a number: what happens at one place, and divisions by zero
========  ==========================================================================================

Of integers ``negative`` and ``wide`` show what is outside the usual small range, where no index
forbids it; ``border`` and ``sparse`` go to the ends of the range of an index.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx

from bnfold.check.feeds.hints import Hint
from bnfold.check.models.model import Array

__all__ = ["KINDS", "draw_values", "is_extended", "is_float", "numpy_dtype"]

KINDS = ("normal", "border", "wide", "channels", "negative", "unit", "constant", "sparse")

_WORDS = ("", "a", "b", "bn", "fold", "The", "x y", "\u00e9")
_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
_DEFAULT_BOUND = 8
_iinfo: Any = ml_dtypes.iinfo
_finfo: Any = ml_dtypes.finfo
_FEW = 0.05


def is_float(dtype: np.dtype[Any]) -> bool:
    """True for the floating-point types that can be moved by one unit in the last place."""
    return dtype in _FLOATS


def is_extended(dtype: np.dtype[Any]) -> bool:
    """True for the types that NumPy itself does not have: bfloat16, eight bits and less."""
    return dtype.type.__module__ == ml_dtypes.__name__


def numpy_dtype(elem_type: int) -> np.dtype[Any] | None:
    """The NumPy type of a ``TensorProto`` type that can be drawn, else None."""
    if elem_type == onnx.TensorProto.STRING:
        return np.dtype(object)
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        return None


def draw_values(
    kind: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    hint: Hint,
    rng: np.random.Generator,
    *,
    bounds: tuple[int, int] | None = None,
) -> Array:
    """Draw one tensor.

    Args:
        kind: One of ``KINDS``, or a fallback: ``binary``, ``ones`` or ``zeros``.
        shape: Any shape, zero-size dimensions included.
        dtype: A type of :func:`numpy_dtype`.
        hint: What the graph says about the input.
        rng: Where the numbers come from; the same state gives the same values.
        bounds: The range [low, high) of an index.

    Returns:
        An array of that shape and type.
    """
    if hint.words and _are_words(hint.words, dtype):
        return _known_words(kind, shape, dtype, hint.words, rng)
    if dtype.kind == "O":
        return _choose(_WORDS, shape, dtype, rng)
    if kind in {"ones", "zeros"} or hint.is_size:
        return np.full(shape, kind != "zeros", dtype)
    if dtype.kind == "b":
        return _flags(kind, shape, rng).astype(dtype)
    limits = _integer_limits(dtype)
    if limits is not None or bounds is not None:
        return _integers(kind, shape, limits or bounds or (0, 0), hint, rng, bounds).astype(dtype)
    if dtype.kind == "c":
        parts = [_floats(kind, shape, dtype, rng) for _ in range(2)]
        return np.asarray(parts[0] + 1j * parts[1], dtype)
    return _floats(kind, shape, dtype, rng).astype(dtype)


def _are_words(words: tuple[object, ...], dtype: np.dtype[Any]) -> bool:
    return isinstance(words[0], str) == (dtype.kind == "O") and dtype.kind != "b"


def _known_words(
    kind: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    words: tuple[str | int | float, ...],
    rng: np.random.Generator,
) -> Array:
    """Draw what an operator knows, and now and then a stranger."""
    if dtype.kind == "O":
        strangers = ("", "no word", str(words[0]).swapcase()) if kind != "constant" else ()
        return _choose((*words, *strangers), shape, dtype, rng)
    known = np.asarray(words)[rng.integers(0, len(words), shape)]
    limits = _integer_limits(dtype)
    if limits is None:
        # Thresholds of a tree: both sides of them.
        spread = float(np.std(np.asarray(words, np.float64))) or 1.0
        return np.asarray(known + 0.3 * spread * _floats(kind, shape, dtype, rng), dtype)
    return np.asarray(np.clip(known, limits[0], limits[1] - 1), dtype)


def _choose(
    words: tuple[object, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rng: np.random.Generator,
) -> Array:
    return np.asarray(np.array(words, dtype=object)[rng.integers(0, len(words), shape)], dtype)


def _flags(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw zeros and ones; as a mask, at least the first of each row is 1: rows are not empty."""
    if kind == "constant":
        return np.ones(shape, int)
    if kind in {"normal", "unit"} and len(shape) >= 2 and 0 not in shape:
        # The usual mask: rows of different lengths, padded at their end.
        lengths = rng.integers(1, shape[-1] + 1, shape[:-1])
        return np.asarray(np.arange(shape[-1]) < lengths[..., None], int)
    values = rng.integers(0, 2, shape)
    if len(shape) >= 2 and 0 not in shape:
        values[..., 0] = 1
    return np.asarray(values, int)


def _integer_limits(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The range [low, high) of an integer type, or None where it is none."""
    try:
        info = _iinfo(dtype)
    except ValueError:
        return None
    return int(info.min), int(info.max) + 1


def _integers(
    kind: str,
    shape: tuple[int, ...],
    limits: tuple[int, int],
    hint: Hint,
    rng: np.random.Generator,
    bounds: tuple[int, int] | None,
) -> Array:
    if bounds is None and hint.is_mask:
        return _flags(kind, shape, rng)
    low, high = bounds or _usual_range(kind, limits, hint)
    low, high = max(low, limits[0]), min(high, limits[1])
    high = max(high, low + 1)
    values = rng.integers(low, high, () if kind == "constant" else shape)
    if kind == "border":
        values = np.where(rng.integers(0, 2, shape), high - 1, low)
    elif kind == "sparse":
        values = np.where(rng.random(shape) < _FEW, values, max(low, min(0, high - 1)))
    if hint.is_divisor:
        values = np.where(values == 0, 1, values)
    return np.broadcast_to(values, shape)


def _usual_range(kind: str, limits: tuple[int, int], hint: Hint) -> tuple[int, int]:
    if kind == "binary":
        return 0, 2
    if limits[1] - limits[0] <= 256:
        return (limits[0], 0) if kind == "negative" and limits[0] < 0 else limits
    far = 1000 if kind == "wide" else 64
    if kind == "negative":
        return -far, 0
    return (-far, far) if hint.is_number or kind == "wide" else (0, _DEFAULT_BOUND)


def _floats(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator
) -> Array:
    values = _reals(kind, shape, dtype, rng)
    if is_extended(dtype) and not is_float(dtype):
        # Eight bits and less: what is out of their range would be NaN.
        info = _finfo(dtype)
        values = np.clip(values, float(info.min), float(info.max))
    return values


def _reals(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator
) -> Array:
    if kind in {"unit", "binary"}:
        return rng.random(shape)
    if kind == "wide":
        low, high = (-3.0, 1.0) if dtype == np.float16 else (-4.0, 3.0)
        return np.asarray(rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(low, high, shape))
    # (N, C, 1, ..., 1): one value for each channel of each image; elements where there is no C.
    channels = shape[:2] + (1,) * (len(shape) - 2)
    if kind == "constant":
        return np.broadcast_to(2.0 * rng.standard_normal(channels), shape)
    values = np.asarray(rng.standard_normal(shape))
    if kind == "negative":
        return -np.abs(values) - 1e-3
    if kind == "sparse":
        # At least one: where all is zero nothing says how much noise there is.
        chances = rng.random(shape)
        return np.where(chances <= max(_FEW, chances.min(initial=1.0)), 3.0 * values, 0.0)
    if kind == "channels":
        offset = rng.standard_normal(channels)
        return np.asarray(values * 10.0 ** rng.uniform(-1.0, 1.0, channels) + 2.0 * offset)
    if kind == "border" and len(shape) >= 3:
        edge = np.zeros(shape[2:], dtype=bool)
        for axis, size in enumerate(shape[2:]):
            if size:
                lines = np.moveaxis(edge, axis, 0)
                lines[0] = lines[-1] = True
        side = rng.choice([-2.0, 2.0], channels)
        return np.where(edge, 3.0 * values + side, values)
    return values
