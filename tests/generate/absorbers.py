"""Linear operators with weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.generate.builder import Builder, Dim, Shape, Tensor, static
from tests.generate.sites import broadcast

MAX_SIZE = 4096


def size(shape: Shape) -> int:
    return math.prod(max(dim.sizes) for dim in shape)


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def spatial(b: Builder, x: Tensor) -> bool:
    return 3 <= x.rank <= 5 and x.has(1) and all(min(d.sizes) > 0 for d in x.shape)


def conv(b: Builder, x: Tensor) -> Tensor | None:
    if not spatial(b, x):
        return None
    channels, axes = x.length(1), x.rank - 2
    groups = b.pick([1, 1, channels, b.pick(divisors(channels))])
    outputs = groups * b.small(1, 3)
    kernel = [b.pick([1, 1, 2, 3]) for _ in range(axes)]
    strides = [b.pick([1, 1, 2, 3]) for _ in range(axes)]
    dilations = [b.pick([1, 1, 1, 2]) for _ in range(axes)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = b.pick(["NOTSET"] * 6 + ["VALID", "SAME_UPPER", "SAME_LOWER"])
    if auto.startswith("SAME"):
        dilations, pads = [1] * axes, [0] * 2 * axes
        out = [d.map(lambda n, s=s: -(-n // s)) for d, s in zip(x.shape[2:], strides, strict=True)]
    else:
        padded = auto == "NOTSET" and b.chance(40)
        pads = [b.small(0, 2) if padded else 0 for _ in range(2 * axes)]
        out = []
        for i, dim in enumerate(x.shape[2:]):
            room = pads[i] + pads[axes + i] - reach[i]
            if min(dim.sizes) + room < 0:
                return None
            out.append(dim.map(lambda n, i=i, room=room: (n + room) // strides[i] + 1))
    weight = b.normal(outputs, channels // groups, *kernel)
    inputs: list[Tensor | str] = [x, b.constant(weight, hint="w")]
    if b.chance(50):
        inputs.append(b.constant(b.normal(outputs), hint="b"))
    elif b.chance(20):
        inputs.append("")
    attributes: dict[str, Any] = {
        "group": groups if groups > 1 or b.chance(30) else None,
        "strides": strides if any(s > 1 for s in strides) or b.chance(30) else None,
        "dilations": dilations if any(d > 1 for d in dilations) else None,
        "pads": pads if any(pads) or (auto == "NOTSET" and b.chance(30)) else None,
        "auto_pad": auto if auto != "NOTSET" or b.chance(20) else None,
        "kernel_shape": kernel if b.chance(70) else None,
    }
    return b.node("Conv", inputs, (x.shape[0], static(outputs), *out), **attributes)


def pointwise(b: Builder, x: Tensor) -> Tensor | None:
    """A convolution that keeps the shape."""
    if not spatial(b, x):
        return None
    channels = x.length(1)
    groups = b.pick([1, channels])
    weight = b.normal(channels, channels // groups, *(1,) * (x.rank - 2))
    inputs: list[Tensor | str] = [x, b.constant(weight, hint="w")]
    if b.chance(50):
        inputs.append(b.constant(b.normal(channels), hint="b"))
    return b.node("Conv", inputs, x.shape, group=groups)


def conv_transpose(b: Builder, x: Tensor) -> Tensor | None:
    if not spatial(b, x) or size(x.shape) > MAX_SIZE // 4:
        return None
    channels, axes = x.length(1), x.rank - 2
    groups = b.pick([1, channels, b.pick(divisors(channels))])
    outputs = groups * b.small(1, 3)
    plain = b.chance(40)
    kernel = [1 if plain else b.small(1, 3) for _ in range(axes)]
    strides = [1 if plain else b.small(1, 2) for _ in range(axes)]
    pads = [0] * 2 * axes
    if not plain and b.chance(30) and all(min(d.sizes) > 1 for d in x.shape[2:]):
        pads = [b.small(0, 1) if kernel[i % axes] > 1 else 0 for i in range(2 * axes)]
    extra = [b.small(0, s - 1) if s > 1 and b.chance(30) else 0 for s in strides]
    out: list[Dim] = []
    for i, dim in enumerate(x.shape[2:]):
        room = kernel[i] - pads[i] - pads[axes + i] + extra[i]
        out.append(dim.map(lambda n, i=i, room=room: (n - 1) * strides[i] + room))
    if any(min(d.sizes) < 1 for d in out):
        return None
    weight = b.normal(channels, outputs // groups, *kernel)
    inputs: list[Tensor | str] = [x, b.constant(weight, hint="w")]
    if b.chance(50):
        inputs.append(b.constant(b.normal(outputs), hint="b"))
    return b.node(
        "ConvTranspose", inputs, (x.shape[0], static(outputs), *out),
        group=groups if groups > 1 else None, strides=strides, kernel_shape=kernel,
        pads=pads if any(pads) else None, output_padding=extra if any(extra) else None,
    )  # fmt: skip


def gemm(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank != 2:
        return None
    left = b.chance(25)  # the constant is the left operand
    turned = b.chance(40)  # the data is transposed
    summed = (1 if turned else 0) if left else (0 if turned else 1)
    if not x.has(summed) or x.length(summed) == 0:
        return None
    inner, other, length = x.length(summed), x.shape[1 - summed], b.small(1, 5)
    flipped = b.chance(40)  # the weight is transposed
    rows = (length, inner) if left else (inner, length)
    weight = b.constant(b.normal(*(rows[::-1] if flipped else rows)), hint="w")
    shape = (static(length), other) if left else (other, static(length))
    operands: list[Tensor | str] = [weight, x] if left else [x, weight]
    third = _gemm_c(b, shape)
    if third is not None:
        operands.append(third)
    trans = (int(flipped), int(turned)) if left else (int(turned), int(flipped))
    return b.node(
        "Gemm", operands, shape,
        transA=trans[0] or None, transB=trans[1] or None,
        alpha=b.pick([None, 0.5, -2.0]), beta=b.pick([None, None, 0.0, 3.0]),
    )  # fmt: skip


def _gemm_c(b: Builder, shape: Shape) -> Tensor | str | None:
    rows, columns = (dim.length if dim.known else None for dim in shape)
    shapes: list[tuple[int | None, ...]] = [
        (), (1,), (1, 1), (columns,), (1, columns), (columns,), (rows, 1), (rows, columns),
    ]  # fmt: skip
    legal = [each for each in shapes if None not in each]
    if b.opset >= 11 and b.chance(25):
        return b.pick([None, ""])
    fitting = [t for t in b.pool if broadcast(shape, t.shape) == shape]
    if fitting and b.chance(20):
        return b.pick(fitting)  # type: ignore[no-any-return]
    return b.constant(b.normal(*b.pick(legal)), hint="b")


def matmul(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank < 2 or size(x.shape) > MAX_SIZE:
        return None
    left = b.chance(30)
    inner = x.shape[-2 if left else -1]
    if not inner.known or inner.length == 0:
        return None
    if b.chance(6):
        vector = b.constant(b.normal(inner.length), hint="w")
        rest = (*x.shape[:-2], x.shape[-1]) if left else x.shape[:-1]
        return b.node("MatMul", [vector, x] if left else [x, vector], rest)
    length = b.small(1, 5)
    rows = (length, inner.length) if left else (inner.length, length)
    batch = ()
    if b.chance(20):
        batch = tuple(d.length if d.known and b.chance(50) else 1 for d in x.shape[:-2])
    if b.chance(10) and x.rank == 2:
        batch = (b.small(1, 2),)
    weight = b.constant(b.normal(*batch, *rows), hint="w")
    leading = broadcast(x.shape[:-2], tuple(static(n) for n in batch))
    assert leading is not None
    new = static(length)
    shape = (*leading, new, x.shape[-1]) if left else (*leading, x.shape[-2], new)
    product = b.node("MatMul", [weight, x] if left else [x, weight], shape)
    return product if b.chance(40) else _bias(b, product, len(shape) - (2 if left else 1))


def _bias(b: Builder, x: Tensor, axis: int) -> Tensor:
    length = x.length(axis)
    shape = (length, *(1,) * (x.rank - 1 - axis))
    shape = (1,) * b.small(0, axis + (x.rank < 4 and b.chance(15))) + shape
    values = b.normal(*shape)
    if b.chance(10):
        values = np.zeros_like(values)
    bias = b.constant(values, hint="b")
    result = broadcast(x.shape, tuple(static(n) for n in shape))
    assert result is not None
    op = b.pick(["Add", "Add", "Add", "Sub"])
    return b.node(op, [bias, x] if b.chance(40) else [x, bias], result)


def flat(b: Builder, x: Tensor) -> Tensor | None:
    """Flatten and Gemm, the classifier."""
    if x.rank < 2 or not all(d.known for d in x.shape[1:]):
        return None
    width = static(math.prod(d.length for d in x.shape[1:]))
    return gemm(b, b.node("Flatten", [x], (x.shape[0], width)))


ABSORBERS = [*[conv] * 6, pointwise, pointwise, conv_transpose, gemm, gemm, matmul, matmul, flat]
