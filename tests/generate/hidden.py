"""Constants behind expressions: how exporters and quantizers hide the numbers of a weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from tests.generate.builder import Builder

__all__ = ["WAYS"]

Way = Callable[["Builder", np.ndarray, str], "str | None"]


def identity(b: Builder, values: np.ndarray, hint: str) -> str | None:
    return _node(b, "Identity", [b.hold("h", values)], hint)


def transpose(b: Builder, values: np.ndarray, hint: str) -> str | None:
    if not values.ndim:
        return None
    perm = list(range(values.ndim))
    b.rng.shuffle(perm)
    back = [int(axis) for axis in np.argsort(perm)]
    return _node(b, "Transpose", [b.hold("h", values.transpose(perm))], hint, perm=back)


def reshape(b: Builder, values: np.ndarray, hint: str) -> str | None:
    shape = b.integers(list(values.shape))
    return _node(b, "Reshape", [b.hold("h", values.reshape(-1)), shape], hint)


def uniform(b: Builder, values: np.ndarray, hint: str) -> str | None:
    """One number, repeated."""
    if b.opset < 9 or hint[0] not in "wb" or not values.ndim or b.depth:
        return None
    number = values.reshape(-1)[:1]
    shape = b.integers(list(values.shape))
    if b.chance(40):
        return _node(b, "Expand", [b.hold("h", number), shape], hint)
    value = helper.make_tensor("", b.kind, [1], number.tobytes(), raw=True)
    return _node(b, "ConstantOfShape", [shape], hint, value=value)


def cast(b: Builder, values: np.ndarray, hint: str) -> str | None:
    """Stored in another type; in a narrower one it has lost bits."""
    if b.opset < 9 or b.kind == TensorProto.BFLOAT16:
        return None
    stored = b.pick([np.float16, np.float32, np.float64])
    return _node(b, "Cast", [b.hold("h", values.astype(stored))], hint, to=b.kind)


def arithmetic(b: Builder, values: np.ndarray, hint: str) -> str | None:
    """A sum or product of constants."""
    if b.opset < 7:
        return None
    op = b.pick(["Add", "Sub", "Mul", "Div"])
    other = np.array(b.pick([0.5, 2.0, -1.5]), values.dtype)
    operands = [b.hold("h", values), b.hold("h", other)]
    if op == "Div" and (np.abs(values.astype(np.float64)) > 100).any():
        return None
    return _node(b, op, operands, hint)


def joined(b: Builder, values: np.ndarray, hint: str) -> str | None:
    """Two pieces, or a piece of something larger."""
    if b.opset < 10 or not values.ndim or values.shape[0] < 2:
        return None
    if b.chance(50):
        parts = [b.hold("h", part) for part in (values[:1], values[1:])]
        return _node(b, "Concat", parts, hint, axis=0)
    larger = np.concatenate([values, values[:1] * 3])
    bounds = [b.integers([0]), b.integers([values.shape[0]])]
    return _node(b, "Slice", [b.hold("h", larger), *bounds], hint)


def quantized(b: Builder, values: np.ndarray, hint: str) -> str | None:
    """Integers with scales and zero points: for all, along an axis, in blocks."""
    if b.kind != TensorProto.FLOAT or b.opset < 10 or hint[0] not in "wb" or not values.ndim:
        return None
    kinds = [TensorProto.INT8, TensorProto.UINT8]
    kinds += [TensorProto.INT4, TensorProto.UINT4] if b.opset >= 21 else []
    kind = TensorProto.INT32 if hint[0] == "b" else b.pick(kinds)
    axis = b.small(0, values.ndim - 1) if b.opset >= 13 and b.chance(60) else None
    length = 1 if axis is None else values.shape[axis]
    shape: tuple[int, ...] = b.pick([(), (1,)]) if axis is None else (length,)
    attributes = {} if axis is None else {"axis": b.pick([axis, axis - values.ndim])}
    if b.opset >= 21 and axis is not None and kind != TensorProto.INT32 and b.chance(20):
        shape = (*values.shape[:axis], -(-length // 2), *values.shape[axis + 1 :])
        attributes["block_size"] = 2
    scale = np.abs(b.normal(*shape)) * 0.02 + 0.01
    low, high = {2: (0, 255), 3: (-127, 127), 6: (-999, 999), 21: (0, 15), 22: (-7, 7)}[kind]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    integers = np.clip(np.round(values.astype(np.float64) * (high - low) / 6), low, high)
    if low == 0:
        integers = np.clip(integers + high // 2, 0, high)
    inputs = [b.hold("q", integers.astype(dtype)), b.hold("s", scale.astype(np.float32))]
    if kind == TensorProto.INT32:
        return _node(b, "DequantizeLinear", inputs, hint, **attributes)
    if b.chance(70):
        middle = high // 2 if low == 0 else b.small(-1, 1)
        inputs.append(b.hold("z", np.full(shape, middle).astype(dtype)))
    return _node(b, "DequantizeLinear", inputs, hint, **attributes)


def _node(b: Builder, op: str, inputs: list[str], hint: str, **attributes: object) -> str:
    name = b.fresh(hint)
    b.append(op, inputs, [name], **attributes)
    return name


WAYS: list[Way] = [
    identity, transpose, transpose, reshape, reshape, uniform, cast, arithmetic, joined,
    quantized, quantized,
]  # fmt: skip
