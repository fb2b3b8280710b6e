"""Activations, normalizations of samples, several computed tensors, and subgraphs."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.generate.absorbers import MAX_SIZE, divisors, pointwise, size, spatial
from tests.generate.bodies import BODIES
from tests.generate.builder import Builder, Tensor, static
from tests.generate.sites import batchnorm, broadcast, denominator, operand_shape, over


def activation(b: Builder, x: Tensor) -> Tensor:
    op = b.pick(["Relu", "Relu", "LeakyRelu", "Abs"])
    alpha = b.pick([None, 0.2, -0.3]) if op == "LeakyRelu" else None
    return b.node(op, [x], x.shape, alpha=alpha)


def prelu(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank < 2 or not x.has(1) or b.opset < 7:
        return None
    shape = b.pick([(1,), (x.length(1), *(1,) * (x.rank - 2))])
    return b.node("PRelu", [x, b.constant(b.normal(*shape), hint="a")], x.shape)


def clip(b: Builder, x: Tensor) -> Tensor:
    """Clip at both ends, at one, at none: with 0 it is a Relu."""
    low, high = b.pick([None, 0.0, 0.0, -1.0]), b.pick([None, None, 0.0, 6.0])
    if low == high == 0.0:
        high = None
    if b.opset < 11:
        return b.node("Clip", [x], x.shape, min=low, max=high)
    inputs: list[Tensor | str] = [x]
    inputs += [
        "" if bound is None else b.hold("o", np.array(bound, b.dtype)) for bound in (low, high)
    ]
    while inputs[-1] == "":
        inputs.pop()
    return b.node("Clip", inputs, x.shape)


def choose_constant(b: Builder, x: Tensor) -> Tensor | None:
    """Max, Min or Where with a constant, often zero."""
    shape = operand_shape(b, x)
    result = None if shape is None or b.opset < 9 else broadcast(x.shape, shape)
    if shape is None or result is None:
        return None
    values = b.normal(*(dim.length for dim in shape)) * b.pick([0.0, 0.0, 1.0])
    other = Tensor(b.constant(values, hint="z"), shape, b.kind)
    op = b.pick(["Max", "Min", "Where"])
    if op == "Where":
        return _where(b, *((x, other) if b.chance(50) else (other, x)))
    return b.node(op, [x, other] if b.chance(50) else [other, x], result)


def recurrent(b: Builder, x: Tensor) -> Tensor | None:
    """A recurrent layer that reads the sequence, with everything it may have."""
    if x.rank != 3 or not x.has(2) or b.kind not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return None
    if b.opset < 7 or any(0 in dim.sizes for dim in x.shape):
        return None
    op, gates = b.pick([("RNN", 1), ("GRU", 3), ("LSTM", 4)])
    hidden, features, ways = b.small(1, 3), x.length(2), b.small(1, 2)
    inputs: list[Tensor | str] = [
        x,
        b.constant(b.normal(ways, gates * hidden, features) * 0.5, hint="w"),
        b.constant(b.normal(ways, gates * hidden, hidden) * 0.5, hint="r"),
        b.constant(b.normal(ways, 2 * gates * hidden), hint="b") if b.chance(60) else "",
    ]
    if x.has(1) and b.chance(40):
        state = (ways, x.length(1), hidden)
        inputs += ["", b.constant(b.normal(*state), hint="h")]
        if op == "LSTM":
            inputs.append(b.constant(b.normal(*state), hint="h"))
    if op == "LSTM" and b.chance(30):
        inputs += [""] * (7 - len(inputs))
        inputs.append(b.constant(b.normal(ways, 3 * hidden), hint="p"))
    while inputs[-1] == "":
        inputs.pop()
    shape = (x.shape[0], static(ways), x.shape[1], static(hidden))
    direction = "bidirectional" if ways == 2 else b.pick([None, "reverse"])
    before = b.pick([None, 0, 1]) if op == "GRU" else None
    clip = 3.0 if b.chance(15) else None
    return b.node(
        op, inputs, shape, hidden_size=hidden, direction=direction, linear_before_reset=before,
        clip=clip,
    )  # fmt: skip


def parts(b: Builder, x: Tensor) -> Tensor | None:
    """Slices of one tensor that go different ways and meet again, as in ShuffleNet."""
    if x.rank < 2 or not x.has(1) or x.length(1) < 2 or b.opset < 10:
        return None
    middle = b.small(1, x.length(1) - 1)
    pieces: list[Tensor] = []
    for start, end in ((0, middle), (middle, x.length(1))):
        shape = (x.shape[0], static(end - start), *x.shape[2:])
        bounds = [b.integers([start]), b.integers([end]), b.integers([1])]
        piece = b.node("Slice", [x, *bounds], shape)
        for _ in range(b.small(0, 2)):
            step = b.pick([pointwise, batchnorm, activation])(b, piece)
            piece = step if step is not None and step.shape == piece.shape else piece
        pieces.append(piece)
    return b.node("Concat", pieces, x.shape, axis=1)


def wall(b: Builder, x: Tensor) -> Tensor | None:
    """Nothing passes here."""
    if b.chance(20):
        return over(b, x)
    if b.chance(8) and b.kind == TensorProto.FLOAT and not b.depth:
        return b.node("QuickGelu", [x], x.shape, domain="com.microsoft")
    op = b.pick(["Sigmoid", "Tanh", "Softmax"])
    if op == "Softmax" and x.rank < 1:
        return None
    axis = x.rank - 1 if op == "Softmax" else None
    return b.node(op, [x], x.shape, axis=axis)


def per_sample(b: Builder, x: Tensor) -> Tensor | None:
    """InstanceNormalization, GroupNormalization, LayerNormalization."""
    if not spatial(b, x) or b.kind not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return None
    count = x.length(1)
    if b.chance(40) or b.opset < 17:
        given = [b.constant(b.normal(count), hint="g"), b.constant(b.normal(count), hint="b")]
        return b.node("InstanceNormalization", [x, *given], x.shape, epsilon=0.1)
    if b.opset >= 21 and b.chance(40):
        given = [b.constant(b.normal(count), hint="g"), b.constant(b.normal(count), hint="b")]
        return b.node(
            "GroupNormalization",
            [x, *given],
            x.shape,
            epsilon=0.1,
            num_groups=b.pick(divisors(count)),
        )
    axis = b.small(1, x.rank - 1)
    dims = x.shape[axis:]
    if not all(d.known for d in dims):
        return None
    shape = [d.length for d in dims]
    inputs: list[Tensor | str] = [x, b.constant(b.normal(*shape), hint="g")]
    if b.chance(60):
        inputs.append(b.constant(b.normal(*shape), hint="b"))
    return b.node("LayerNormalization", inputs, x.shape, axis=axis - x.rank, epsilon=0.1)


def partner(b: Builder, x: Tensor) -> Tensor:
    """Another tensor that broadcasts against x: an old one, a branch of x, x itself."""
    fitting = [y for y in b.pool if broadcast(x.shape, y.shape) is not None]
    match b.small(0, 4):
        case 0:
            found = pointwise(b, x)
        case 1:
            found = batchnorm(b, x)
        case 2 if spatial(b, x):
            ones = (static(1),) * (x.rank - 2)
            found = b.node("GlobalAveragePool", [x], (*x.shape[:2], *ones))
            found = pointwise(b, found) or found
        case 3 if b.chance(30):
            found = x
        case _:
            found = None
    return found or b.pick(fitting)


def combine(b: Builder, x: Tensor) -> Tensor | None:
    """Two computed tensors."""
    op = b.pick(["Add", "Add", "Add", "Sub", "Mul", "Sum", "Max", "Min", "Where", "Div"])
    y = partner(b, x)
    if op in ("Mul", "Div") and (op == "Div" or b.chance(60)):
        y = denominator(b, y)  # a gate
    shape = broadcast(x.shape, y.shape)
    if shape is None or size(shape) > MAX_SIZE:
        return None
    if op in ("Sum", "Max", "Min") and b.opset < 8:
        op = "Add"
    if op == "Where":
        return _where(b, x, y) if b.opset >= 9 else None
    pair = [x, y] if op == "Div" or b.chance(60) else [y, x]
    if op == "Sum" and b.chance(30):
        pair.append(x)
    return b.node(op, pair, shape)


def _where(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    if b.chance(50):
        mask = b.add_input(shape, TensorProto.BOOL, whole=True)
        return b.node("Where", [mask, x, y], shape)
    name = b.fresh("c")
    dims = [d.length if d.known and b.chance(50) else 1 for d in shape]
    mask = (b.normal(*dims) > 0).tobytes()
    b.initializers.append(helper.make_tensor(name, TensorProto.BOOL, dims, mask, raw=True))
    return b.node("Where", [name, x, y], shape)


MIXING = [
    *[combine] * 6, *[activation] * 3, clip, choose_constant, prelu, per_sample, recurrent, parts,
    wall, *BODIES,
]  # fmt: skip
