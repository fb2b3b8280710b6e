"""Linear operators on one value, with weight and bias unrounded: joined side by side, or composed.

Side by side, with signs::

    sum of +-(W_i x + b_i) = (sum of +-W_i) x + (sum of +-b_i)

One behind the other::

    W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)

Conv and ConvTranspose act along axis 1 (``windows.py`` has the rest), matrices along the last axis
(x W) or the one before it (W x). A scale per channel is a Conv of kernel 1 with a group for each
channel, or a diagonal matrix. Groups that do not nest are one group of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold import absorb
from bnfold.affine import Affine, Float64, contracted
from bnfold.graph.constants import FLOATS
from bnfold.graph.merge.windows import Axis, align
from bnfold.graph.merge.windows import compose as compose_axes
from bnfold.graph.plan import Refusal
from bnfold.kernels import Joined, Placed, Product, depthwise
from bnfold.lazy import Unrounded
from bnfold.report import Reason

__all__ = ["Form", "Operator", "channelwise", "compose", "join"]


@dataclass(frozen=True)
class Form:
    """What operators must have in common to be joined.

    Attributes:
        op: ``Conv``, ``ConvTranspose``, ``XW`` for a constant on the right, ``WX`` on the left.
        spatial: Number of spatial axes; 0 for matrices.
        elem_type: Float type of the weights.
    """

    op: str
    spatial: int
    elem_type: int

    @property
    def is_matrix(self) -> bool:
        """True for Gemm and MatMul."""
        return self.spatial == 0

    @property
    def rows_are_outputs(self) -> bool:
        """True if the first axis of the weight counts outputs: Conv and W x."""
        return self.op in ("Conv", "WX")


@dataclass(frozen=True, eq=False)
class Operator:
    """y = W x + b.

    Attributes:
        form: What kind of operator.
        weight: Conv (M, C/g, k...), ConvTranspose (C, M/g, k...), x W (K, N), W x (M, K).
        groups: g; 1 for matrices unless it is diagonal, then (C, 1) of C groups.
        axes: The window along each spatial axis.
        bias: Conv (M,); matrices two axes that broadcast against the result.
        scale: (C,) if all that it does is a scale per channel, else None.
    """

    form: Form
    weight: Unrounded
    groups: int
    axes: tuple[Axis, ...]
    bias: Float64
    scale: Float64 | None = None

    @property
    def rows(self) -> int:
        """Length of the first axis of the weight."""
        return self.weight.shape[0]

    @property
    def columns(self) -> int:
        """Length of the second axis of the weight, over all groups."""
        return self.weight.shape[1] * self.groups

    @property
    def inputs(self) -> int:
        """Number of channels that it reads."""
        return self.columns if self.form.rows_are_outputs else self.rows

    @property
    def outputs(self) -> int:
        """Number of channels that it gives."""
        return self.rows if self.form.rows_are_outputs else self.columns

    @property
    def multiply_adds(self) -> int:
        """For one position of the output (ConvTranspose: of the input)."""
        return math.prod(self.weight.shape)

    def plus(self, shift: Float64) -> Operator:
        """The same with another bias added."""
        return replace(self, bias=self.bias + shift)

    @property
    def passes_shift(self) -> bool:
        """True if a shift of its input shifts every position of its output alike."""
        if self.form.op == "ConvTranspose":
            return all(axis == Axis() for axis in self.axes)
        return not any(axis.is_padded for axis in self.axes)


def channelwise(
    form: Form, affine: Affine | None, channels: int, axes: Sequence[Axis] = ()
) -> Operator:
    """A scale and shift per channel, or the mean over a window.

    Args:
        form: The form of the operators that it is to be joined with.
        affine: Vectors of shape (C,); None for the identity.
        channels: C.
        axes: The window whose mean is taken; of length 1 along each axis if empty.
    """
    scale = np.ones(channels) if affine is None else affine.scale
    shift = np.zeros(channels) if affine is None else affine.offset
    window = tuple(axes) or (Axis(),) * form.spatial
    kernel = tuple(axis.kernel for axis in window)
    weight = depthwise(scale / math.prod(kernel), kernel, FLOATS[form.elem_type])
    if form.is_matrix:
        shift = shift.reshape((1, -1) if form.op == "XW" else (-1, 1))
    return Operator(form, weight, channels, window, shift, None if axes else scale)


def join(
    operators: Sequence[Operator], signs: Sequence[int], lengths: Sequence[int | None]
) -> Operator | Refusal:
    """The sum of operators on one value.

    Args:
        operators: Of one form.
        signs: 1 or -1 for each.
        lengths: Spatial lengths of the value, None where unknown.
    """
    first = operators[0]
    sizes = {(operator.inputs, operator.outputs) for operator in operators}
    if len(sizes) > 1:
        return Refusal(Reason.NOT_PER_CHANNEL, "the branches differ in their channels")
    window: list[Axis] = []
    places: list[list[slice]] = [[] for _ in operators]
    for number, length in enumerate(lengths):
        aligned = align(
            [operator.axes[number] for operator in operators],
            transposed=first.form.op == "ConvTranspose",
            length=length,
        )
        if isinstance(aligned, str):
            return Refusal(Reason.PADDING_SHIFT, f"{aligned} along axis {2 + number}")
        window.append(aligned[0])
        for place, step in zip(places, aligned[1], strict=True):
            place.append(step)
    groups = math.gcd(*(operator.groups for operator in operators))
    parts = [
        Placed(_signed(operator.weight, sign), operator.groups, tuple(place))
        for operator, sign, place in zip(operators, signs, places, strict=True)
    ]
    kernel = tuple(axis.kernel for axis in window)
    shape = (first.rows, first.columns // groups, *kernel)
    weight = Joined(shape, groups, tuple(parts), None, FLOATS[first.form.elem_type])
    bias = np.zeros_like(first.bias)
    for operator, sign in zip(operators, signs, strict=True):
        bias = bias + sign * operator.bias
    return Operator(first.form, weight, groups, tuple(window), bias)


def _signed(weight: Unrounded, sign: int) -> Unrounded:
    return weight if sign > 0 else weight.times(np.full((1,) * len(weight.shape), -1.0))


def compose(outer: Operator, inner: Operator) -> Operator | Refusal:
    """``outer`` behind ``inner``, as one operator.

    Args:
        outer: The second one.
        inner: The first one, of the same form, with as many outputs as ``outer`` has inputs.
    """
    if outer.inputs != inner.outputs:
        return Refusal(Reason.NOT_PER_CHANNEL, "the matrices do not follow one another")
    if outer.scale is not None:
        return _then_scale(inner, outer.scale, outer.bias)
    if inner.scale is not None and (outer.passes_shift or not inner.bias.any()):
        weight = outer.weight.times(_input_scale(outer, inner.scale))
        return replace(outer, weight=weight, bias=outer.bias + _carried(outer, inner.bias))
    if outer.form.op == "ConvTranspose":
        return Refusal(Reason.NONLINEAR, "transposed convolutions are not put together")
    return _behind(outer, inner)


def _behind(outer: Operator, inner: Operator) -> Operator | Refusal:
    silent = not inner.bias.any()
    window: list[Axis] = []
    steps: list[tuple[int, int]] = []
    for second, first in zip(outer.axes, inner.axes, strict=True):
        composed = compose_axes(second, first, silent=silent)
        if isinstance(composed, str):
            return Refusal(Reason.PADDING_SHIFT, composed)
        window.append(composed[0])
        steps.append(composed[1:])
    left, right = (outer, inner) if outer.form.rows_are_outputs else (inner, outer)
    groups = math.gcd(outer.groups, inner.groups)
    weight = Product(
        left.weight,
        left.groups,
        right.weight,
        right.groups,
        groups,
        tuple(axis.kernel for axis in window),
        tuple(step[0] for step in steps),
        tuple(step[1] for step in steps),
        FLOATS[outer.form.elem_type],
    )
    bias = outer.bias + _carried(outer, inner.bias)
    return Operator(inner.form, weight, groups, tuple(window), bias)


def _then_scale(inner: Operator, scale: Float64, shift: Float64) -> Operator:
    rank = len(inner.weight.shape)
    if inner.form.rows_are_outputs:
        factor = absorb.conv_output_scale(scale, rank)
    else:
        factor = absorb.conv_transpose_output_scale(scale, inner.rows, inner.groups, rank)
    along = scale
    if inner.form.is_matrix:
        along = scale.reshape((1, -1) if inner.form.op == "XW" else (-1, 1))
    both = None if inner.scale is None else inner.scale * scale
    return replace(
        inner, weight=inner.weight.times(factor), bias=inner.bias * along + shift, scale=both
    )


def _input_scale(operator: Operator, scale: Float64) -> Float64:
    rank = len(operator.weight.shape)
    if operator.form.rows_are_outputs:
        return absorb.conv_input_scale(scale, operator.rows, operator.groups, rank)
    return absorb.conv_transpose_input_scale(scale, rank)


def _carried(operator: Operator, bias: Float64) -> Float64:
    """What a bias in front of an operator becomes behind it; where it is padded there is none."""
    if not bias.any():
        return np.zeros_like(operator.bias)
    weight = operator.weight
    match operator.form.op:
        case "XW":
            columns = np.broadcast_to(bias, (bias.shape[0], operator.rows))
            return contracted("nr,rc->nc", columns, _matrix(operator))
        case "WX":
            rows = np.broadcast_to(bias, (operator.columns, bias.shape[1]))
            return contracted("rc,cn->rn", _matrix(operator), rows)
        case "Conv":
            return absorb.conv_input_shift(weight.float64(), bias, operator.groups)
    return absorb.conv_transpose_input_shift(weight.float64(), bias, operator.groups)


def _matrix(operator: Operator) -> Float64:
    values = operator.weight.float64()
    return values if operator.groups == 1 else np.diag(values.reshape(-1))
