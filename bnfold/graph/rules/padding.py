"""Pad: it moves nothing, but what it adds must fit what the affine makes of the rest.

Mirrored or repeated elements take the affine along. A constant v becomes s v + t, which must be one
value for all that is padded. Downwards, padded channels simply lack the affine: they count as
(1, 0).

Source: the ONNX operator specification of Pad.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts, length_of, unknown_length
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Refusal, Rule, SetAttributes, SetConstant, Step, dense
from bnfold.lazy import round_to
from bnfold.report import Reason

__all__ = ["RULES"]


def _pad_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    demand = demands[0]
    pads = _pads(node, demand.rank, facts)
    if pads is None:
        return unknown_length(node, 0)
    mode = node.attribute("mode", "constant")
    padded = [axis for axis, (before, after) in enumerate(pads) if before or after]
    inner = demand
    for axis in padded:
        if axis not in demand.axes:
            continue
        length = length_of(node.input(0), axis, facts)
        if mode != "constant" or length is None or min(pads[axis]) < 0:
            return unknown_length(node, axis)
        inner = inner.take(axis, np.arange(pads[axis][0], pads[axis][0] + length))
    if mode != "constant" or not padded:
        return [Step(passes={0: inner})]
    value = _pad_value(node, facts)
    if value is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'the value of "{node.name}" is not constant')
    fill = _padding(demand, padded, pads, value)
    if (fill != fill.reshape(-1)[0]).any():
        return Refusal(
            Reason.PADDING_SHIFT, f'"{node.name}" pads all channels with one value, {value:g}'
        )
    edits = _set_pad_value(node, float(fill.reshape(-1)[0]), value, facts)
    return edits if isinstance(edits, Refusal) else [Step(passes={0: inner}, edits=edits)]


def _padding(
    demand: Affine, padded: list[int], pads: list[tuple[int, int]], value: float
) -> Float64:
    """What the padded elements must become: the padding of a channel axis only, if that is all."""
    if len(padded) == 1 and padded[0] in demand.axes:
        axis, (before, after) = padded[0], pads[padded[0]]
        total = max(a.shape[axis] for a in (demand.scale, demand.shift, demand.center))
        chosen = np.r_[0:before, total - after : total]
        demand = demand.take(axis, chosen)
    return demand.apply(np.full((1,) * demand.rank, value))


def _pad_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    if set(pending) != {0}:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as a parameter')
    affine = pending[0]
    pads = _pads(node, affine.rank, facts)
    if pads is None:
        return unknown_length(node, 0)
    padded = [axis for axis, (before, after) in enumerate(pads) if before or after]
    if node.attribute("mode", "constant") != "constant" or not padded:
        free = affine.axes.isdisjoint(padded)
        return [Step(passes={0: affine})] if free else unknown_length(node, padded[0])
    value = _pad_value(node, facts)
    if value is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'the value of "{node.name}" is not constant')
    if value == 0.0 and affine.is_linear and affine.axes.isdisjoint(padded):
        return [Step(passes={0: affine})]
    axis, (before, after) = padded[0], pads[padded[0]]
    length = length_of(node.input(0), axis, facts)
    if len(padded) > 1 or length is None or min(before, after) < 0:
        return Refusal(Reason.PADDING_SHIFT, f'the shift does not reach what "{node.name}" pads')
    alone = Affine.identity(affine.rank)
    joined = Affine.concatenate([alone, affine, alone], axis, [before, length, after])
    return [Step(passes={0: joined})]


def _pads(node: Node, rank: int, facts: Facts) -> list[tuple[int, int]] | None:
    """Begin and end padding of every axis."""
    axes: list[int] | None = None
    if node.opset < 2:
        flat = node.attribute("paddings")
    elif node.opset < 11:
        flat = node.attribute("pads")
    else:
        flat = facts.integers(node.input(1))
        if node.input(3) is not None:
            axes = facts.integers(node.input(3))
            if axes is None:
                return None
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    if flat is None or len(flat) != 2 * len(axes):
        return None
    result = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        result[axis] = (flat[place], flat[place + len(axes)])
    return result


def _pad_value(node: Node, facts: Facts) -> float | None:
    if node.opset < 11:
        return float(node.attribute("value", 0.0))
    if node.input(2) is None:
        return 0.0
    constant = facts.constant(node.input(2))
    if constant is None or constant.data.size != 1:
        return None
    return float(constant.float64.reshape(()))


def _set_pad_value(
    node: Node, new: float, old: float, facts: Facts
) -> Refusal | list[SetAttributes | SetConstant]:
    if new == old:
        return []
    constant = facts.constant(node.input(2))
    value = node.input(0)
    kind = constant.elem_type if constant is not None else 0 if value is None else value.elem_type
    dtype = FLOATS.get(kind)
    fits = dtype is not None and np.isfinite(float(round_to(np.asarray(new), dtype)))
    if node.opset < 11 and fits:  # an attribute is a float32, whatever the data is
        fits = kind != TensorProto.DOUBLE or float(np.float32(new)) == new
        if fits:
            return [SetAttributes(node, {"value": new})]
    if dtype is None or not fits:
        return Refusal(Reason.OVERFLOW, f'the type of "{node.name}" cannot hold the value {new:g}')
    return [SetConstant(node, 2, dense(new, dtype), kind, "value")]


RULES = {
    "Pad": Rule(
        _pad_backward,
        _pad_forward,
        takes="any for reflect, edge, wrap; a constant v only if s v + t is one value, the new v",
        gives="any for reflect, edge, wrap; padded by the constant 0 only t = 0; padded channels "
        "count as (1, 0)",
        equation="v = s v + t",
    ),
}
