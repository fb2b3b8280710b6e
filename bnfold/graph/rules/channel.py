"""Operators that join or cut along an axis: the arrays of the affine are joined or cut alike.

Upwards through a selection, the elements that nobody selects get (1, 0), the identity.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.graph.evaluators import slice_of
from bnfold.graph.facts import Facts, length_of, unknown_length
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Refusal, Rule, Step
from bnfold.graph.shapes import MAX_LENGTH
from bnfold.report import Reason

__all__ = ["RULES"]

Indices = NDArray[np.int64]


# --- Concat


def _concat_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    demand = demands[0]
    axis = node.attribute("axis", 1) % demand.rank
    if axis not in demand.axes:
        return [Step(passes=dict.fromkeys(range(len(node.inputs)), demand))]
    passes: dict[int, Affine] = {}
    start = 0
    for index, value in enumerate(node.inputs):
        length = length_of(value, axis, facts)
        if length is None:
            return unknown_length(node, axis)
        passes[index] = demand.take(axis, np.arange(start, start + length))
        start += length
    return [Step(passes=passes)]


def _concat_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    rank = next(iter(pending.values())).rank
    axis = node.attribute("axis", 1) % rank
    first = pending.get(0)
    whole = first is not None and axis not in first.axes and len(pending) == len(node.inputs)
    if first is not None and whole and all(a.same_as(first) for a in pending.values()):
        return [Step(passes={0: first})]
    lengths = [length_of(value, axis, facts) for value in node.inputs]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return unknown_length(node, axis)
    parts = [pending.get(index, Affine.identity(rank)) for index in range(len(node.inputs))]
    return [Step(passes={0: Affine.concatenate(parts, axis, known)})]


# --- Split


def _split_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    rank = next(iter(demands.values())).rank
    axis = node.attribute("axis", 0) % rank
    parts = [demands.get(index, Affine.identity(rank)) for index in range(len(node.outputs))]
    if axis not in parts[0].axes and all(part.same_as(parts[0]) for part in parts):
        return [Step(passes={0: parts[0]})]
    lengths = _split_lengths(node, axis, facts)
    if lengths is None:
        return unknown_length(node, axis)
    return [Step(passes={0: Affine.concatenate(parts, axis, lengths)})]


def _split_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    affine = pending.get(0)
    if affine is None or set(pending) != {0}:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as a parameter')
    axis = node.attribute("axis", 0) % affine.rank
    if axis not in affine.axes:
        return [Step(passes=dict.fromkeys(range(len(node.outputs)), affine))]
    lengths = _split_lengths(node, axis, facts)
    if lengths is None:
        return unknown_length(node, axis)
    ends = np.cumsum(lengths)
    pieces = [
        affine.take(axis, np.arange(end - length, end))
        for end, length in zip(ends, lengths, strict=True)
    ]
    return [Step(passes=dict(enumerate(pieces)))]


def _split_lengths(node: Node, axis: int, facts: Facts) -> list[int] | None:
    given = node.attribute("split") if node.opset < 13 else facts.integers(node.input(1))
    if given is not None:
        sane = all(0 <= length <= MAX_LENGTH for length in given)
        return list(given) if sane and len(given) == len(node.outputs) else None
    if node.input(1) is not None:
        return None
    whole, parts = length_of(node.input(0), axis, facts), len(node.outputs)
    if whole is None or parts == 0:
        return None
    each = -(-whole // parts)  # the last part is shorter where it does not come out even
    return [min(each, max(whole - each * index, 0)) for index in range(parts)]


# --- Slice and Gather: selections


def _selection(node: Node, axis: int, length: int, facts: Facts) -> Indices | None:
    """Which elements along ``axis`` the node selects, in order."""
    everything = np.arange(length)
    if node.op == "Gather":
        chosen = facts.integers(node.input(1))
        if chosen is None or not all(-length <= index < length for index in chosen):
            return None
        return everything[np.array(chosen, np.int64)]
    bounds = _slice_bounds(node, facts)
    if bounds is None:
        return None
    rank = facts.rank(node.input(0))
    for start, end, where, step in zip(*bounds, strict=True):
        if rank is None:
            return None
        if where % rank == axis:
            everything = everything[slice_of(start, end, step, length)]
    return everything


def _slice_bounds(
    node: Node, facts: Facts
) -> tuple[list[int], list[int], list[int], list[int]] | None:
    if node.opset < 10:
        starts, ends = node.attribute("starts"), node.attribute("ends")
        axes, steps = node.attribute("axes"), None
    else:
        starts, ends = facts.integers(node.input(1)), facts.integers(node.input(2))
        axes, steps = facts.integers(node.input(3)), facts.integers(node.input(4))
        if (axes is None and node.input(3) is not None) or (
            steps is None and node.input(4) is not None
        ):
            return None
    if starts is None or ends is None:
        return None
    default_axes, default_steps = list(range(len(starts))), [1] * len(starts)
    return list(starts), list(ends), list(axes or default_axes), list(steps or default_steps)


def _slice_axes(node: Node, rank: int, facts: Facts) -> set[int] | None:
    """The axes that a Slice cuts, or None where that is not constant."""
    count: int | None = None
    if node.opset < 10:
        axes, count = node.attribute("axes"), len(node.attribute("starts", ()))
    elif node.input(3) is None:
        axes, count = None, length_of(node.input(1), 0, facts)
    else:
        axes = facts.integers(node.input(3))
    if axes is None:
        return None if count is None else set(range(min(count, rank)))
    return {axis % rank for axis in axes}


def _select_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    rank = facts.rank(node.input(0))
    if rank is None:
        return unknown_length(node, 0)
    demand = demands[0]
    if node.op == "Gather":
        lowered = _gather_axis_back(node, demand, rank, facts)
        if isinstance(lowered, Refusal):
            return lowered
        demand = lowered
    cut = _cut_axes(node, rank, facts)
    if cut is None:
        return unknown_length(node, 0)
    value = node.inputs[0]
    shared = value is not None and len(value.uses) > 1 and facts.constants.get(value) is None
    for axis in sorted(cut):
        if axis not in demand.axes and not shared:
            continue  # the same to every element, so whichever are selected
        length = length_of(value, axis, facts)
        chosen = None if length is None else _selection(node, axis, length, facts)
        if length is None or chosen is None:
            return unknown_length(node, axis)
        if len(set(chosen.tolist())) < len(chosen):
            return Refusal(Reason.FAN_OUT, f'"{node.name}" selects an element twice')
        demand = demand.scatter(axis, chosen, length)
    return [Step(passes={0: demand})]


def _select_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    affine = pending.get(0)
    if affine is None or set(pending) != {0}:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as a parameter')
    cut = _cut_axes(node, affine.rank, facts)
    if cut is None:
        return unknown_length(node, 0)
    for axis in sorted(cut & affine.axes):
        length = length_of(node.input(0), axis, facts)
        chosen = None if length is None else _selection(node, axis, length, facts)
        if chosen is None:
            return unknown_length(node, axis)
        affine = affine.take(axis, chosen)
    if node.op != "Gather":
        return [Step(passes={0: affine})]
    raised = _gather_axis_forward(node, affine, facts)
    return raised if isinstance(raised, Refusal) else [Step(passes={0: raised})]


def _cut_axes(node: Node, rank: int, facts: Facts) -> set[int] | None:
    if node.op == "Gather":
        return {node.attribute("axis", 0) % rank}
    return _slice_axes(node, rank, facts)


def _gather_axis_forward(node: Node, affine: Affine, facts: Facts) -> Affine | Refusal:
    """The gathered axis is replaced by the axes of the indices: none for a scalar."""
    axis = node.attribute("axis", 0) % affine.rank
    rank = facts.rank(node.input(1))
    if rank == 1:
        return affine
    if rank == 0:
        return affine.squeeze([axis])
    if rank is None or axis in affine.axes:
        return unknown_length(node, axis)
    return affine.expand_dims(range(axis, axis + rank - 1))


def _gather_axis_back(node: Node, demand: Affine, rank: int, facts: Facts) -> Affine | Refusal:
    axis = node.attribute("axis", 0) % rank
    indices = facts.rank(node.input(1))
    if indices == 1:
        return demand
    if indices == 0:
        return demand.expand_dims([axis])
    if indices is None or not demand.axes.isdisjoint(range(axis, axis + indices)):
        return unknown_length(node, axis)
    return demand.squeeze(range(axis + 1, axis + indices))


_SELECT = Rule(
    _select_backward,
    _select_forward,
    takes="any; elements that are not selected get the identity",
    gives="any",
    equation="arrays are sliced; upwards they are scattered",
)
RULES = {
    "Concat": Rule(
        _concat_backward,
        _concat_forward,
        takes="any: every operand takes its slice",
        gives="any: operands without an affine count as (1, 0)",
        equation="arrays are sliced; downwards they are joined",
    ),
    "Split": Rule(
        _split_backward,
        _split_forward,
        takes="any: outputs without an affine count as (1, 0)",
        gives="any",
        equation="arrays are joined; downwards they are sliced",
    ),
    "Slice": _SELECT,
    "Gather": _SELECT,
}
