"""Gemm and MatMul: the constant operand owns one axis of the product and meets one of the other.

With X the computed operand and W the constant one::

    X W: backward, column n of W times s[n]; forward, row k of W times s[k], and t W is added
    W X: backward, row m of W times s[m];    forward, column k of W times s[k], and W t is added

Gemm has room for a shift in C. MatMul has not: an Add that follows takes it, or at rank 2 the node
becomes a Gemm, or one Add is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bnfold.absorb import matrix_input_shift
from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts, fit
from bnfold.graph.index import Node
from bnfold.graph.plan import (
    Answer,
    AppendAdd,
    Become,
    Edit,
    Refusal,
    Rule,
    SetAttributes,
    Step,
    dense,
)
from bnfold.graph.rules.parameters import (
    Weight,
    not_per_channel,
    read_weight,
    store_bias,
    vectors,
)
from bnfold.report import Reason

__all__ = ["RULES"]


def _constant_side(node: Node, facts: Facts) -> Weight | Refusal:
    """The constant operand, the right one where both are."""
    right = read_weight(node, 1, facts)
    if isinstance(right, Weight):
        return right
    left = read_weight(node, 0, facts)
    if isinstance(left, Weight):
        return left
    return left if _overridable(left) else right


def _overridable(refusal: Refusal) -> bool:
    return refusal.reason is Reason.OVERRIDABLE_INITIALIZER


def _input_shift(weight: Weight, t: Float64, axis: int) -> Float64:
    if axis == 1:
        return weight.each_row(lambda block: matrix_input_shift(block, t, 1))
    return weight.sum_of_rows(t, lambda block, part: matrix_input_shift(block, part, 0))


def _is_transposed(node: Node, index: int) -> bool:
    return node.op == "Gemm" and bool(node.attribute("transB" if index == 1 else "transA", 0))


# --- Gemm


def _gemm_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    weight = _constant_side(node, facts)
    if isinstance(weight, Refusal):
        return weight
    if len(weight.shape) != 2 or demands[0].rank != 2:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" is not a product of matrices')
    owned = weight.index  # B owns the columns of Y, axis 1; A owns its rows, axis 0
    axis = owned ^ int(_is_transposed(node, weight.index))
    affine = vectors(demands[0], owned, weight.shape[axis], node)
    if isinstance(affine, Refusal):
        return affine
    scaled = weight.scaled(_along(affine.scale, axis, 2))
    whole = affine.map(lambda vector: _along(vector, owned, 2))
    if _adds_computed(node, facts):
        return scaled if isinstance(scaled, Refusal) else _through_bias(node, scaled, whole, facts)
    shifted = _gemm_bias(node, weight, whole, facts)
    for edits in (scaled, shifted):
        if isinstance(edits, Refusal):
            return edits
    return [Step(edits=(*scaled, *shifted), absorbs=True)]  # type: ignore[misc]


def _gemm_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    weight = _constant_side(node, facts)
    if isinstance(weight, Refusal):
        return weight
    if set(pending) != {1 - weight.index}:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as its bias')
    other = 1 - weight.index
    inner = other ^ 1 ^ int(_is_transposed(node, other))  # the summed axis of the computed operand
    axis = weight.index ^ 1 ^ int(_is_transposed(node, weight.index))
    if len(weight.shape) != 2 or pending[other].rank != 2:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" is not a product of matrices')
    affine = vectors(pending[other], inner, weight.shape[axis], node)
    if isinstance(affine, Refusal):
        return affine
    added = _input_shift(weight, affine.offset, axis) * node.attribute("alpha", 1.0)
    shift = Affine.of(np.ones((1, 1)), _along(added, weight.index, 2))
    scaled = weight.scaled(_along(affine.scale, axis, 2))
    shifted = _gemm_bias(node, weight, shift, facts)
    for edits in (scaled, shifted):
        if isinstance(edits, Refusal):
            return edits
    return [Step(edits=(*scaled, *shifted), absorbs=True)]  # type: ignore[misc]


def _adds_computed(node: Node, facts: Facts) -> bool:
    """True if C is computed by other nodes: a residual connection."""
    value = node.input(2)
    computed = value is not None and value.producer is not None
    return computed and facts.constants.get(value) is None and node.opset >= 7


def _through_bias(node: Node, scaled: Sequence[Edit], affine: Affine, facts: Facts) -> Answer:
    """S (alpha A B + beta C) + t = alpha A (B s) + beta (s C + t / beta)."""
    value, beta = node.inputs[2], node.attribute("beta", 1.0)
    if value is None or beta == 0.0:
        return facts.not_constant(node, 2, "bias")
    demand = fit(Affine.of(affine.scale, affine.offset / beta), value, facts, node)
    if isinstance(demand, Refusal):
        return demand
    return [Step(passes={2: demand}, edits=scaled, absorbs=True)]


def _gemm_bias(node: Node, weight: Weight, affine: Affine, facts: Facts) -> Answer | list[Edit]:
    """C := affine(beta * C), as a matrix that still broadcasts to (M, N); beta := 1."""
    beta = node.attribute("beta", 1.0)
    value = node.input(2)
    old: Float64 = np.zeros(())
    kind = weight.elem_type
    if value is not None and beta != 0.0:
        constant = facts.constant(value)
        if constant is None or constant.any_shape:
            return facts.not_constant(node, 2, "bias")
        old, kind = constant.float64 * beta, constant.elem_type
    if affine.is_identity:
        return []
    if affine.is_linear and (value is None or beta == 0.0):
        return []
    new = affine.apply(old)
    if old.ndim < 2 and new.shape[0] == 1:
        new = new.reshape(-1)
    edits = store_bias(node, 2, new, kind)
    if isinstance(edits, Refusal):
        return edits
    attributes: dict[str, object] = {"beta": 1.0} if beta != 1.0 else {}
    if node.opset < 7:
        attributes["broadcast"] = 1
    return [*edits, SetAttributes(node, attributes)]


# --- MatMul


def _matmul_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    weight = _constant_side(node, facts)
    if isinstance(weight, Refusal):
        return weight
    demand, rank = demands[0], demands[0].rank
    other = facts.rank(node.input(1 - weight.index))
    if len(weight.shape) < 2 or other is None or other < 2:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" is not proved a product of matrices')
    from_end = 2 - weight.index  # the right operand owns the last axis, the left one the one before
    length = weight.shape[-from_end]
    affine = vectors(demand, rank - from_end, length, node)
    if isinstance(affine, Refusal):
        return affine
    axis = len(weight.shape) - from_end
    scaled = weight.scaled(_along(affine.scale, axis, len(weight.shape)))
    if isinstance(scaled, Refusal):
        return scaled
    if not affine.offset.any():
        return [Step(edits=scaled, absorbs=True)]
    shift = _along(affine.offset, 1 if from_end == 1 else 0, 2)
    return _with_shift(node, weight, scaled, shift, other)


def _matmul_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    weight = _constant_side(node, facts)
    if isinstance(weight, Refusal):
        return weight
    index = 1 - weight.index
    if set(pending) != {index}:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" multiplies it with itself')
    affine_in, other = pending[index], pending[index].rank
    if len(weight.shape) != 2 or other < 2:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" is not proved a product of matrices')
    axis = 1 - weight.index  # the summed axis of the weight: rows on the right, columns on the left
    inner = other - 1 if weight.index == 1 else other - 2
    affine = vectors(affine_in, inner, weight.shape[axis], node)
    if isinstance(affine, Refusal):
        return affine
    scaled = weight.scaled(_along(affine.scale, axis, 2))
    if isinstance(scaled, Refusal):
        return scaled
    if not affine.offset.any():
        return [Step(edits=scaled, absorbs=True)]
    added = _input_shift(weight, affine.offset, axis)
    shift = _along(added, weight.index, 2)
    one = np.ones((1,) * other)
    carried = Affine.of(one, shift.reshape((1,) * (other - 2) + shift.shape))
    steps = _with_shift(node, weight, scaled, shift, other)
    if isinstance(steps, Refusal):
        return steps
    return [Step(passes={0: carried}, edits=scaled, absorbs=True), *steps]


def _with_shift(
    node: Node, weight: Weight, scaled: Sequence[Edit], shift: Float64, other: int
) -> Answer:  # fmt: skip
    """What a MatMul does with a shift of shape (1, N) or (M, 1)."""
    if other == 2 and len(weight.shape) == 2 and weight.elem_type in FLOATS:
        bias = store_bias(
            node, 2, shift.reshape(-1) if shift.shape[0] == 1 else shift, weight.elem_type
        )
        if isinstance(bias, Refusal):
            return bias
        gemm: list[Edit] = [Become(node, "Gemm"), *scaled, *bias]
        if node.opset < 7:
            gemm.append(SetAttributes(node, {"broadcast": 1}))
        return [Step(edits=gemm, absorbs=True)]
    if node.opset < 7:
        return not_per_channel(node, -1)
    flat = shift.reshape(-1) if shift.shape[0] == 1 else shift
    data = dense(flat, FLOATS[weight.elem_type])
    if data.out_of_range() == "overflows":
        return Refusal(Reason.OVERFLOW, f'the type of "{node.name}" cannot hold the shift')
    return [Step(edits=[*scaled, AppendAdd(node, data, weight.elem_type)], absorbs=True, cost=1)]


def _along(vector: Float64, axis: int, rank: int) -> Float64:
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


RULES = {
    "Gemm": Rule(
        _gemm_backward,
        _gemm_forward,
        takes="any, along the axis that the constant operand owns",
        gives="any, along the summed axis",
        equation="B' s, C = s (beta C) + t; forward s B', C = beta C + alpha t B'",
    ),
    "MatMul": Rule(
        _matmul_backward,
        _matmul_forward,
        takes="any, along the axis that the constant operand owns; a shift may leave an Add",
        gives="any, along the summed axis; a shift goes on to the output",
        equation="W s, + t; forward s W, + t W",
    ),
}
