"""Random values that bring folding errors to light.

Each kind of draw hides something that another one shows:

========  ==========================================================================================
normal    standard normal: every sign, every weight in use
border    values at the edge of an image unlike those inside: a shift folded over zero padding
wide      magnitudes from 1e-4 to 1e3 (float16: 1e-3 to 1e1): clipped and saturated branches
channels  every channel with its own scale and offset: channels exchanged or scaled wrongly
unit      in [0, 1): what images and probabilities look like, and never negative
constant  one value for each channel: only offsets and borders are left to differ
========  ==========================================================================================
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx

from bnfold.check.hints import Hint
from bnfold.check.model import Array

__all__ = ["draw_values", "is_float", "numpy_dtype"]

_WORDS = np.array(["", "a", "b", "bn", "fold", "The", "x y", "\u00e9"], dtype=object)
_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
_DEFAULT_BOUND = 8


def is_float(dtype: np.dtype[Any]) -> bool:
    """True for the floating-point types that can be drawn and moved by one ulp."""
    return dtype in _FLOATS


def numpy_dtype(elem_type: int) -> np.dtype[Any] | None:
    """The NumPy type of a ``TensorProto`` type that can be fed, else None."""
    if elem_type == onnx.TensorProto.STRING:
        return np.dtype(object)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        return None
    return dtype if is_float(dtype) or dtype.kind in "biu" else None


def draw_values(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], hint: Hint, rng: np.random.Generator
) -> Array:
    """Draw one input.

    Args:
        kind: A kind of the module's table, or ``ones``.
        shape: Any shape, zero-size dimensions included.
        dtype: A type of :func:`numpy_dtype`.
        hint: What the graph says about the input.
        rng: Where the numbers come from; the same state gives the same values.

    Returns:
        An array of that shape and type.
    """
    if kind == "ones" or hint.is_size:
        return _WORDS[np.ones(shape, int)] if dtype.kind == "O" else np.ones(shape, dtype)
    if dtype.kind == "O":
        return np.asarray(_WORDS[rng.integers(0, len(_WORDS), shape)], dtype=object)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), dtype=bool)
    if dtype.kind in "iu":
        return _integers(kind, shape, dtype, hint, rng)
    return np.asarray(_floats(kind, shape, dtype, rng), dtype=dtype)


def _integers(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], hint: Hint, rng: np.random.Generator
) -> Array:
    low, high = 0, _DEFAULT_BOUND
    if hint.bound is not None:
        high = max(hint.bound, 1)
    elif kind == "binary":
        high = 2
    elif dtype.itemsize == 1:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max) + 1
    elif hint.is_number:
        low, high = (0 if dtype.kind == "u" else -64), 64
    high = min(high, int(np.iinfo(dtype).max) + 1)
    values = rng.integers(low, high, () if kind == "constant" else shape)
    return np.full(shape, values, dtype)


def _floats(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator
) -> Array:
    if kind in {"unit", "binary"}:
        return rng.random(shape)
    if kind == "wide":
        low, high = (-3.0, 1.0) if dtype == np.float16 else (-4.0, 3.0)
        return rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(low, high, shape)
    # (N, C, 1, ..., 1): one value for each channel of each image; elements where there is no C.
    channels = shape[:2] + (1,) * (len(shape) - 2)
    if kind == "constant":
        return np.broadcast_to(2.0 * rng.standard_normal(channels), shape)
    values = rng.standard_normal(shape)
    if kind == "channels":
        offset = rng.standard_normal(channels)
        return values * 10.0 ** rng.uniform(-1.0, 1.0, channels) + 2.0 * offset
    if kind == "border" and len(shape) >= 3:
        edge = np.zeros(shape[2:], dtype=bool)
        for axis, size in enumerate(shape[2:]):
            if size:
                lines = np.moveaxis(edge, axis, 0)
                lines[0] = lines[-1] = True
        side = rng.choice([-2.0, 2.0], channels)
        return np.where(edge, 3.0 * values + side, values)
    return values
