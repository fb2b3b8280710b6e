"""Operators that join, cut or rearrange along an axis: the arrays are joined, cut, rearranged.

Upwards through a selection, the elements that nobody selects get (1, 0), the identity.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Answer, Refusal, Rule, SetAttributes, SetConstant, Step, dense
from bnfold.lazy import round_to
from bnfold.report import Reason

__all__ = ["RULES"]

Indices = NDArray[np.int64]


def _length(value: Value | None, axis: int, facts: Facts) -> int | None:
    dims = facts.dims(value)
    length = None if dims is None or not -len(dims) <= axis < len(dims) else dims[axis]
    return length if isinstance(length, int) else None


def _unknown(node: Node, axis: int) -> Refusal:
    return Refusal(Reason.UNKNOWN_SHAPE, f'the length of axis {axis} at "{node.name}" is unknown')


# --- Concat


def _concat_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    demand = demands[0]
    axis = node.attribute("axis", 1) % demand.rank
    if axis not in demand.axes:
        return [Step(passes=dict.fromkeys(range(len(node.inputs)), demand))]
    passes: dict[int, Affine] = {}
    start = 0
    for index, value in enumerate(node.inputs):
        length = _length(value, axis, facts)
        if length is None:
            return _unknown(node, axis)
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
    lengths = [_length(value, axis, facts) for value in node.inputs]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return _unknown(node, axis)
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
        return _unknown(node, axis)
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
        return _unknown(node, axis)
    ends = np.cumsum(lengths)
    pieces = [
        affine.take(axis, np.arange(end - length, end))
        for end, length in zip(ends, lengths, strict=True)
    ]
    return [Step(passes=dict(enumerate(pieces)))]


def _split_lengths(node: Node, axis: int, facts: Facts) -> list[int] | None:
    given = node.attribute("split") if node.opset < 13 else facts.integers(node.input(1))
    if given is not None:
        return list(given) if len(given) == len(node.outputs) else None
    if node.input(1) is not None:
        return None
    lengths = [_length(value, axis, facts) for value in node.outputs]
    known = [length for length in lengths if length is not None]
    return known if len(known) == len(lengths) else None


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
            everything = everything[_python_slice(start, end, step, length)]
    return everything


def _python_slice(start: int, end: int, step: int, length: int) -> slice:
    start = start + length if start < 0 else start
    end = end + length if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), length), min(max(end, 0), length), step)
    low = min(max(end, -1), length - 1)
    return slice(min(max(start, 0), length - 1), None if low < 0 else low, step)


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
    if node.opset < 10:
        axes, starts = node.attribute("axes"), node.attribute("starts", [])
    elif node.input(3) is not None:
        axes = facts.integers(node.input(3))
        if axes is None:
            return None
        starts = axes
    else:
        bounds = facts.dims(node.input(1))
        if bounds is None or not isinstance(bounds[0], int):
            return None
        axes, starts = None, [0] * bounds[0]
    return {axis % rank for axis in (axes if axes is not None else range(len(starts)))}


def _select_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    rank = facts.rank(node.input(0))
    if rank is None:
        return _unknown(node, 0)
    demand = demands[0]
    if node.op == "Gather":
        lowered = _gather_axis_back(node, demand, rank, facts)
        if isinstance(lowered, Refusal):
            return lowered
        demand = lowered
    cut = _cut_axes(node, rank, facts)
    if cut is None:
        return _unknown(node, 0)
    value = node.inputs[0]
    shared = value is not None and len(value.uses) > 1
    for axis in sorted(cut):
        if axis not in demand.axes and not shared:
            continue  # the same to every element, so whichever are selected
        length = _length(value, axis, facts)
        chosen = None if length is None else _selection(node, axis, length, facts)
        if length is None or chosen is None:
            return _unknown(node, axis)
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
        return _unknown(node, 0)
    for axis in sorted(cut & affine.axes):
        length = _length(node.input(0), axis, facts)
        chosen = None if length is None else _selection(node, axis, length, facts)
        if chosen is None:
            return _unknown(node, axis)
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
    if rank is None or (axis in affine.axes and rank > 1):
        return _unknown(node, axis)
    if rank == 0:
        return affine.squeeze([axis])
    return affine.expand_dims(range(axis, axis + rank - 1))


def _gather_axis_back(node: Node, demand: Affine, rank: int, facts: Facts) -> Affine | Refusal:
    axis = node.attribute("axis", 0) % rank
    indices = facts.rank(node.input(1))
    if indices == 1:
        return demand
    if indices == 0:
        return demand.expand_dims([axis])
    return _unknown(node, axis)


# --- Pad


def _pad_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    demand = demands[0]
    pads = _pads(node, demand.rank, facts)
    if pads is None:
        return _unknown(node, 0)
    mode = node.attribute("mode", "constant")
    padded = [axis for axis, (before, after) in enumerate(pads) if before or after]
    inner = demand
    for axis in padded:
        if axis not in demand.axes:
            continue
        length = _length(node.input(0), axis, facts)
        if mode != "constant" or length is None or min(pads[axis]) < 0:
            return _unknown(node, axis)
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
        lengths = {a.shape[axis] for a in (demand.scale, demand.shift, demand.center)} - {1}
        total = max(lengths)
        chosen = np.r_[0:before, total - after : total]
        demand = demand.take(axis, chosen)
    return demand.apply(np.full((1,) * demand.rank, value))


def _pad_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    affine = pending.get(0)
    if affine is None or set(pending) != {0}:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" reads it as a parameter')
    pads = _pads(node, affine.rank, facts)
    if pads is None:
        return _unknown(node, 0)
    padded = [axis for axis, (before, after) in enumerate(pads) if before or after]
    if node.attribute("mode", "constant") != "constant" or not padded:
        free = affine.axes.isdisjoint(padded)
        return [Step(passes={0: affine})] if free else _unknown(node, padded[0])
    value = _pad_value(node, facts)
    if value is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'the value of "{node.name}" is not constant')
    if value == 0.0 and affine.is_linear and affine.axes.isdisjoint(padded):
        return [Step(passes={0: affine})]
    axis, (before, after) = padded[0], pads[padded[0]]
    length = _length(node.input(0), axis, facts)
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
    return None if constant is None else float(constant.float64.reshape(-1)[0])


def _set_pad_value(
    node: Node, new: float, old: float, facts: Facts
) -> Refusal | list[SetAttributes | SetConstant]:
    if new == old:
        return []
    if node.opset < 11:
        return [SetAttributes(node, {"value": new})]
    constant = facts.constant(node.input(2))
    value = node.input(0)
    kind = constant.elem_type if constant is not None else 0 if value is None else value.elem_type
    dtype = FLOATS.get(kind)
    if dtype is None or not np.isfinite(float(round_to(np.asarray(new), dtype))):
        return Refusal(Reason.OVERFLOW, f'the type of "{node.name}" cannot hold the value {new:g}')
    return [SetConstant(node, 2, dense(new, dtype), kind, "value")]


# --- DepthToSpace and SpaceToDepth


def _deep_channels(node: Node, value: Value | None, facts: Facts) -> tuple[int, int] | None:
    """Number of channels on the deep side, and block size squared."""
    block = node.attribute("blocksize", 0) ** 2
    length = _length(value, 1, facts)
    return None if length is None or block == 0 else (length, block)


def _shallow_of_deep(node: Node, deep: int, block: int) -> Indices:
    """For each channel of the deep side, its channel on the shallow side."""
    channels = np.arange(deep)
    columns_first = node.op == "DepthToSpace" and node.attribute("mode", "DCR") == "CRD"
    return channels // block if columns_first else channels % (deep // block)


def _to_deep(node: Node, affine: Affine, value: Value | None, facts: Facts) -> Answer:
    if not affine.axes <= {0, 1}:
        return Refusal(Reason.NOT_PER_CHANNEL, f'"{node.name}" moves positions into channels')
    sizes = _deep_channels(node, value, facts)
    if sizes is None:
        return [Step(passes={0: affine})] if 1 not in affine.axes else _unknown(node, 1)
    return [Step(passes={0: affine.take(1, _shallow_of_deep(node, *sizes))})]


def _to_shallow(node: Node, affine: Affine, value: Value | None, facts: Facts) -> Answer:
    if not affine.axes <= {0, 1}:
        return Refusal(Reason.NOT_PER_CHANNEL, f'"{node.name}" moves channels into positions')
    if 1 not in affine.axes:
        return [Step(passes={0: affine})]
    sizes = _deep_channels(node, value, facts)
    if sizes is None:
        return _unknown(node, 1)
    origin = _shallow_of_deep(node, *sizes)
    _, first = np.unique(origin, return_index=True)
    shallow = affine.take(1, first)
    if not shallow.take(1, origin).same_as(affine):
        return Refusal(
            Reason.NOT_PER_CHANNEL, f'"{node.name}" mixes channels with different affines'
        )
    return [Step(passes={0: shallow})]


def _depth_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    side = _to_deep if node.op == "DepthToSpace" else _to_shallow
    deep = node.input(0) if node.op == "DepthToSpace" else node.output()
    return side(node, demands[0], deep, facts)


def _depth_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    side = _to_shallow if node.op == "DepthToSpace" else _to_deep
    deep = node.input(0) if node.op == "DepthToSpace" else node.output()
    return side(node, pending[0], deep, facts)


_SELECT = Rule(
    _select_backward,
    _select_forward,
    takes="any; elements that are not selected get the identity",
    gives="any",
    equation="arrays are sliced; upwards they are scattered",
)
_DEPTH = Rule(
    _depth_backward,
    _depth_forward,
    takes="any per channel",
    gives="any per channel; towards fewer channels only if those that merge agree",
    equation="channels are mapped, in both modes",
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
    "Pad": Rule(
        _pad_backward,
        _pad_forward,
        takes="any for reflect, edge, wrap; a constant v only if s v + t is one value, the new v",
        gives="any for reflect, edge, wrap; padded by the constant 0 only t = 0; padded channels "
        "count as (1, 0)",
        equation="v = s v + t",
    ),
    "DepthToSpace": _DEPTH,
    "SpaceToDepth": _DEPTH,
}
