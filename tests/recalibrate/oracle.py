"""Statistics by another road: a few operators in NumPy, in float64, no code of bnfold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


def statistics(
    model: onnx.ModelProto, batches: Iterable[Mapping[str, Array]]
) -> dict[str, tuple[Array, Array]]:
    """Mean and population variance in front of every BatchNormalization, by name of its mean.

    All values are kept and reduced at the end in two passes; every batch is normalized by its own
    statistics.
    """
    seen: dict[str, list[Array]] = {}
    for batch in batches:
        values: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
            for tensor in model.graph.initializer
        }
        values |= {name: value.astype(np.float64) for name, value in batch.items()}
        for node in model.graph.node:
            inputs = [values[name] for name in node.input]
            if node.op_type == "BatchNormalization":
                flat = np.moveaxis(inputs[0], 1, 0).reshape(inputs[0].shape[1], -1)
                seen.setdefault(node.input[3], []).append(flat)
            values[node.output[0]] = _run(node, inputs)
    result = {}
    for name, parts in seen.items():
        whole = np.concatenate(parts, axis=1)
        mean = whole.mean(axis=1)
        result[name] = mean, np.square(whole - mean[:, None]).mean(axis=1)
    return result


def _run(node: onnx.NodeProto, inputs: Sequence[Array]) -> Array:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    match node.op_type:
        case "BatchNormalization":
            return _normalize(inputs, attributes.get("epsilon", 1e-5))
        case "Conv":
            return _convolve(inputs, attributes)
        case "Relu":
            return np.maximum(inputs[0], 0)
        case "Add":
            return inputs[0] + inputs[1]
        case "Gemm":
            weight = inputs[1].T if attributes.get("transB") else inputs[1]
            return inputs[0] @ weight + inputs[2]
        case "Flatten":
            return inputs[0].reshape(len(inputs[0]), -1)
        case other:
            raise NotImplementedError(other)


def _normalize(inputs: Sequence[Array], epsilon: float) -> Array:
    x, gamma, beta = inputs[:3]
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    result: Array = (x - mean) / np.sqrt(var + epsilon) * gamma.reshape(shape) + beta.reshape(shape)
    return result


def _convolve(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    """Any number of axes, groups, zero padding, stride 1."""
    x, weight = inputs[:2]
    rank = x.ndim - 2
    pads = attributes.get("pads", [0] * 2 * rank)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    groups = attributes.get("group", 1)
    windows = np.lib.stride_tricks.sliding_window_view(
        x, weight.shape[2:], axis=tuple(range(2, x.ndim))
    )
    width, filters = x.shape[1] // groups, len(weight) // groups
    axes = tuple(range(2 + rank, 2 + 2 * rank))
    parts = [
        np.tensordot(
            windows[:, g * width : (g + 1) * width],
            weight[g * filters : (g + 1) * filters],
            axes=((1, *axes), (1, *range(2, 2 + rank))),
        )
        for g in range(groups)
    ]
    result = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
    return result + inputs[2].reshape(1, -1, *(1,) * rank) if len(inputs) > 2 else result
