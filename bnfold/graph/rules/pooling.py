"""Pools, reductions and resizing: weighted means and maxima over positions.

Where the weights sum to 1, any affine that does not vary along those positions passes. A counted
zero padding breaks the sum, so only t = 0 passes. A maximum passes where no scale is negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bnfold.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Refusal, Rule, Step
from bnfold.report import Reason

__all__ = ["RULES", "SAME", "sees_padding_only"]

SAME = ("SAME_UPPER", "SAME_LOWER")

Guard = Callable[[Node, Affine, Facts], "Refusal | None"]


def _rule(guard: Guard, note: str, equation: str) -> Rule:
    """A rule for operators over the spatial axes, which keep the rank."""

    def answer(node: Node, affines: Mapping[int, Affine], facts: Facts) -> Answer:
        affine = affines.get(0)
        if affine is None or len(affines) > 1:
            return Refusal(Reason.NONLINEAR, f'"{node.name}" has another output or input in use')
        if not affine.axes <= {0, 1}:
            return _varies(node)
        refusal = guard(node, affine, facts)
        return [Step(passes={0: affine})] if refusal is None else refusal

    return Rule(answer, answer, note, note, equation)


def _varies(node: Node) -> Refusal:
    return Refusal(
        Reason.NOT_PER_CHANNEL, f'the affine varies along an axis that "{node.name}" pools'
    )


def _positive(node: Node, affine: Affine, facts: Facts) -> Refusal | None:
    if affine.is_nonnegative:
        return None
    return Refusal(Reason.SIGN, f'a negative scale does not pass the maximum "{node.name}"')


def _max_pool(node: Node, affine: Affine, facts: Facts) -> Refusal | None:
    if node.output(1) is not None:
        return Refusal(
            Reason.NONLINEAR, f'"{node.name}" also returns indices, where ties may differ'
        )
    if sees_padding_only(node):
        return _only_padding(node)
    return _positive(node, affine, facts)


def sees_padding_only(node: Node) -> bool:
    """True unless every window of a pool is certain to see an element of the data.

    Padding is narrower than the kernel, so only taps that are apart can all miss the data.
    """
    dilations = node.attribute("dilations", ())
    if node.attribute("auto_pad", "NOTSET") in SAME:
        return any(dilation != 1 for dilation in dilations)
    pads = node.attribute("pads", ())
    both = zip(pads, pads[len(pads) // 2 :], dilations, strict=False)
    return any(dilation != 1 and (begin or end) for begin, end, dilation in both)


def _only_padding(node: Node) -> Refusal:
    return Refusal(Reason.PADDING_SHIFT, f'a window of "{node.name}" may see nothing but padding')


def _average_pool(node: Node, affine: Affine, facts: Facts) -> Refusal | None:
    if affine.is_linear:
        return None
    if sees_padding_only(node):
        return _only_padding(node)
    counted = node.attribute("count_include_pad", 0) or node.opset < 7
    padded = any(node.attribute("pads", ())) or node.attribute("auto_pad", "NOTSET") in SAME
    if counted and (padded or node.attribute("ceil_mode", 0)):
        return Refusal(Reason.PADDING_SHIFT, f'"{node.name}" counts its zero padding in the mean')
    return None


def _anything(node: Node, affine: Affine, facts: Facts) -> Refusal | None:
    return None


# --- Resize


def _resize(node: Node, affine: Affine, facts: Facts) -> Refusal | None:
    mode = node.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        return Refusal(Reason.PADDING_SHIFT, f'"{node.name}" extrapolates with a constant')
    if mode not in _COORDINATES:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" resizes in the unknown mode "{mode}"')
    moved = [axis for axis in affine.axes if not _keeps(node, axis, affine.rank, facts)]
    return _varies(node) if moved else None


_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn",
)  # fmt: skip


def _keeps(node: Node, axis: int, rank: int, facts: Facts) -> bool:
    """True if the axis keeps its length and its samples: its scale is exactly 1."""
    axes = node.attribute("axes")
    resized = list(range(rank)) if axes is None else [other % rank for other in axes]
    if axis not in resized:
        return True
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    scales = _scales(node, facts)
    if scales is None:
        return False  # a scale of 1.2 keeps a length of 4 and yet moves its samples
    if scales:
        return len(scales) == len(resized) and scales[resized.index(axis)] == 1.0
    before, after = facts.dims(node.input(0)), facts.dims(node.output())
    if before is None or after is None or not len(before) == len(after) == rank:
        return False
    return before[axis] == after[axis]


def _scales(node: Node, facts: Facts) -> list[float] | None:
    """The scales, none where the node has none; None where they are not constant."""
    if node.op == "Upsample" and node.opset < 9:
        return list(node.attribute("scales", []))
    value = node.input(1 if node.opset < 11 or node.op == "Upsample" else 2)
    if value is None:
        return []
    constant = facts.constant(value)
    if constant is None or constant.any_shape:
        return None
    return [float(scale) for scale in constant.float64.reshape(-1)]


# --- reductions


def _reduction(guard: Guard, note: str, equation: str) -> Rule:
    def backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
        rank = facts.rank(node.input(0))
        axes = None if rank is None else _reduced(node, rank, facts)
        if rank is None or axes is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f'the axes of "{node.name}" are unknown')
        demand = demands[0]
        if node.attribute("keepdims", 1):
            if not demand.axes.isdisjoint(axes):
                return _varies(node)
        elif demand.rank + len(axes) != rank:
            return Refusal(Reason.UNKNOWN_SHAPE, f'the rank at "{node.name}" is unknown')
        else:
            demand = demand.expand_dims(sorted(axes))
        refusal = guard(node, demand, facts)
        return [Step(passes={0: demand})] if refusal is None else refusal

    def forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
        affine = pending.get(0)
        axes = None if affine is None else _reduced(node, affine.rank, facts)
        if affine is None or axes is None:
            return Refusal(Reason.UNKNOWN_SHAPE, f'the axes of "{node.name}" are unknown')
        if not affine.axes.isdisjoint(axes):
            return _varies(node)
        refusal = guard(node, affine, facts)
        if refusal is not None:
            return refusal
        if not node.attribute("keepdims", 1):
            affine = affine.squeeze(sorted(axes))
        return [Step(passes={0: affine})]

    return Rule(backward, forward, note, note, equation)


def _reduced(node: Node, rank: int, facts: Facts) -> set[int] | None:
    """The axes that are reduced; all of them where none is named."""
    in_input = node.opset >= 18 or (node.op == "ReduceSum" and node.opset >= 13)
    if in_input and node.input(1) is not None:
        axes = facts.integers(node.input(1))
        if axes is None:
            return None
    else:
        axes = None if in_input else node.attribute("axes")
    if not axes:
        return set() if node.attribute("noop_with_empty_axes", 0) else set(range(rank))
    return {axis % rank for axis in axes}


def _sum(node: Node, affine: Affine, facts: Facts) -> Refusal | None:
    if affine.is_linear:
        return None
    return Refusal(Reason.NONLINEAR, f'"{node.name}" adds the shift up once per element')


_MAXIMUM = "s >= 0, the same at every position"
_MEAN = "any, the same at every position"

RULES = {
    "AveragePool": _rule(
        _average_pool, "any if no padding is counted, else t = 0", "mean(s x + t) = s mean(x) + t"
    ),
    "GlobalAveragePool": _rule(_anything, _MEAN, "mean(s x + t) = s mean(x) + t"),
    "MaxPool": _rule(_max_pool, _MAXIMUM, "max(s x + t) = s max(x) + t"),
    "GlobalMaxPool": _rule(_positive, _MAXIMUM, "max(s x + t) = s max(x) + t"),
    "Resize": _rule(
        _resize, "any along axes that keep their length", "sum w (s x + t) = s sum w x + t"
    ),
    "Upsample": _rule(
        _resize, "any along axes that keep their length", "sum w (s x + t) = s sum w x + t"
    ),
    "ReduceMean": _reduction(_anything, _MEAN, "mean(s x + t) = s mean(x) + t"),
    "ReduceMax": _reduction(_positive, _MAXIMUM, "max(s x + t) = s max(x) + t"),
    "ReduceMin": _reduction(_positive, _MAXIMUM, "min(s x + t) = s min(x) + t"),
    "ReduceSum": _reduction(_sum, "t = 0, the same at every position", "sum(s x) = s sum(x)"),
}
