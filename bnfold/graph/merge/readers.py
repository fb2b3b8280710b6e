"""Which nodes are linear operators on one value, and what they are as such.

Conv, ConvTranspose, Gemm and MatMul with constant weights are operators of their own. A
normalization, arithmetic with a constant per channel, Identity, and an AveragePool whose windows
all have the same weights take the form of the operators that they are joined with.

An AveragePool is a constant kernel 1/k only where padding is counted or there is none, and where
no window is cut off by ``ceil_mode``.

Source: the ONNX operator specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.merge.operators import Form, Operator
from bnfold.graph.merge.windows import Axis
from bnfold.graph.plan import Refusal
from bnfold.graph.rules.batchnorm import read_batchnorm
from bnfold.graph.rules.elementwise import constant_operand
from bnfold.graph.rules.parameters import QuantizedWeight, Weight, read_bias, read_weight
from bnfold.graph.rules.pooling import SAME
from bnfold.report import Reason

__all__ = ["READERS", "Link", "Reader", "read_link"]


@dataclass(frozen=True, eq=False)
class Link:
    """One node as a linear operator on one of its inputs.

    Attributes:
        node: The node.
        index: The input that is computed.
        operator: What it does; None for what takes the form of its partners.
        affine: Then, its scale and shift for a tensor of a given rank; None for none.
        axes: Then, the window whose mean it takes; empty for none.
        work: Multiply-adds for one position of its output; for what has no operator, and one
            channel.
        elements: Numbers that it stores: weight, bias, parameters.
    """

    node: Node
    index: int
    operator: Operator | None = None
    affine: Callable[[int], Affine | Refusal] | None = None
    axes: tuple[Axis, ...] = ()
    work: int = 0
    elements: int = 0

    @property
    def stride(self) -> int:
        """Positions of its input for one of its output."""
        axes = self.axes if self.operator is None else self.operator.axes
        return math.prod(axis.stride for axis in axes)


Answer = Link | Refusal


@dataclass(frozen=True)
class Reader:
    """How an operator is read.

    Attributes:
        read: The node as a link, or why it is none.
        takes_part: For the documentation: when it takes part in a merge.
        kernel: For the documentation: as what.
    """

    read: Callable[[Node, Facts], Answer]
    takes_part: str
    kernel: str


def read_link(node: Node, facts: Facts) -> Answer:
    """Read one node, or say why it is not linear."""
    reader = READERS.get(node.op)
    if reader is None or node.has_references or len(node.outputs) != 1:
        return Refusal(Reason.NONLINEAR, f'{node.op} "{node.name}" is not a linear operator')
    if node in facts.excluded:
        return Refusal(Reason.EXCLUDED, f'"{node.name}" is excluded by name')
    return reader.read(node, facts)


# --- convolutions


def _convolution(node: Node, facts: Facts) -> Answer:
    weight = _weight(node, 1, facts)
    if isinstance(weight, Refusal):
        return weight
    spatial, groups = len(weight.shape) - 2, int(node.attribute("group", 1))
    transposed = node.op == "ConvTranspose"
    if spatial < 1 or groups < 1 or weight.shape[0] % groups or 0 in weight.shape:
        return facts.not_constant(node, 1, "weight")
    rows, columns = weight.shape[:2]
    outputs = columns * groups if transposed else rows
    axes = _windows(node, weight.shape[2:], facts)
    bias = read_bias(node, 2, outputs, weight.elem_type, facts)
    for found in (axes, bias):
        if isinstance(found, Refusal):
            return found
    if bias.elem_type != weight.elem_type or not np.isfinite(bias.values).all():  # type: ignore[union-attr]
        return facts.not_constant(node, 2, "bias")
    operator = Operator(
        Form(node.op, spatial, weight.elem_type),
        weight.constant.lazy(),
        groups,
        axes,  # type: ignore[arg-type]
        bias.values,  # type: ignore[union-attr]
    )
    stored = math.prod(weight.shape) + (0 if bias.absent else outputs)  # type: ignore[union-attr]
    return Link(node, 0, operator, work=operator.multiply_adds, elements=stored)


def _weight(node: Node, index: int, facts: Facts) -> Weight | Refusal:
    weight = read_weight(node, index, facts)
    if isinstance(weight, QuantizedWeight):
        return Refusal(Reason.DYNAMIC_WEIGHT, f'the weight of "{node.name}" is quantized')
    return weight


def _windows(node: Node, kernel: tuple[int, ...], facts: Facts) -> tuple[Axis, ...] | Refusal:
    """The window along each spatial axis, with explicit padding."""
    count = len(kernel)
    given = node.attribute("kernel_shape")
    strides = list(node.attribute("strides") or [1] * count)
    dilations = list(node.attribute("dilations") or [1] * count)
    extra = list(node.attribute("output_padding") or [0] * count)
    dilations = [d if k > 1 else 1 for d, k in zip(dilations, kernel, strict=False)]
    pads = _pads(node, kernel, strides, dilations, facts)
    if isinstance(pads, Refusal):
        return pads
    fits = (
        all(len(each) == count for each in (strides, dilations, extra)) and len(pads) == 2 * count
    )
    positive = min(*kernel, *strides, *dilations) > 0 and min(pads) >= 0
    if not fits or not positive or list(given or kernel) != list(kernel):
        return Refusal(Reason.UNKNOWN_SHAPE, f'the window of "{node.name}" is not understood')
    return tuple(
        Axis(kernel[i], strides[i], dilations[i], pads[i], pads[count + i], extra[i])
        for i in range(count)
    )


def _pads(
    node: Node, kernel: tuple[int, ...], strides: list[int], dilations: list[int], facts: Facts
) -> list[int] | Refusal:
    count = len(kernel)
    mode = node.attribute("auto_pad", "NOTSET")
    fixed = mode in ("NOTSET", "VALID") and "output_shape" not in node.attributes
    if node.op == "ConvTranspose" and not fixed:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" finds its padding by itself')
    if mode == "NOTSET":
        return list(node.attribute("pads") or [0] * 2 * count)
    if mode == "VALID":
        return [0] * 2 * count
    if mode not in SAME:
        return Refusal(Reason.UNKNOWN_SHAPE, f'the padding of "{node.name}" is not understood')
    dims = facts.dims(node.input(0))
    pads = [0] * 2 * count
    for i in range(count):
        length = None if dims is None or len(dims) != count + 2 else dims[2 + i]
        reach = (kernel[i] - 1) * dilations[i] + 1
        if strides[i] == 1:
            whole = reach - 1
        elif isinstance(length, int):
            whole = max((-(-length // strides[i]) - 1) * strides[i] + reach - length, 0)
        else:
            return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" pads an unknown length')
        less = whole // 2
        pads[i], pads[count + i] = (
            (less, whole - less) if mode == "SAME_UPPER" else (whole - less, less)
        )
    return pads


# --- pools


def _average_pool(node: Node, facts: Facts) -> Answer:
    kernel = tuple(node.attribute("kernel_shape") or ())
    axes = _windows(node, kernel, facts) if kernel else _odd(node)
    if isinstance(axes, Refusal):
        return axes
    counted = node.attribute("count_include_pad", 0)
    given = node.attribute("auto_pad", "NOTSET") == "NOTSET"
    if any(axis.is_padded for axis in axes) and not (counted and given):
        return Refusal(
            Reason.PADDING_SHIFT, f'"{node.name}" does not count padding: no constant kernel'
        )
    if node.attribute("ceil_mode", 0) and not _whole_windows(node, axes, facts):
        return Refusal(Reason.PADDING_SHIFT, f'"{node.name}" may cut off its last window')
    return Link(node, 0, axes=axes, work=math.prod(kernel))


def _odd(node: Node) -> Refusal:
    return Refusal(Reason.UNKNOWN_SHAPE, f'the window of "{node.name}" is not understood')


def _whole_windows(node: Node, axes: tuple[Axis, ...], facts: Facts) -> bool:
    dims = facts.dims(node.input(0))
    if dims is None or len(dims) != len(axes) + 2:
        return False
    return all(
        isinstance(length, int) and (length + axis.slack) % axis.stride == 0
        for length, axis in zip(dims[2:], axes, strict=True)
    )


# --- per channel


def _identity(node: Node, facts: Facts) -> Answer:
    return Link(node, 0)


def _batchnorm(node: Node, facts: Facts) -> Answer:
    norm = read_batchnorm(node, facts)
    if isinstance(norm, Refusal):
        return norm
    return Link(node, 0, affine=norm.at_rank, work=1, elements=4 * norm.channels)


def _arithmetic(node: Node, facts: Facts) -> Answer:
    operand = constant_operand(node, None, facts)
    if isinstance(operand, Refusal):
        return operand

    def affine(rank: int) -> Affine | Refusal:
        if operand.affine.rank == rank:
            return operand.affine
        return Refusal(Reason.UNKNOWN_SHAPE, f'the rank at "{node.name}" is not proved')

    stored = 0 if node.op == "Neg" else int(operand.constant.data.size)
    work = int(node.op in ("Mul", "Div"))
    return Link(node, operand.index, affine=affine, work=work, elements=stored)


# --- matrices


def _product(node: Node, facts: Facts) -> Answer:
    weight = _weight(node, 1, facts)
    if isinstance(weight, Refusal):
        weight = _weight(node, 0, facts)
    if isinstance(weight, Refusal):
        return weight
    other = node.input(1 - weight.index)
    if len(weight.shape) != 2 or 0 in weight.shape or facts.constants.get(other) is not None:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" is not a product with a matrix')
    rank = facts.rank(other)
    if node.op == "MatMul" and weight.index == 0 and (rank is None or rank < 2):
        return Refusal(Reason.UNKNOWN_SHAPE, f'the rank at "{node.name}" is not proved')
    gemm = node.op == "Gemm"
    flags = [gemm and bool(node.attribute(name, 0)) for name in ("transA", "transB")]
    if flags[1 - weight.index]:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" transposes what is computed')
    form = Form("XW" if weight.index == 1 else "WX", 0, weight.elem_type)
    lazy = weight.constant.lazy()
    lazy = lazy.swapped() if flags[weight.index] else lazy
    alpha = float(node.attribute("alpha", 1.0)) if gemm else 1.0
    if alpha != 1.0:
        lazy = lazy.times(np.full((1, 1), alpha))
    bias, stored = np.zeros((1, 1)), 0
    value, beta = (node.input(2), float(node.attribute("beta", 1.0))) if gemm else (None, 0.0)
    if value is not None and beta != 0.0:
        constant = facts.constant(value)
        if constant is None or constant.any_shape or constant.elem_type != weight.elem_type:
            return facts.not_constant(node, 2, "bias")
        bias = constant.float64 * beta
        bias, stored = bias.reshape((1,) * (2 - bias.ndim) + bias.shape), bias.size
        if not np.isfinite(bias).all():
            return facts.not_constant(node, 2, "bias")
    work = math.prod(weight.shape)
    operator = Operator(form, lazy, 1, (), bias)
    return Link(node, 1 - weight.index, operator, work=work, elements=work + stored)


_PER_CHANNEL = "with a constant per channel"
READERS: dict[str, Reader] = {
    "Conv": Reader(_convolution, "constant weights, any window", "its own kernel"),
    "ConvTranspose": Reader(
        _convolution, "constant weights, explicit padding, beside others", "its own kernel"
    ),
    "Gemm": Reader(
        _product, "one constant operand, the other not transposed, constant C", "its matrix"
    ),
    "MatMul": Reader(_product, "one constant operand of rank 2", "its matrix"),
    "BatchNormalization": Reader(_batchnorm, "at inference", "diagonal, kernel 1, with a bias"),
    "Add": Reader(_arithmetic, _PER_CHANNEL, "a bias"),
    "Sub": Reader(_arithmetic, _PER_CHANNEL, "diagonal, kernel 1, with a bias"),
    "Mul": Reader(_arithmetic, _PER_CHANNEL, "diagonal, kernel 1"),
    "Div": Reader(_arithmetic, "by a constant per channel", "diagonal, kernel 1"),
    "Neg": Reader(_arithmetic, "always", "minus one on the diagonal, kernel 1"),
    "Identity": Reader(_identity, "always", "one on the diagonal, kernel 1"),
    "AveragePool": Reader(
        _average_pool,
        "no padding, or padding that is counted; no window cut off",
        "diagonal, 1/k at every tap",
    ),
}
