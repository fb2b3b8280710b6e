"""Activations that are positively homogeneous, and selections between tensors.

f(s x) = s f(x) for s >= 0. A shift never passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bnfold.affine import Affine
from bnfold.graph.facts import Facts, fit
from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Answer, Refusal, Rule, Step
from bnfold.report import Reason

__all__ = ["RULES", "clip_bounds"]


def _homogeneous(node: Node, affines: Mapping[int, Affine], facts: Facts) -> Answer:
    affine = affines.get(0)
    if affine is None or len(affines) > 1:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as a parameter')
    if not affine.is_linear:
        return Refusal(Reason.NONLINEAR, f'a shift does not pass the activation "{node.name}"')
    if not affine.is_nonnegative:
        return Refusal(Reason.SIGN, f'a negative scale does not pass the activation "{node.name}"')
    return [Step(passes={0: affine})]


def _clip(node: Node, affines: Mapping[int, Affine], facts: Facts) -> Answer:
    """Clip with the bounds 0 and infinity is a Relu, as some exporters write it."""
    # opset 6 spells "no bound" as the largest float32
    low, high = clip_bounds(node, facts)
    open_ended = (low <= -_LARGEST or low == 0.0, high >= _LARGEST or high == 0.0)
    if not all(open_ended):
        return Refusal(Reason.NONLINEAR, f'Clip "{node.name}" does not let it pass')
    return _homogeneous(node, affines, facts)


def clip_bounds(node: Node, facts: Facts) -> tuple[float, float]:
    """The bounds of Clip, infinite where absent and NaN where they are not constant."""
    if node.opset < 11:
        return node.attribute("min", -math.inf), node.attribute("max", math.inf)
    return _bound(node, 1, -math.inf, facts), _bound(node, 2, math.inf, facts)


_LARGEST = float(np.finfo(np.float32).max)


def _bound(node: Node, index: int, absent: float, facts: Facts) -> float:
    """A bound of Clip; NaN where it is not one float constant."""
    if node.input(index) is None:
        return absent
    constant = facts.constant(node.input(index))
    if constant is None or constant.data.size != 1:
        return math.nan
    return float(constant.float64.reshape(()))


def _extremum_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    """Max and Min of several tensors: one affine for all of them."""
    if not demands[0].is_nonnegative:
        return Refusal(Reason.SIGN, f'a negative scale does not pass "{node.name}"')
    return _each(node, demands[0], range(len(node.inputs)), facts)


def _where_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    return _each(node, demands[0], (1, 2), facts)


def _each(node: Node, demand: Affine, indices: range | tuple[int, ...], facts: Facts) -> Answer:
    passes: dict[int, Affine] = {}
    for index in indices:
        value = node.input(index)
        if value is None or node.opset < 8:
            return Refusal(Reason.NONLINEAR, f'"{node.name}" is not understood')
        if demand.is_linear and _is_zero(value, facts):
            continue  # zero stays zero
        fitted = fit(demand, value, facts, node)
        if isinstance(fitted, Refusal):
            return fitted
        passes[index] = fitted
    return [Step(passes=passes)]


def _is_zero(value: Value | None, facts: Facts) -> bool:
    constant = facts.constant(value)
    return constant is not None and not constant.data.any()


def _choice_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    """Max, Min and Where: every operand must bring the same affine; s 0 = 0 brings any scale."""
    operands = range(1, 3) if node.op == "Where" else range(len(node.inputs))
    others = set(operands) - set(pending)
    linear = all(affine.is_linear for affine in pending.values())
    unmoved = linear and all(_is_zero(node.input(index), facts) for index in others)
    if not set(pending) <= set(operands) or (others and not unmoved):
        return Refusal(Reason.NONLINEAR, f'"{node.name}" mixes it with another tensor')
    ranks = [facts.rank(node.input(index)) for index in range(len(node.inputs))]
    known = [rank for rank in ranks if rank is not None]
    if len(known) < len(ranks):
        return Refusal(Reason.UNKNOWN_SHAPE, f'the rank of an operand of "{node.name}" is unknown')
    rank = max(known)
    lifted = [
        a.map(lambda x: x.reshape((1,) * (rank - x.ndim) + x.shape)) for a in pending.values()
    ]
    first = lifted[0]
    if not all(affine.same_as(first) for affine in lifted):
        return Refusal(Reason.NONLINEAR, f'"{node.name}" mixes different affines')
    if node.op != "Where" and not first.is_nonnegative:
        return Refusal(Reason.SIGN, f'a negative scale does not pass "{node.name}"')
    return [Step(passes={0: first})]


_HOMOGENEOUS = Rule(
    _homogeneous, _homogeneous, "s >= 0 and t = 0", "s >= 0 and t = 0", "f(s x) = s f(x)"
)
_EXTREMUM = Rule(
    _extremum_backward,
    _choice_forward,
    "s >= 0, to every operand",
    "s >= 0, the same from every operand",
    "max(s x + t, s y + t) = s max(x, y) + t",
)

RULES = {
    "Relu": _HOMOGENEOUS,
    "LeakyRelu": _HOMOGENEOUS,
    "PRelu": _HOMOGENEOUS,
    "Abs": _HOMOGENEOUS,
    "Clip": Rule(
        _clip,
        _clip,
        "s >= 0 and t = 0, where the bounds are 0 and infinity",
        "s >= 0 and t = 0, where the bounds are 0 and infinity",
        "f(s x) = s f(x)",
    ),
    "Max": _EXTREMUM,
    "Min": _EXTREMUM,
    "Where": Rule(
        _where_backward,
        _choice_forward,
        "any, to both branches",
        "any, the same from both branches",
        "where(c, s x + t, s y + t) = s where(c, x, y) + t",
    ),
}
