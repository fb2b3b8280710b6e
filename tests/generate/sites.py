"""What should go: batch normalizations, and elementwise operators with constants."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.generate.builder import Builder, Dim, Shape, Tensor, static


def broadcast(left: Shape, right: Shape) -> Shape | None:
    """The shape of a broadcast result, or None where it is not certain."""
    rank = max(len(left), len(right))
    one = static(1)
    pairs = zip(
        (one,) * (rank - len(left)) + tuple(left),
        (one,) * (rank - len(right)) + tuple(right),
        strict=True,
    )
    result: list[Dim] = []
    for a, b in pairs:
        if a.sizes == b.sizes:
            result.append(a if a.known else b)
        elif all(size == 1 for size in a.sizes):
            result.append(b)
        elif all(size == 1 for size in b.sizes):
            result.append(a)
        else:
            return None
    return tuple(result)


def gamma(b: Builder, count: int) -> np.ndarray:
    values = b.normal(count) + np.sign(b.normal(count)) * 0.3
    match b.small(0, 6):
        case 0:
            return np.full(count, 0.7)
        case 1:
            return np.ones(count)
        case 2:
            return np.abs(values)
        case 3:
            values[b.small(0, count - 1)] = 0.0
        case 4:
            return -np.abs(values)
    return values


def batchnorm(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank < 2 or not x.has(1) or x.length(1) == 0:
        return None
    count = x.length(1)
    scale, var = gamma(b, count), np.abs(b.normal(count)) + 0.3
    beta, mean = b.normal(count), b.normal(count)
    if b.chance(30):
        beta, mean = beta * 0, mean * 0  # the shift is exactly zero
    elif b.chance(10):
        mean, scale = beta, np.ones(count)
        var = np.full(count, 0.75)
    epsilon = b.pick([None, None, 0.1, 0.25, 1e-3])
    training = 0 if b.opset >= 14 and b.chance(20) else None
    if b.chance(2):
        var[0] = -1.0  # what it computes is NaN
    if b.kind == TensorProto.FLOAT16 and b.chance(4):
        scale = np.clip(scale * 3e4, -6e4, 6e4)
    parameters: list[Tensor | str] = [
        b.constant(scale, hint="gamma"),
        b.constant(beta, hint="beta"),
        b.constant(mean, hint="mean"),
        b.constant(var, hint="var"),
    ]
    if b.chance(3) and not b.depth:
        parameters[b.small(0, 2)] = b.add_input((x.shape[1],))
    if b.kind == TensorProto.FLOAT and 14 <= b.opset < 18 and not b.depth and b.chance(4):
        return _of_the_batch(b, x, parameters, epsilon)
    return b.node(
        "BatchNormalization", [x, *parameters], x.shape, epsilon=epsilon, training_mode=training
    )


def _of_the_batch(
    b: Builder, x: Tensor, parameters: list[Tensor | str], epsilon: float | None
) -> Tensor:
    """A normalization in training mode, which takes its statistics from the data."""
    shapes = [x.shape, (x.shape[1],), (x.shape[1],)]
    return b.node("BatchNormalization", [x, *parameters], shapes, epsilon=epsilon, training_mode=1)


def twice(b: Builder, x: Tensor) -> Tensor | None:
    """Two batch normalizations of one tensor, or one after the other."""
    first = batchnorm(b, x)
    return first if first is None else batchnorm(b, x if b.chance(30) else first)


def of_constant(b: Builder, x: Tensor) -> Tensor | None:
    """A batch normalization of a constant, added to the data."""
    if x.rank < 2 or not x.has(1):
        return None
    shape = (static(1), x.shape[1], *(static(1),) * (x.rank - 2))
    name = b.constant(b.normal(*(dim.length for dim in shape)))
    normed = batchnorm(b, Tensor(name, shape, b.kind))
    if normed is None or b.chance(30):
        return normed
    return b.node(b.pick(["Add", "Sub"]), [x, normed], x.shape)


def operand_shape(b: Builder, x: Tensor) -> Shape | None:
    """The shape of a constant: per channel, one number, or something that only looks like that."""
    match b.small(0, 8):
        case 0 | 1 | 2 | 3 if x.rank > 1 and x.has(1):
            per_channel = (x.shape[1], *(static(1),) * (x.rank - 2))
            return (static(1), *per_channel) if b.chance(50) else per_channel
        case 4:
            return (static(1),) * b.small(0, x.rank)
        case 5 if x.rank and x.has(-1):
            return (x.shape[-1],)
        case 6:
            return tuple(d if d.known and b.chance(50) else static(1) for d in x.shape)
        case 7:
            ones = (static(1),) * b.small(1, 2)
            if x.rank > 3:
                return None
            return (*ones, *(d if d.known and b.chance(40) else static(1) for d in x.shape))
        case 8:
            return tuple(
                static(b.small(2, 3)) if d.known and d.length == 1 else static(1) for d in x.shape
            )
    return None


def with_constant(b: Builder, x: Tensor, op: str | None = None) -> Tensor | None:
    """Add, Sub, Mul or Div with a constant on either side; never constant / x here."""
    op = op or b.pick(["Add", "Sub", "Mul", "Div"])
    shape = operand_shape(b, x)
    result = None if shape is None else broadcast(x.shape, shape)
    if shape is None or result is None:
        return None
    values = b.normal(*(dim.length for dim in shape))
    if op in ("Mul", "Div"):
        values = values + np.where(values < 0, -0.4, 0.4)
    if b.chance(20):
        values = np.abs(values)
    constant = b.constant(values, hint="d" if op == "Div" else "k")
    swapped = op != "Div" and b.chance(40)
    return b.node(op, [constant, x] if swapped else [x, constant], result)


def negative(b: Builder, x: Tensor) -> Tensor:
    return b.node("Neg", [x], x.shape)


def scale_layer(b: Builder, x: Tensor) -> Tensor | None:
    """Caffe's batch normalization: BN -> Mul -> Add."""
    value: Tensor | None = batchnorm(b, x)
    for op in b.pick([["Mul", "Add"], ["Mul"], ["Div", "Sub"], ["Add"]]):
        value = None if value is None else with_constant(b, value, op)
    return value


def decomposed(b: Builder, x: Tensor) -> Tensor | None:
    """(x - mean) / sqrt(var + eps) * gamma + beta, in one of its orders."""
    if x.rank < 2 or not x.has(1):
        return None
    count = x.length(1)
    shape = (1, count, *(1,) * (x.rank - 2)) if b.chance(50) else (count, *(1,) * (x.rank - 2))

    def vector(values: np.ndarray, hint: str) -> str:
        return b.constant(values.reshape(shape), hint=hint)

    var = vector(np.abs(b.normal(count)) + 0.3, "var")
    dims = tuple(static(length) for length in shape)
    epsilon = b.constant(np.array(0.01), hint="epsilon", plain=True)
    kept = list(b.pool)
    deviation = b.node("Sqrt", [b.node("Add", [var, epsilon], dims)], dims)
    inverse = b.chance(50)
    if inverse:
        deviation = b.node("Reciprocal", [deviation], dims)
    b.pool[:] = kept  # what is constant is not data
    value = b.node("Sub", [x, vector(b.normal(count), "mean")], x.shape)
    value = b.node("Mul" if inverse else "Div", [value, deviation], x.shape)
    value = b.node("Mul", [vector(gamma(b, count), "gamma"), value], x.shape)
    return b.node("Add", [value, vector(b.normal(count), "beta")], x.shape)


def denominator(b: Builder, x: Tensor) -> Tensor:
    """Something computed that is far from zero: a small one would only blow rounding up."""
    gate = b.node("Sigmoid", [x], x.shape)
    return b.node("Add", [gate, b.constant(np.array(0.5), hint="o", plain=True)], x.shape)


def over(b: Builder, x: Tensor) -> Tensor | None:
    """Constant / x, which is not affine."""
    positive = denominator(b, x)
    shape = operand_shape(b, positive)
    result = None if shape is None else broadcast(positive.shape, shape)
    if shape is None or result is None:
        return positive
    constant = b.constant(b.normal(*(dim.length for dim in shape)))
    return b.node("Div", [constant, positive], result)


SITES = [
    *[batchnorm] * 8, twice, of_constant, *[with_constant] * 4, negative, scale_layer, decomposed,
]  # fmt: skip
