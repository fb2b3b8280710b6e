"""The weights and biases of absorbers: read them, scale them, replace them.

A weight is a float constant, or a DequantizeLinear of constant integers. The integers of a
quantized weight stay as they are; the scale goes into the quantization scale, and a negative scale
mirrors the integers at the zero point::

    (Wq - z) * q * s  =  (Wq' - z) * (q * |s|)      Wq' = Wq, or 2z - Wq where s < 0

Source: the ONNX operator specification of DequantizeLinear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS, Constant
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.plan import Edit, Refusal, SetAttributes, SetConstant, dense
from bnfold.lazy import round_to
from bnfold.report import Reason

__all__ = ["Bias", "Weight", "not_per_channel", "read_bias", "read_weight", "vectors"]

_BLOCK_ELEMENTS = 1 << 20
"""Elements of a weight that are in float64 at a time."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant weight at one input of a node.

    Attributes:
        node: The node that reads it.
        index: At which input.
        shape: Its shape.
        elem_type: Its float type.
        constant: Its values.
    """

    node: Node
    index: int
    shape: tuple[int, ...]
    elem_type: int
    constant: Constant

    @property
    def float64(self) -> Float64:
        """All values in float64."""
        return self._rows(slice(0, self.shape[0]))

    def each_row(self, shift: Callable[[Float64], Float64]) -> Float64:
        """What ``shift`` gives for all rows, a few MB of them at a time."""
        return np.concatenate([shift(block) for _, block in self._blocks()])

    def sum_of_rows(self, t: Float64, shift: Callable[[Float64, Float64], Float64]) -> Float64:
        """The sum of what ``shift`` gives for rows and their part of ``t``."""
        total = np.zeros(())
        for part, block in self._blocks():
            total = total + shift(block, t[part])
        return total

    def _blocks(self) -> Iterator[tuple[slice, Float64]]:
        rows = self.shape[0]
        step = max(1, _BLOCK_ELEMENTS * rows // max(1, math.prod(self.shape)))
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            yield part, self._rows(part)

    def _rows(self, part: slice) -> Float64:
        return self.constant.lazy().rows(part.start, part.stop)

    def scaled(self, scale: Float64) -> Sequence[Edit] | Refusal:
        """The edits that multiply the weight by a float64 scale that broadcasts against it."""
        if (scale == 1.0).all():
            return ()
        lazy = self.constant.lazy().times(scale)
        trouble = lazy.out_of_range()
        if trouble is not None:
            return _range_refusal(self.node, "weight", trouble, self.elem_type)
        return (SetConstant(self.node, self.index, lazy, self.elem_type, "weight"),)


@dataclass(frozen=True, eq=False)
class QuantizedWeight(Weight):
    """A weight that a DequantizeLinear computes from constant integers.

    Attributes:
        dequantize: The DequantizeLinear node.
        integers: Wq.
        zero_point: z, or None.
        axis: The axis along which q and z vary, or None for one scale.
    """

    dequantize: Node
    integers: Constant
    zero_point: Constant | None
    axis: int | None

    def scaled(self, scale: Float64) -> Sequence[Edit] | Refusal:
        """The edits that multiply the quantization scale; the integers stay where scale > 0."""
        if (scale == 1.0).all():
            return ()
        varying = [i for i, length in enumerate(scale.shape) if length > 1]
        target = varying[0] if varying else self.axis
        if len(varying) > 1 or self.axis not in (None, target):
            return self._refuse("is quantized along another axis")
        if target is None:
            return self._rescale(scale.reshape(-1), None)
        if self.dequantize.opset < 13:
            return self._refuse("has one quantization scale, and its opset has no others")
        length = self.shape[target]
        return self._rescale(np.broadcast_to(scale.reshape(-1), (length,)), target)

    def _rescale(self, s: Float64, axis: int | None) -> Sequence[Edit] | Refusal:
        node = self.dequantize
        if not s.all():
            return self._refuse("would get a quantization scale of 0")
        old = self.constant.float64.reshape(-1)
        new = dense((old * np.abs(s)).reshape(s.shape if axis is not None else ()), self._dtype)
        trouble = new.out_of_range()
        if trouble is not None or not (new.rounded() != 0).all():
            return self._refuse("would get a quantization scale out of range")
        edits: list[Edit] = [SetConstant(node, 1, new, self.elem_type, "scale")]
        if (s < 0).any():
            mirrored = self._mirrored(s < 0, axis)
            if mirrored is None:
                return self._refuse("cannot be mirrored at its zero point within its integer type")
            edits.append(SetConstant(node, 0, mirrored, self.integers.elem_type, "quantized"))
        if axis is not None:
            edits.append(SetAttributes(node, {"axis": axis}))
            if self.zero_point is not None and self.zero_point.data.size == 1:
                zeros = np.broadcast_to(self.zero_point.data.reshape(-1), s.shape)
                kind = self.zero_point.elem_type
                edits.append(SetConstant(node, 2, np.array(zeros), kind, "zero_point"))
        return edits

    def _mirrored(self, negative: np.ndarray, axis: int | None) -> np.ndarray | None:
        dtype = self.integers.data.dtype
        values = self.integers.data.astype(np.int64)
        shape = [1] * values.ndim
        if axis is not None:
            shape[axis] = -1
        zero = np.zeros(1, np.int64)
        if self.zero_point is not None:
            zero = self.zero_point.data.astype(np.int64)
        result = np.where(negative.reshape(shape), 2 * zero.reshape(shape) - values, values)
        low, high = _INTEGER_RANGE[self.integers.elem_type]
        return result.astype(dtype) if result.min() >= low and result.max() <= high else None

    @property
    def _dtype(self) -> np.dtype:
        return FLOATS[self.elem_type]

    def _rows(self, part: slice) -> Float64:
        zero = np.zeros(1)
        if self.zero_point is not None:
            zero = self.zero_point.data.astype(np.float64)
        values = self.integers.data[part].astype(np.float64)
        values -= self._parameter(zero, part)
        values *= self._parameter(self.constant.float64, part)
        return values

    def _parameter(self, array: Float64, part: slice) -> Float64:
        """The zero point or the scale of these rows, so that it broadcasts against them."""
        shape = [1] * len(self.shape)
        if self.axis is None:
            return array.reshape(shape)
        shape[self.axis] = -1
        array = array.reshape(shape)
        return array[part] if self.axis == 0 and len(array) > 1 else array

    def _refuse(self, why: str) -> Refusal:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'the weight of "{self.node.name}" {why}')


_INTEGER_RANGE: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-(1 << 15), (1 << 15) - 1),
    TensorProto.UINT16: (0, (1 << 16) - 1),
    TensorProto.INT32: (-(1 << 31), (1 << 31) - 1),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
}


def read_weight(node: Node, index: int, facts: Facts) -> Weight | Refusal:
    """The weight at one input of a node, or why it cannot be changed."""
    value = node.input(index)
    constant = facts.constant(value)
    if constant is not None and not constant.any_shape:
        return Weight(node, index, constant.shape, constant.elem_type, constant)
    producer = None if value is None else value.producer
    if value is not None and producer is not None and producer.op == "DequantizeLinear":
        return _read_quantized(node, index, producer, facts)
    return facts.not_constant(node, index, "weight")


def _read_quantized(node: Node, index: int, dequantize: Node, facts: Facts) -> Weight | Refusal:
    value = node.inputs[index]
    if value is None or len(value.uses) > 1 or value.is_output or dequantize.has_references:
        return Refusal(
            Reason.FAN_OUT, f'the dequantized weight of "{node.name}" is used more than once'
        )
    integers = facts.constants.get(dequantize.input(0))
    scale = facts.constant(dequantize.input(1))
    zero_value = dequantize.input(2)
    zero = facts.constants.get(zero_value)
    readable = integers is not None and integers.elem_type in _INTEGER_RANGE
    if not readable or scale is None or (zero is None and zero_value is not None):
        return facts.not_constant(node, index, "weight")
    assert integers is not None  # noqa: S101 - readable
    if integers.any_shape or scale.any_shape or dequantize.attribute("block_size", 0):
        return facts.not_constant(node, index, "weight")
    axis = None if scale.data.size == 1 else dequantize.attribute("axis", 1) % integers.data.ndim
    kind = scale.elem_type
    return QuantizedWeight(
        node, index, integers.shape, kind, scale, dequantize, integers, zero, axis
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bias:
    """The bias at one input of a node, zeros where it is absent.

    Attributes:
        node: The node that reads it.
        index: At which input.
        values: float64, shape (length,).
        elem_type: Type in which it is stored.
        absent: True if the node has none.
    """

    node: Node
    index: int
    values: Float64
    elem_type: int
    absent: bool

    def replaced(self, values: Float64) -> Sequence[Edit] | Refusal:
        """The edits that store other values; none where a bias would be created to hold zeros."""
        if self.absent and not values.any():
            return ()
        if not self.absent and np.array_equal(values, self.values):
            return ()
        return store_bias(self.node, self.index, values, self.elem_type)


def store_bias(node: Node, index: int, values: Float64, elem_type: int) -> Sequence[Edit] | Refusal:
    """The edit that stores a bias, unless its type cannot hold it."""
    dtype = FLOATS[elem_type]
    if not np.isfinite(round_to(values, dtype).astype(np.float64)).all():
        return _range_refusal(node, "bias", "overflows", elem_type)
    return (SetConstant(node, index, dense(values, dtype), elem_type, "bias"),)


def store_scale(
    node: Node, index: int, values: Float64, elem_type: int
) -> Sequence[Edit] | Refusal:
    """The edit that stores a vector of factors, unless its type cannot hold it or loses it."""
    data = dense(values, FLOATS[elem_type])
    trouble = data.out_of_range()
    if trouble is not None:
        return _range_refusal(node, "scale", trouble, elem_type)
    return (SetConstant(node, index, data, elem_type, "scale"),)


def read_bias(node: Node, index: int, length: int, kind: int, facts: Facts) -> Bias | Refusal:
    """The bias vector at one input of a node, or why it cannot be changed.

    Args:
        node: The node that reads it.
        index: At which input.
        length: Number of output channels.
        kind: Element type of a bias that is to be created.
        facts: Knowledge about the graph.
    """
    value = node.input(index)
    if value is None:
        return Bias(node, index, np.zeros(length), kind, absent=True)
    constant = facts.constant(value)
    if constant is None:
        dequantized = read_weight(node, index, facts)
        if isinstance(dequantized, QuantizedWeight) and dequantized.shape == (length,):
            return Bias(node, index, dequantized.float64, dequantized.elem_type, absent=False)
        return facts.not_constant(node, index, "bias")
    shaped = constant.broadcast_to((length,))
    if shaped is None:
        return facts.not_constant(node, index, "bias")
    return Bias(node, index, shaped.float64, constant.elem_type, absent=False)


def vectors(affine: Affine, axis: int, length: int, node: Node) -> Affine | Refusal:
    """The affine as vectors along the axis that ``node`` owns, or a refusal."""
    found = affine.along(axis, length)
    return not_per_channel(node, axis) if found is None else found


def not_per_channel(node: Node, axis: int) -> Refusal:
    """The affine varies along another axis than the one whose weights the node owns."""
    return Refusal(
        Reason.NOT_PER_CHANNEL,
        f'"{node.name}" owns axis {axis} only, and the affine varies elsewhere',
    )


def _range_refusal(node: Node, role: str, trouble: str, elem_type: int) -> Refusal:
    kind = TensorProto.DataType.Name(elem_type).lower()
    return Refusal(Reason.OVERFLOW, f'the folded {role} of "{node.name}" {trouble} {kind}')
