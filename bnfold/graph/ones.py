"""A shift in front of zero padding, carried by one more channel that is constantly 1.

The second Conv takes the scale, but not the shift, which its padding lacks. If the first one has
one more output channel, with weights 0 and bias 1, then f(1) = 1 stands beside the data and is
zero-padded like it. The second Conv reads it with W[m, C, k] = sum over c of W[m, c, k] * t[c], and
so adds what the shift would have added, at each position from the taps that are there.

f maps 1 to 1 in each channel alone: Relu and its kin, and MaxPool, which pads with minus infinity.

Both convolutions must be each other's only partner, as every reader of the first one would see the
new channel. The price is one channel more; where that makes an odd number of them, runtimes may be
slower, so it is done on request only.
"""

from __future__ import annotations

import numpy as np

from bnfold import absorb
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node, Value
from bnfold.graph.merge.branches import is_private
from bnfold.graph.plan import Bypass, Plan, Refusal, SetConstant, SetShape
from bnfold.graph.rules.activation import clip_bounds
from bnfold.graph.rules.parameters import (
    QuantizedWeight,
    Weight,
    read_bias,
    read_weight,
    store_bias,
    vectors,
)
from bnfold.graph.rules.pooling import sees_padding_only
from bnfold.graph.sites import Site
from bnfold.kernels import Joined, Placed, contract
from bnfold.lazy import Scaled
from bnfold.report import Reason

__all__ = ["plan_ones_channel"]

KEEPS_ONE = ("Relu", "LeakyRelu", "Identity", "Abs", "MaxPool", "Clip")


def plan_ones_channel(site: Site, facts: Facts) -> Plan | Refusal:
    """The plan that folds ``site`` into the convolutions before and behind it.

    Args:
        site: What should go, where a shift does not reach what is padded.
        facts: Knowledge about the graph.
    """
    last, _ = site.members[-1]
    if not is_private(site.output, last) or last.scope is not site.members[0][0].scope:
        return _alone(site)
    consumer = next(iter(site.output.uses)).node
    found = _producer(site, facts)
    if found is None or consumer.input(0) is not site.output:
        return _alone(site)
    producer, between = found
    first, second = _weight(producer, facts), _weight(consumer, facts)
    for weight in (first, second):
        if isinstance(weight, Refusal):
            return weight
    assert isinstance(first, Weight)  # noqa: S101 - the loop has seen it
    assert isinstance(second, Weight)  # noqa: S101 - as above
    channels = first.shape[0]
    if second.shape[1] != channels or first.elem_type != second.elem_type:
        return _alone(site)
    affine = vectors(site.affine, 1, channels, consumer)
    bias = read_bias(producer, 2, channels, first.elem_type, facts)
    for each in (affine, bias):
        if isinstance(each, Refusal):
            return each
    shifted = store_bias(producer, 2, np.append(bias.values, 1.0), first.elem_type)  # type: ignore[union-attr]
    grown = _with_row(first)
    joined = _with_column(second, affine.scale, affine.offset)  # type: ignore[union-attr]
    if isinstance(shifted, Refusal):
        return shifted
    if grown.out_of_range() is not None or joined.out_of_range() is not None:
        return Refusal(Reason.OVERFLOW, f'the type of "{consumer.name}" cannot hold the new weight')
    edits = [
        *(SetShape(node, _one_more(node.outputs[0])) for node in (producer, *between)),
        SetConstant(producer, 1, grown, first.elem_type, "weight"),
        *shifted,
        SetConstant(consumer, 1, joined, second.elem_type, "weight"),
        *(Bypass(node, index) for node, index in reversed(site.members)),
    ]
    changed = [value for node in (producer, *between) if (value := node.outputs[0]) is not None]
    return Plan(
        "forward",
        edits,
        changed=changed,
        into=[producer, consumer],
        through=between,
    )


def _alone(site: Site) -> Refusal:
    return Refusal(
        Reason.FAN_OUT, f'no two convolutions without groups have "{site.name}" to themselves'
    )


def _producer(site: Site, facts: Facts) -> tuple[Node, list[Node]] | None:
    """The convolution in front of a site, and the nodes between."""
    value = site.input
    between: list[Node] = []
    while True:
        node = value.producer
        if node is None or not is_private(value, node) or node.has_references:
            return None
        if node.op == "Conv":
            return node, between
        source = node.input(0)
        if node.op not in KEEPS_ONE or source is None or len(node.outputs) > 1:
            return None
        if node.op == "MaxPool" and sees_padding_only(node):
            return None
        if node.op == "Clip":
            low, high = clip_bounds(node, facts)
            if not low <= 1.0 <= high:
                return None
        between.append(node)
        value = source


def _weight(node: Node, facts: Facts) -> Weight | Refusal:
    if node.op != "Conv" or node.attribute("group", 1) != 1:
        return Refusal(Reason.NO_LINEAR_NEIGHBOUR, f'"{node.name}" is no Conv of one group')
    weight = read_weight(node, 1, facts)
    if isinstance(weight, QuantizedWeight) or (
        isinstance(weight, Weight) and len(weight.shape) < 3
    ):
        return facts.not_constant(node, 1, "weight")
    return weight


def _with_row(weight: Weight) -> Joined:
    rows, *rest = weight.shape
    taps = tuple(slice(0, length) for length in rest[1:])
    dtype = FLOATS[weight.elem_type]
    return Joined((rows + 1, *rest), 1, (Placed(weight.constant.lazy(), 1, taps),), None, dtype)


def _with_column(weight: Weight, scale: np.ndarray, shift: np.ndarray) -> Joined:
    rows, columns, *kernel = weight.shape
    taps = tuple(slice(0, length) for length in kernel)
    lazy, dtype = weight.constant.lazy(), FLOATS[weight.elem_type]
    scaled = lazy.times(absorb.conv_input_scale(scale, rows, 1, len(weight.shape)))
    extra = Scaled(contract(lazy, shift), None, dtype)
    parts = (Placed(scaled, 1, taps), Placed(extra, 1, taps, column=columns))
    return Joined((rows, columns + 1, *kernel), 1, parts, None, dtype)


def _one_more(value: Value | None) -> tuple[int | str, ...] | None:
    shape = None if value is None else value.shape
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int):
        return None
    return (shape[0], shape[1] + 1, *shape[2:])
