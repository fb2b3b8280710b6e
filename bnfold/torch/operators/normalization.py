"""Normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from bnfold.graph.index import Node
from bnfold.torch.operators.arguments import (
    Translate,
    arguments,
    integer,
    integers,
    length,
    rank,
    tensor,
)
from bnfold.torch.surrogate import KINDS, NotUnderstood, Surrogate, array_of
from bnfold.torch.trace import Call, Datum

__all__ = ["BATCH_NORMS", "OPERATORS"]

BATCH_NORMS = {
    "batch_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
    "_native_batch_norm_legit_no_training", "_batch_norm_impl_index",
}  # fmt: skip


def _batch_norm(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    source = tensor(given.get("input", given.get("self")))
    result = tensor(call.outputs[0])
    epsilon = given.get("eps", given.get("epsilon"))
    if not isinstance(epsilon, (int, float)) or rank(source) < 2:
        raise NotUnderstood
    no_training = call.op == "_native_batch_norm_legit_no_training"
    training = bool(given.get("training", given.get("train", False))) and not no_training
    channels = length(source, 1)
    node = graph.node("BatchNormalization", [graph.value(source)], [result])
    # an attribute of ONNX is a float32; epsilon is added to the variance in full precision
    node.attributes["epsilon"] = helper.make_attribute("epsilon", 0.0)
    if training:
        node.attributes["training_mode"] = helper.make_attribute("training_mode", 1)
    _per_channel(graph, node, 1, given["weight"], np.ones(channels), source)
    _per_channel(graph, node, 2, given["bias"], np.zeros(channels), source)
    _per_channel(graph, node, 3, given.get("running_mean"), np.zeros(channels), source)
    _variance(graph, node, given.get("running_var"), float(epsilon), channels)


def _per_channel(
    graph: Surrogate, node: Node, index: int, given: Any, absent: np.ndarray, like: Datum
) -> None:
    if given is None:
        kind = KINDS.get(like.dtype, TensorProto.FLOAT)
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        graph.graph.connect(node, index, graph.constant(absent.astype(dtype), kind))
    else:
        graph.parameter(node, index, tensor(given))


def _variance(graph: Surrogate, node: Node, given: Any, epsilon: float, channels: int) -> None:
    """Input 4: the variance with epsilon, in float64."""
    if given is None:
        graph.graph.connect(node, 4, graph.constant(np.ones(channels), TensorProto.FLOAT))
        return
    variance = tensor(given)
    values = None if variance.tensor is None else array_of(variance.tensor)
    if values is None:
        graph.graph.connect(node, 4, graph.value(variance))
        return
    widened = values.astype(np.float64) + epsilon
    graph.graph.connect(node, 4, graph.constant(widened, KINDS.get(variance.dtype, 0)))


def _own_affine(
    graph: Surrogate, call: Call, op: str, given: dict[str, Any], **attributes: Any
) -> None:
    """A per-sample normalization whose scale and bias are its own."""
    if given["weight"] is None or given["bias"] is None:
        raise NotUnderstood
    source = tensor(given["input"])
    node = graph.node(op, [graph.value(source)], [tensor(call.outputs[0])], **attributes)
    graph.parameter(node, 1, tensor(given["weight"]))
    graph.parameter(node, 2, tensor(given["bias"]))


def _group_norm(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    groups = integer(given["num_groups"])
    _own_affine(graph, call, "GroupNormalization", given, num_groups=groups)


def _instance_norm(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    if not given["use_input_stats"]:
        raise NotUnderstood
    _own_affine(graph, call, "InstanceNormalization", given)


def _layer_norm(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    axes = len(integers(given["normalized_shape"]))
    _own_affine(graph, call, "LayerNormalization", given, axis=-axes)


OPERATORS: dict[str, Translate] = {
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
}
