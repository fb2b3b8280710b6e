"""Operators that move elements without changing them: the arrays of the affine move alike.

Each operator has one function that follows it downwards (from the arrays of its input to those of
its output) and one that follows it upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bnfold.affine import Affine
from bnfold.graph import shapes
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts, fit
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Refusal, Rule, Step
from bnfold.report import Reason

__all__ = ["RULES"]

Follow = Callable[[Node, Affine, Facts], "Affine | Refusal"]


def _rule(up: Follow, down: Follow, note: str, equation: str) -> Rule:
    def backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
        affine = up(node, demands[0], facts) if set(demands) == {0} else _other_output(node)
        return affine if isinstance(affine, Refusal) else [Step(passes={0: affine})]

    def forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
        affine = down(node, pending[0], facts) if set(pending) == {0} else _other_input(node)
        return affine if isinstance(affine, Refusal) else [Step(passes={0: affine})]

    return Rule(backward, forward, note, note, equation)


def _other_output(node: Node) -> Refusal:
    return Refusal(Reason.NONLINEAR, f'it is not the first output of "{node.name}"')


def _other_input(node: Node) -> Refusal:
    return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as a parameter')


def _unproved(node: Node) -> Refusal:
    return Refusal(
        Reason.UNKNOWN_SHAPE, f'what "{node.name}" does to the channel axis is not proved'
    )


# --- nothing moves


def _same(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    return affine


def _dropout(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    """Dropout is the identity at inference; what tells training apart depends on the opset."""
    inference = node.opset >= 7 or bool(node.attribute("is_test"))
    if node.opset >= 12 and node.input(2) is not None:
        flag = facts.constants.get(node.input(2))
        inference = flag is not None and not flag.data.any()
    return affine if inference else Refusal(Reason.NONLINEAR, f'"{node.name}" drops at random')


def _cast_up(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    """Upwards only out of the narrower type, where nothing overflows that did not before."""
    return affine if _widens(node, wide=0) else _cast_refusal(node)


def _cast_down(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    return affine if _widens(node, wide=1) else _cast_refusal(node)


def _widens(node: Node, *, wide: int) -> bool:
    target = node.attribute("to")
    source = node.inputs[0].elem_type if node.inputs[0] is not None else 0
    if target not in FLOATS or source not in FLOATS:
        return False
    rank = {dtype: place for place, dtype in enumerate(_BY_WIDTH)}
    pair = (rank[FLOATS[source].name], rank[FLOATS[target].name])
    if set(pair) == {0, 1}:
        return False  # float16 and bfloat16: neither holds the other
    return pair[wide] >= pair[1 - wide]


_BY_WIDTH = ("float16", "bfloat16", "float32", "float64")


def _cast_refusal(node: Node) -> Refusal:
    return Refusal(Reason.OVERFLOW, f'behind the cast "{node.name}" the range may not suffice')


# --- axes


def _perm(node: Node, rank: int) -> list[int]:
    return list(node.attribute("perm") or range(rank - 1, -1, -1))


def _transpose_up(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    return affine.transpose([int(i) for i in np.argsort(_perm(node, affine.rank))])


def _transpose_down(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    return affine.transpose(_perm(node, affine.rank))


def _axes(node: Node, rank: int, facts: Facts) -> list[int] | None:
    """The axes of Squeeze or Unsqueeze, not negative, for the longer of the two shapes."""
    axes = node.attribute("axes") if node.opset < 13 else facts.integers(node.input(1))
    return None if axes is None else sorted(axis % rank for axis in axes)


def _squeeze_up(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    rank = facts.rank(node.input(0))
    axes = None if rank is None else _axes(node, rank, facts)
    return _reshape_up(node, affine, facts) if axes is None else affine.expand_dims(axes)


def _squeeze_down(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    axes = _axes(node, affine.rank, facts)
    if axes is None:
        return _reshape_down(node, affine, facts)
    return affine.squeeze(axes) if affine.axes.isdisjoint(axes) else _unproved(node)


def _unsqueeze_up(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    axes = _axes(node, affine.rank, facts)
    if axes is None or not affine.axes.isdisjoint(axes):
        return _unproved(node)
    return affine.squeeze(axes)


def _unsqueeze_down(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    listed = node.attribute("axes") if node.opset < 13 else facts.integers(node.input(1))
    if listed is None:
        return _unproved(node)
    rank = affine.rank + len(listed)
    return affine.expand_dims(sorted(axis % rank for axis in listed))


# --- shapes


def _reshape_up(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    return _reshaped(node, affine, facts, up=True)


def _reshape_down(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    return _reshaped(node, affine, facts, up=False)


def _reshaped(node: Node, affine: Affine, facts: Facts, *, up: bool) -> Affine | Refusal:
    source, target = facts.dims(node.input(0)), facts.dims(node.output())
    if up:
        source, target = target, source
    if target is not None and affine.is_uniform:
        return affine.map(lambda array: array.reshape((1,) * len(target)))
    if source is None or target is None or len(source) != affine.rank:
        return _unproved(node)
    found = shapes.reshape(affine, source, target)
    return _unproved(node) if found is None else found


def _expand_up(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    value = node.inputs[0]
    return _unproved(node) if value is None else fit(affine, value, facts, node)


def _expand_down(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    rank = facts.rank(node.output())
    if rank is None or rank < affine.rank:
        return _unproved(node)
    return affine.map(lambda array: array.reshape((1,) * (rank - array.ndim) + array.shape))


_ANY = "any, where the channel axis is provably kept, split or merged"
_RESHAPE = _rule(_reshape_up, _reshape_down, _ANY, "arrays are reshaped in row-major order")

RULES = {
    "Identity": _rule(_same, _same, "any", "A"),
    "Dropout": _rule(_dropout, _dropout, "any, at inference", "A"),
    "Cast": _rule(_cast_up, _cast_down, "any, where the affine moves to the wider float type", "A"),
    "Transpose": _rule(_transpose_up, _transpose_down, "any", "arrays are transposed"),
    "Squeeze": _rule(_squeeze_up, _squeeze_down, "any", "arrays lose axes of length 1"),
    "Unsqueeze": _rule(_unsqueeze_up, _unsqueeze_down, "any", "arrays gain axes of length 1"),
    "Reshape": _RESHAPE,
    "Flatten": _RESHAPE,
    "Expand": _rule(_expand_up, _expand_down, "any that the operand can hold", "A"),
}
