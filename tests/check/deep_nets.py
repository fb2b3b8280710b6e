"""Random deep networks whose statistics are their own: activations neither explode nor die.

A :class:`Builder` computes every value while it adds its node, on a few calibration images, so
that each BatchNormalization gets the mean and variance that it would have learned.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.check.exact.operators import fast_operators

OPSET = 17


@dataclass(frozen=True)
class Style:
    """How parameters are drawn.

    Attributes:
        wide: Variances from 1e-4 to 10 and gammas over two decades; else all near one.
        half: float16 model.
        fixed: Batch size one, written into the model; else symbolic.
    """

    wide: bool = False
    half: bool = False
    fixed: bool = False


class Builder:
    """Adds nodes and computes them."""

    def __init__(self, shape: tuple[int, ...], style: Style, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.style = style
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.values: dict[str, np.ndarray] = {"x": self.rng.normal(size=shape)}
        self.shape = shape

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [f"{name}_y"], name=name, **attributes)
        self.nodes.append(node)
        evaluator = ReferenceEvaluator(
            helper.make_model(
                helper.make_graph(
                    [node],
                    "g",
                    [
                        helper.make_tensor_value_info(i, TensorProto.DOUBLE, None)
                        for i in dict.fromkeys(inputs)
                    ],
                    [helper.make_tensor_value_info(f"{name}_y", TensorProto.DOUBLE, None)],
                ),
                opset_imports=[helper.make_opsetid("", OPSET)],
            ),
            new_ops=list(fast_operators()),
        )
        known = self.values | self.weights
        feed = {
            i: known[i].astype(np.float64) if known[i].dtype.kind == "f" else known[i]
            for i in inputs
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (self.values[f"{name}_y"],) = evaluator.run(None, feed)
        return f"{name}_y"

    def weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        if values.dtype.kind == "f":
            values = values.astype(np.float16 if self.style.half else np.float32)
        self.weights[name] = np.asarray(values)
        return name

    def channels(self, value: str) -> int:
        return self.values[value].shape[1]

    def conv(
        self, x: str, out: int, k: int = 3, *, stride: int = 1, groups: int = 1, **more: Any
    ) -> str:
        rank = self.values[x].ndim - 2
        width = self.channels(x) // groups
        w = self.rng.normal(size=(out, width, *[k] * rank)) * math.sqrt(2 / (width * k**rank))
        if self.style.wide:
            spread = 10 ** self.rng.uniform(-2, 0.5, (out, *[1] * (rank + 1)))
            w = w * (np.maximum(spread, 0.1) if self.style.half else spread)
        attributes = {"strides": [stride] * rank, "pads": [k // 2] * (2 * rank), "group": groups}
        return self.add("Conv", x, self.weight(w), *more.pop("bias", ()), **(attributes | more))

    def transposed(self, x: str, out: int, k: int = 4, stride: int = 2) -> str:
        rank = self.values[x].ndim - 2
        width = self.channels(x)
        w = self.rng.normal(size=(width, out, *[k] * rank)) * math.sqrt(
            2 * stride**rank / (width * k**rank)
        )
        pads = [(k - stride) // 2] * (2 * rank)
        return self.add("ConvTranspose", x, self.weight(w), strides=[stride] * rank, pads=pads)

    def bn(self, x: str, gain: float = 1.0) -> str:
        value = self.values[x]
        axes = (0, *range(2, value.ndim))
        count = value.shape[1]
        mean, var = value.mean(axes), value.var(axes)
        # A running average is never quite that of the data.
        mean = mean + 0.1 * np.sqrt(var) * self.rng.normal(size=count)
        var = np.maximum(var * self.rng.uniform(0.7, 1.4, count), 1e-5)
        gamma = self.rng.uniform(0.5, 1.5, count) * gain
        if self.style.wide:
            gamma *= 10 ** self.rng.uniform(-1, 0.2, count) * self.rng.choice([1, 1, 1, -1], count)
        beta = 0.3 * self.rng.normal(size=count) * gain
        names = [self.weight(v) for v in (gamma, beta, mean, var)]
        return self.add("BatchNormalization", x, *names, epsilon=1e-5)

    def cbr(self, x: str, out: int, k: int = 3, act: str = "Relu", **options: Any) -> str:
        y = self.bn(self.conv(x, out, k, **options))
        return self.activate(y, act)

    def activate(self, y: str, act: str) -> str:
        if act == "Relu6":
            return self.add("Clip", y, self.weight(np.array(0.0)), self.weight(np.array(6.0)))
        if act == "Silu":
            return self.add("Mul", y, self.add("Sigmoid", y))
        return self.add(act, y) if act else y

    def dense(self, x: str, out: int, *, bias: bool = True) -> str:
        width = self.values[x].shape[1]
        w = self.weight(self.rng.normal(size=(out, width)) / math.sqrt(width))
        b = [self.weight(self.rng.normal(size=out) * 0.1)] if bias else []
        return self.add("Gemm", x, w, *b, transB=1)

    def head(self, x: str, classes: int = 40) -> str:
        return self.dense(self.add("Flatten", self.add("GlobalAveragePool", x)), classes)

    def model(self, *outputs: str) -> onnx.ModelProto:
        kind = TensorProto.FLOAT16 if self.style.half else TensorProto.FLOAT
        batch: int | str = 1 if self.style.fixed else "N"
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, [batch, *self.shape[1:]])],
            [
                helper.make_tensor_value_info(
                    name, kind, [batch, *[None] * (self.values[name].ndim - 1)]
                )
                for name in outputs
            ],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )


Net = Callable[[Style, int], onnx.ModelProto]


def resnet(blocks: tuple[int, ...], *, width: int = 8, size: int = 32, grouped: int = 1) -> Net:
    """Bottleneck residual network: 3 * sum(blocks) + 1 + len(blocks) batch normalizations."""

    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 3, size, size), style, seed)
        y = b.cbr("x", width, 7, stride=2)
        y = b.add("MaxPool", y, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                z = b.cbr(y, inner, 1)
                z = b.cbr(z, inner, 3, stride=stride, groups=grouped)
                z = b.bn(b.conv(z, 4 * inner, 1), gain=0.5)
                if not block:
                    y = b.bn(b.conv(y, 4 * inner, 1, stride=stride))
                y = b.add("Relu", b.add("Add", z, y))
        return b.model(b.head(y))

    return build


def preactivation(depth: int, *, width: int = 24) -> Net:
    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 3, 24, 24), style, seed)
        y = b.conv(b.bn("x"), width)
        for block in range(depth // 2):
            stride = 2 if block in {depth // 6, depth // 3} else 1
            z = b.conv(b.add("Relu", b.bn(y)), width, stride=stride)
            z = b.conv(b.add("Relu", b.bn(z, gain=0.7)), width)
            if stride == 2:
                y = b.conv(y, width, 1, stride=2)
            y = b.add("Add", y, z)
        return b.model(b.head(b.add("Relu", b.bn(y))))

    return build


def mobilenet(blocks: int, *, act: str = "Relu6") -> Net:
    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 3, 40, 40), style, seed)
        y = b.cbr("x", 16, 3, act, stride=2)
        for block in range(blocks):
            out = min(16 + 8 * (block // 2), 64)
            stride = 2 if block in {2, 6} else 1
            wide = 4 * b.channels(y)
            z = b.cbr(y, wide, 1, act)
            z = b.cbr(z, wide, 3, act, stride=stride, groups=wide)
            if block % 3 == 2:
                gate = b.add("GlobalAveragePool", z)
                gate = b.add("Sigmoid", b.conv(b.add("Relu", b.conv(gate, 8, 1)), wide, 1))
                z = b.add("Mul", z, gate)
            z = b.bn(b.conv(z, out, 1), gain=0.6)
            y = b.add("Add", y, z) if stride == 1 and out == b.channels(y) else z
        return b.model(b.head(b.cbr(y, 128, 1, act)))

    return build


def densenet(layers: int, growth: int = 8) -> Net:
    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 3, 24, 24), style, seed)
        y = b.cbr("x", 16)
        for layer in range(layers):
            z = b.conv(b.add("Relu", b.bn(y)), 2 * growth, 1)
            z = b.conv(b.add("Relu", b.bn(z)), growth)
            y = b.add("Concat", y, z, axis=1)
            if layer in {layers // 3, 2 * layers // 3}:
                y = b.conv(b.add("Relu", b.bn(y)), b.channels(y) // 2, 1)
                y = b.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
        return b.model(b.head(b.add("Relu", b.bn(y))))

    return build


def vgg(depth: int, *, act: str = "Relu", after: bool = False) -> Net:
    """A plain stack; ``after`` puts the normalization behind the activation, before the next."""

    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 3, 24, 24), style, seed)
        y = "x"
        for layer in range(depth):
            out = (16, 32, 48)[3 * layer // depth]
            y = b.bn(b.activate(b.conv(y, out), act)) if after else b.cbr(y, out, 3, act)
            if layer in {depth // 3, 2 * depth // 3}:
                y = b.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
        y = b.add("Flatten", b.add("GlobalAveragePool", y))
        y = b.add("Relu", b.bn(b.dense(y, 64, bias=False)))
        return b.model(b.add("Softmax", b.dense(y, 40), axis=1))

    return build


def transformer(blocks: int) -> Net:
    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 3, 32, 32), style, seed)
        y = b.cbr(b.cbr("x", 16, 3, "Silu", stride=2), 32, 3, "Silu", stride=2)
        y = b.cbr(y, 32, 3, "Silu", stride=2)
        for _ in range(blocks):
            z = b.cbr(y, 32, 3, "Silu", groups=32)
            y = b.add("Add", y, b.bn(b.conv(z, 32, 1), gain=0.5))
            rows = b.add("Reshape", y, b.weight(np.array([0, 32, 16])))
            q, k, v = (
                b.add("Reshape", b.conv(y, 32, 1), b.weight(np.array([0, 32, 16])))
                for _ in range(3)
            )
            scores = b.add("MatMul", b.add("Transpose", q, perm=[0, 2, 1]), k)
            scores = b.add("Mul", scores, b.weight(np.array(32**-0.5)))
            mixed = b.add("MatMul", v, b.add("Softmax", scores, axis=-1))
            rows = b.add("Add", rows, mixed)
            y = b.bn(b.add("Reshape", rows, b.weight(np.array([0, 32, 4, 4]))))
        return b.model(b.head(y))

    return build


def generator(depth: int) -> Net:
    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 32, 2, 2), style, seed)
        y = b.cbr("x", 32, 3)
        for layer in range(depth):
            if layer < 4:
                y = b.add("Relu", b.bn(b.transposed(y, max(32 - 4 * layer, 12))))
            z = b.cbr(y, b.channels(y), 3, "LeakyRelu")
            y = b.add("Add", y, b.bn(b.conv(z, b.channels(y), 3), gain=0.5))
        return b.model(b.add("Tanh", b.conv(y, 3)))

    return build


def sequence(depth: int) -> Net:
    """One-dimensional, dilated, two outputs."""

    def build(style: Style, seed: int) -> onnx.ModelProto:
        b = Builder((8, 8, 64), style, seed)
        y = b.cbr("x", 32, 5)
        for layer in range(depth):
            d = 2 ** (layer % 4)
            z = b.cbr(y, 32, 3, dilations=[d], pads=[d, d], groups=4 if layer % 3 else 1)
            y = b.add("Add", y, b.bn(b.conv(z, 32, 1), gain=0.5))
        return b.model(b.conv(y, 5, 1), b.head(y, 12))

    return build


NETS: dict[str, Net] = {
    "resnet50": resnet((3, 4, 6, 3)),
    "resnext50": resnet((3, 4, 6, 3), grouped=4),
    "resnet152": resnet((3, 8, 36, 3)),
    "resnet50-wide": resnet((3, 4, 6, 3), width=32, size=48),
    "preact20": preactivation(20),
    "preact50": preactivation(50),
    "mobilenet": mobilenet(12),
    "mobilenet-hardswish": mobilenet(12, act="HardSwish"),
    "densenet": densenet(24),
    "vgg16": vgg(16),
    "vgg30": vgg(30),
    "vgg50": vgg(50),
    "vgg16-after": vgg(16, after=True),
    "vgg16-elu-after": vgg(16, act="Elu", after=True),
    "transformer": transformer(6),
    "generator": generator(8),
    "sequence": sequence(16),
}
