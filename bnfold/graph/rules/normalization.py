"""Normalizations: their own scale and bias take an affine on the output.

Per-sample ones (Instance, Group, Layer) undo what their input is multiplied with, up to epsilon, so
nothing is exact on that side. A BatchNormalization at inference is an affine itself and takes one
on both sides; that is how what stays of a chain ends in one node.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Affine, Float64
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Edit, Refusal, Rule, Step
from bnfold.graph.rules.batchnorm import read_batchnorm
from bnfold.graph.rules.parameters import (
    not_per_channel,
    read_weight,
    store_bias,
    store_scale,
    vectors,
)
from bnfold.report import Reason

__all__ = ["RULES"]


def _batchnorm_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    """Gamma *= s, beta = s*beta + t; mean and variance stay as they are."""
    norm = read_batchnorm(node, facts)
    if isinstance(norm, Refusal):
        return norm
    affine = vectors(demands[0], 1, norm.channels, node)
    if isinstance(affine, Refusal):
        return affine
    return _store(node, 1, 2, norm.gamma * affine.scale, affine.apply(norm.beta), norm.kind)


def _batchnorm_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    """((x - c) s + d - mean) g + beta = (x - c) s g + (beta + (d - mean) g)."""
    norm = read_batchnorm(node, facts)
    if isinstance(norm, Refusal):
        return norm
    if set(pending) != {0}:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'"{node.name}" reads it as a parameter')
    before = vectors(pending[0], 1, norm.channels, node)
    if isinstance(before, Refusal):
        return before
    gamma = norm.gamma * before.scale
    beta = norm.affine.apply(before.shift).reshape(-1)
    steps = _store(node, 1, 2, gamma, beta, norm.kind)
    if isinstance(steps, Refusal):
        return steps
    if np.array_equal(before.center, norm.mean):
        return steps
    mean = store_bias(node, 3, before.center, norm.statistics_kind)
    if isinstance(mean, Refusal):
        return mean
    return [Step(edits=[*steps[0].edits, *mean], absorbs=True)]


def _instance_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    """InstanceNormalization and GroupNormalization: scale and bias per channel (axis 1).

    Those of a GroupNormalization before opset 21 are per group: right where each group is one
    channel, or where all channels demand the same.
    """
    scale = read_weight(node, 1, facts)
    if isinstance(scale, Refusal):
        return scale
    bias = read_weight(node, 2, facts)
    if isinstance(bias, Refusal):
        return bias
    affine = vectors(demands[0], 1, scale.shape[0], node)
    if isinstance(affine, Refusal):
        return affine
    gamma, beta = scale.float64 * affine.scale, affine.apply(bias.float64)
    return _store(node, 1, 2, gamma, beta, scale.elem_type)


def _layer_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    """LayerNormalization: scale and bias have the shape of the normalized axes."""
    demand = demands[0]
    scale = read_weight(node, 1, facts)
    if isinstance(scale, Refusal):
        return scale
    first = node.attribute("axis", -1) % demand.rank
    if demand.axes and min(demand.axes) < first:
        return not_per_channel(node, first)
    if node.output(1) is not None or node.output(2) is not None:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" also returns its statistics')
    inner = demand.map(lambda array: array.reshape(array.shape[first:]))
    gamma = scale.float64 * inner.scale
    old: Float64 = np.zeros(scale.shape)
    if node.input(2) is not None:
        bias = read_weight(node, 2, facts)
        if isinstance(bias, Refusal):
            return bias
        old = bias.float64
    beta = inner.apply(old)
    shape = np.broadcast_shapes(gamma.shape, beta.shape)
    if shape != scale.shape and shape != (facts.dims(node.input(0)) or ())[first:]:
        return not_per_channel(node, first)
    gamma, beta = np.broadcast_to(gamma, shape), np.broadcast_to(beta, shape)
    absent = node.input(2) is None and not beta.any()
    return _store(node, 1, None if absent else 2, gamma, beta, scale.elem_type)


def _per_sample(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    return Refusal(
        Reason.PER_SAMPLE_NORM, f'"{node.name}" takes its statistics from the sample itself'
    )


def _store(
    node: Node, scale_at: int, bias_at: int | None, gamma: Float64, beta: Float64, kind: int
) -> Refusal | list[Step]:  # fmt: skip
    edits: list[Edit] = []
    for index, values, store in ((scale_at, gamma, store_scale), (bias_at, beta, store_bias)):
        if index is None:
            continue
        stored = store(node, index, np.ascontiguousarray(values), kind)
        if isinstance(stored, Refusal):
            return stored
        edits += stored
    return [Step(edits=edits, absorbs=True)]


_INSTANCE = Rule(
    _instance_backward,
    _per_sample,
    "any per channel",
    "nothing",
    "scale s, bias = s bias + t",
)

RULES = {
    "BatchNormalization": Rule(
        _batchnorm_backward,
        _batchnorm_forward,
        "any per channel, where it is kept itself",
        "any per channel, where it is kept itself",
        "gamma s, beta = s beta + t",
    ),
    "InstanceNormalization": _INSTANCE,
    "GroupNormalization": _INSTANCE,
    "LayerNormalization": Rule(
        _layer_backward,
        _per_sample,
        "any that varies along the normalized axes only",
        "nothing",
        "scale s, bias = s bias + t",
    ),
}
