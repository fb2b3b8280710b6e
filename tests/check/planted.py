"""Faults planted into a network before it is folded, and folds that are correct."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import bnfold


@dataclass(frozen=True)
class Planted:
    """A network with one fault.

    Attributes:
        model: The whole network, one node of it wrong.
        where: Name of that node.
    """

    model: onnx.ModelProto
    where: str


def norms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def values(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def _put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = array.astype(numpy_helper.to_array(tensor).dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def live_channel(model: onnx.ModelProto, node: onnx.NodeProto, rng: np.random.Generator) -> int:
    """A channel that an activation does not always cut off: beta is not far below zero."""
    gamma, beta = (values(model, name).astype(float) for name in node.input[1:3])
    alive = np.flatnonzero((beta > -np.abs(gamma)) & (np.abs(gamma) > np.median(np.abs(gamma)) / 4))
    return int(rng.choice(alive))


def epsilon(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted:
    del rng
    model = copy.deepcopy(model)
    node = norms(model)[at]
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f = 0.0
    return Planted(model, node.name)


def mean(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted:
    model = copy.deepcopy(model)
    node = norms(model)[at]
    channel = live_channel(model, node, rng)
    moved, var = values(model, node.input[3]).copy(), values(model, node.input[4])
    moved[channel] += np.asarray(0.01 * np.sqrt(float(var[channel])), moved.dtype)
    _put(model, node.input[3], moved)
    return Planted(model, node.name)


def sign(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted:
    model = copy.deepcopy(model)
    node = norms(model)[at]
    gamma = values(model, node.input[1]).copy()
    gamma[live_channel(model, node, rng)] *= -1
    _put(model, node.input[1], gamma)
    return Planted(model, node.name)


def groups(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted | None:
    """Two groups of a grouped convolution exchanged; ``at`` counts the grouped ones."""
    model = copy.deepcopy(model)
    grouped = [
        (node, attribute.i)
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "group" and attribute.i > 1
    ]
    if not grouped:
        return None
    node, count = grouped[at % len(grouped)]
    weight = values(model, node.input[1])
    parts = weight.reshape(count, -1, *weight.shape[1:]).copy()
    first, second = rng.choice(count, 2, replace=False)
    parts[[first, second]] = parts[[second, first]]
    _put(model, node.input[1], parts.reshape(weight.shape))
    return Planted(model, node.name)


def border(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted | None:
    """A normalization folded forward through the zero padding of the convolution behind it."""
    del rng
    model = copy.deepcopy(model)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    pairs = [
        (node, users[node.output[0]][0])
        for node in norms(model)
        if [user.op_type for user in users[node.output[0]]] == ["Conv"]
        and values(model, users[node.output[0]][0].input[1]).shape[2] > 1
    ]
    if not pairs:
        return None
    node, conv = pairs[at % len(pairs)]
    parameters = [values(model, name).astype(np.float64) for name in node.input[1:]]
    scale = parameters[0] / np.sqrt(parameters[3] + 1e-5)
    shift = parameters[1] - parameters[2] * scale
    weight = values(model, conv.input[1]).astype(np.float64)
    shape = (1, -1, *(1,) * (weight.ndim - 2))
    _put(model, conv.input[1], weight * scale.reshape(shape))
    bias = (weight * shift.reshape(shape)).sum(axis=tuple(range(1, weight.ndim)))
    dtype = values(model, conv.input[1]).dtype
    model.graph.initializer.append(numpy_helper.from_array(bias.astype(dtype), "border_bias"))
    conv.input[:] = [node.input[0], conv.input[1], "border_bias"]
    model.graph.node.remove(node)
    return Planted(model, conv.name)


def negative(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted | None:
    """One Relu lets a thousandth of negative values through."""
    del rng
    model = copy.deepcopy(model)
    relus = [node for node in model.graph.node if node.op_type == "Relu"]
    if not relus:
        return None
    node = relus[at % len(relus)]
    node.op_type = "LeakyRelu"
    node.attribute.append(helper.make_attribute("alpha", 0.001))
    return Planted(model, node.name)


def batch(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted | None:
    """All rows of one normalization become the first row."""
    del rng
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        return None
    model = copy.deepcopy(model)
    node = norms(model)[at]
    name = node.output[0]
    node.output[0] = "right"
    position = list(model.graph.node).index(node) + 1
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "first_row"))
    added = [
        helper.make_node("Gather", ["right", "first_row"], ["one_row"], axis=0),
        helper.make_node("Shape", ["right"], ["right_shape"]),
        helper.make_node("Expand", ["one_row", "right_shape"], [name], name="planted"),
    ]
    for offset, extra in enumerate(added):
        model.graph.node.insert(position + offset, extra)
    return Planted(model, "planted")


def nan(model: onnx.ModelProto, at: int, rng: np.random.Generator) -> Planted:
    """One normalization gets the root of one channel: NaN where it is negative."""
    model = copy.deepcopy(model)
    node = norms(model)[at]
    gamma = values(model, node.input[1]).copy()
    gamma[live_channel(model, node, rng)] = np.nan
    _put(model, node.input[1], gamma)
    return Planted(model, node.name)


Bug = Callable[[onnx.ModelProto, int, np.random.Generator], Planted | None]

BUGS: dict[str, Bug] = {
    "epsilon": epsilon,
    "mean": mean,
    "sign": sign,
    "groups": groups,
    "border": border,
    "negative": negative,
    "batch": batch,
    "nan": nan,
}


def naive_fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold Conv -> BN in the arithmetic of the weights' own type, as a careless tool would.

    float16 weights are folded in float32, since float16 arithmetic would not be correct at all.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for node in norms(model):
        conv = made.get(node.input[0])
        if conv is None or conv.op_type != "Conv" or uses[node.input[0]] > 1 or len(conv.input) > 2:
            continue
        weight = values(model, conv.input[1])
        gamma, beta, mu, var = (values(model, n).astype(np.float32) for n in node.input[1:])
        if not np.isfinite(gamma).all():
            continue
        eps = np.float32(next(a.f for a in node.attribute if a.name == "epsilon"))
        scale = gamma / np.sqrt(var + eps)
        folded = weight.astype(np.float32) * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        _put(model, conv.input[1], folded)
        bias = (beta - mu * scale).astype(weight.dtype)
        graph.initializer.append(numpy_helper.from_array(bias, f"{conv.name}_bias"))
        conv.input.append(f"{conv.name}_bias")
        conv.output[0] = node.output[0]
        graph.node.remove(node)
    return model


def correct_folds(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the model as it was folded by every tool at hand."""
    yield "bnfold", bnfold.fold(model)
    yield "naive", naive_fold(model)
    yield "runtime", by_runtime(model)
    for name, attribute in (("onnxsim", "simplify"), ("onnxslim", "slim")):
        if importlib.util.find_spec(name):
            tool = getattr(importlib.import_module(name), attribute)
            made = tool(copy.deepcopy(model))
            yield name, made[0] if isinstance(made, tuple) else made


def by_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return what ONNX Runtime's basic optimizations make of the model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return onnx.load(path)
