"""Pairs of models for the tests of the check: small networks, folded by hand in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUMPY = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


def text(graph: str, *, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{graph}')


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@dataclass(frozen=True)
class Layer:
    """conv(w, groups) -> BN(gamma, beta, mean, var): all in the storage type."""

    w: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    groups: int = 1
    eps: float = float(np.float32(1e-5))  # as the attribute holds it

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """The weight and bias without the BN: computed in float64, rounded once."""
        gamma, beta, mean, var = (
            v.astype(np.float64) for v in (self.gamma, self.beta, self.mean, self.var)
        )
        scale = gamma / np.sqrt(var + self.eps)
        weight = self.w.astype(np.float64) * scale[:, None, None, None]
        return weight.astype(self.w.dtype), ((-mean) * scale + beta).astype(self.w.dtype)


def layers(
    depth: int,
    *,
    seed: int = 0,
    channels: int = 8,
    dtype: int = TensorProto.FLOAT,
    groups: int = 1,
    gain: float = 1.0,
    constant: bool = False,
) -> list[Layer]:
    rng = np.random.default_rng(seed)
    numpy_type = NUMPY[dtype]
    stack, before = [], 3
    for index in range(depth):
        used = groups if index else 1
        fan = before // used * 9
        values = [
            rng.normal(size=(channels, before // used, 3, 3)) * math.sqrt(2 / fan),
            rng.uniform(0.5, 1.5, channels) * (gain if index else 1.0),
            rng.normal(size=channels) * 0.2,
            rng.normal(size=channels) * 0.3,
            10 ** rng.uniform(-1, 0.5, channels),
        ]
        if constant:
            values = [np.full(v.shape, v.flat[0]) for v in values]
            values[0] = np.full(values[0].shape, 1.7 / fan)
        stack.append(Layer(*(v.astype(numpy_type) for v in values), groups=used))
        before = channels
    return stack


def network(
    stack: Sequence[Layer],
    *,
    folded: bool,
    residual: bool = False,
    pooled: bool = False,
    size: int = 12,
) -> onnx.ModelProto:
    dtype = next(key for key, value in NUMPY.items() if value == stack[0].w.dtype)
    nodes, weights, value = [], {}, "x"
    for i, layer in enumerate(stack):
        inputs = [value, f"w{i}"]
        if folded:
            weights[f"w{i}"], weights[f"c{i}"] = layer.fold()
            inputs.append(f"c{i}")
        else:
            weights[f"w{i}"] = layer.w
            for name in ("gamma", "beta", "mean", "var"):
                weights[f"{name}{i}"] = getattr(layer, name)
        after = f"n{i}" if folded else f"conv{i}"
        nodes.append(helper.make_node("Conv", inputs, [after], pads=[1] * 4, group=layer.groups))
        if not folded:
            names = [after, *(f"{name}{i}" for name in ("gamma", "beta", "mean", "var"))]
            node = helper.make_node("BatchNormalization", names, [f"n{i}"], epsilon=layer.eps)
            nodes.append(node)
        total = f"n{i}"
        if residual and i:
            nodes.append(helper.make_node("Add", [f"n{i}", value], [f"sum{i}"]))
            total = f"sum{i}"
        nodes.append(helper.make_node("Relu", [total], [f"r{i}"]))
        value = f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool" if pooled else "Identity", [value], ["y"]))
    return model(
        nodes,
        [helper.make_tensor_value_info("x", dtype, ["N", 3, size, size])],
        [helper.make_tensor_value_info("y", dtype, ["N", len(stack[-1].gamma), None, None])],
        weights,
        opset=22,
    )


def _eps(layer: Layer) -> Layer:
    return replace(layer, eps=0.0)


def _mean(layer: Layer) -> Layer:
    mean = layer.mean.copy()
    mean[3] += (0.01 * np.sqrt(layer.var[3].astype(np.float64))).astype(mean.dtype)
    return replace(layer, mean=mean)


def _sign(layer: Layer) -> Layer:
    gamma = layer.gamma.copy()
    gamma[2] = -gamma[2]
    return replace(layer, gamma=gamma)


def _swap(layer: Layer) -> Layer:
    return replace(layer, w=np.roll(layer.w, len(layer.w) // 2, axis=0))


BUGS: dict[str, Callable[[Layer], Layer]] = {
    "epsilon-dropped": _eps,
    "mean-off": _mean,
    "sign": _sign,
    "groups-swapped": _swap,
}


def planted(stack: Sequence[Layer], bug: str, at: int) -> list[Layer]:
    """The stack with a bug in one layer."""
    return [BUGS[bug](layer) if i == at else layer for i, layer in enumerate(stack)]
