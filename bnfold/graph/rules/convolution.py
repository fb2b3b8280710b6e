"""Conv and ConvTranspose: they own the channel axis on both sides.

Backward, always exact: the output channels of the weight and the bias take scale and shift.
Forward, the scale always folds. The shift reaches every output position alike only where no padding
is ever read (Conv), or where every position sees the same taps (ConvTranspose with kernel 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bnfold import absorb
from bnfold.affine import Affine, Float64
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Refusal, Rule, Step
from bnfold.graph.rules.parameters import Weight, read_bias, read_weight, vectors
from bnfold.graph.rules.pooling import SAME
from bnfold.report import Reason

__all__ = ["RULES"]


def _weight(node: Node, facts: Facts) -> Weight | Refusal:
    weight = read_weight(node, 1, facts)
    if isinstance(weight, Weight) and len(weight.shape) < 3:
        return facts.not_constant(node, 1, "weight")
    return weight


def _backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    weight = _weight(node, facts)
    if isinstance(weight, Refusal):
        return weight
    groups, rank = node.attribute("group", 1), len(weight.shape)
    transposed = node.op == "ConvTranspose"
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    if demands[0].rank != rank:
        return _wrong_rank(node)
    affine = vectors(demands[0], 1, channels, node)
    if isinstance(affine, Refusal):
        return affine
    bias = read_bias(node, 2, channels, weight.elem_type, facts)
    if isinstance(bias, Refusal):
        return bias
    if transposed:
        scale = absorb.conv_transpose_output_scale(affine.scale, weight.shape[0], groups, rank)
    else:
        scale = absorb.conv_output_scale(affine.scale, rank)
    scaled = weight.scaled(scale)
    shifted = bias.replaced(affine.apply(bias.values))
    for edits in (scaled, shifted):
        if isinstance(edits, Refusal):
            return edits
    return [Step(edits=(*scaled, *shifted), absorbs=True)]  # type: ignore[misc]


def _forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    if set(pending) != {0}:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'"{node.name}" reads it as its weight or bias')
    weight = _weight(node, facts)
    if isinstance(weight, Refusal):
        return weight
    groups, rank = node.attribute("group", 1), len(weight.shape)
    transposed = node.op == "ConvTranspose"
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    if pending[0].rank != rank:
        return _wrong_rank(node)
    affine = vectors(pending[0], 1, channels, node)
    if isinstance(affine, Refusal):
        return affine
    if affine.offset.any() and not _shift_is_uniform(node, weight, facts):
        return Refusal(
            Reason.PADDING_SHIFT,
            f'"{node.name}" does not see the shift alike at every position (padding or phases)',
        )
    bias = read_bias(node, 2, outputs, weight.elem_type, facts)
    if isinstance(bias, Refusal):
        return bias
    if transposed:
        scale = absorb.conv_transpose_input_scale(affine.scale, rank)
    else:
        scale = absorb.conv_input_scale(affine.scale, outputs, groups, rank)
    added = bias.values
    if affine.offset.any():
        added = bias.values + _input_shift(weight, affine.offset, groups, transposed=transposed)
    scaled, shifted = weight.scaled(scale), bias.replaced(added)
    for edits in (scaled, shifted):
        if isinstance(edits, Refusal):
            return edits
    return [Step(edits=(*scaled, *shifted), absorbs=True)]  # type: ignore[misc]


def _input_shift(weight: Weight, t: Float64, groups: int, *, transposed: bool) -> Float64:
    if groups > 1:
        shift = absorb.conv_transpose_input_shift if transposed else absorb.conv_input_shift
        return shift(weight.float64, t, groups)
    if transposed:
        return weight.sum_of_rows(
            t, lambda block, part: absorb.conv_transpose_input_shift(block, part, 1)
        )
    return weight.each_row(lambda block: absorb.conv_input_shift(block, t, 1))


def _shift_is_uniform(node: Node, weight: Weight, facts: Facts) -> bool:
    kernel = weight.shape[2:]
    if node.op == "ConvTranspose":
        whole = math.prod(kernel) == 1 and not any(node.attribute("output_padding", ()))
        strided = any(stride != 1 for stride in node.attribute("strides", ()))
        return whole and not strided and not _pads(node, kernel, facts)
    return not _pads(node, kernel, facts)


def _pads(node: Node, kernel: tuple[int, ...], facts: Facts) -> bool:
    """True unless it is certain that no padding is ever read."""
    mode = node.attribute("auto_pad", "NOTSET")
    if mode not in (*SAME, "VALID"):
        return any(node.attribute("pads", ())) or "output_shape" in node.attributes
    if "output_shape" in node.attributes:
        return True
    return mode in SAME and not _same_needs_none(node, kernel, facts)


def _same_needs_none(node: Node, kernel: tuple[int, ...], facts: Facts) -> bool:
    """SAME pads max((ceil(in / stride) - 1) * stride + reach - in, 0) along each axis."""
    if math.prod(kernel) == 1:
        return True
    dims = facts.dims(node.input(0))
    if dims is None:
        return False
    strides = node.attribute("strides") or [1] * len(kernel)
    dilations = node.attribute("dilations") or [1] * len(kernel)
    for length, k, stride, dilation in zip(dims[2:], kernel, strides, dilations, strict=True):
        if isinstance(length, str):
            return False
        if (math.ceil(length / stride) - 1) * stride + (k - 1) * dilation + 1 > length:
            return False
    return True


def _wrong_rank(node: Node) -> Refusal:
    return Refusal(Reason.UNKNOWN_SHAPE, f'the rank at "{node.name}" does not match its weight')


RULES = {
    "Conv": Rule(
        _backward,
        _forward,
        takes="any, per channel",
        gives="any, per channel; a shift only where no padding is ever read",
        equation="W[m] s[m], b = s b + t; forward W[m,c] s[c], b[m] += sum W[m,c,k] t[c]",
    ),
    "ConvTranspose": Rule(
        _backward,
        _forward,
        takes="any, per channel",
        gives="any scale per channel; a shift only for kernel 1, stride 1, no padding",
        equation="W[c,j] s[q M/g + j], b = s b + t; forward W[c] s[c]",
    ),
}
