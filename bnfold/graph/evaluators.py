"""Operators on constants: what each computes, on views where it only moves elements.

A new operator is one entry in ``EVALUATORS``. Arithmetic between floats is done in float64, and
each result is rounded to its type, as a runtime rounds it: some expressions are there for their
rounding. Between integers it is done as ONNX defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.affine import Float64
from bnfold.graph.index import Node
from bnfold.lazy import Scaled, Unrounded, round_to

__all__ = [
    "EVALUATORS",
    "FLOATS",
    "MAX_COMPUTED",
    "Constant",
    "Evaluator",
    "cast",
    "distinct",
    "expand",
    "slice_of",
]

FLOATS: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16),
}
MAX_COMPUTED = 1 << 21
"""Elements that may be computed beyond those that are stored: an expression of a few bytes can
describe terabytes."""

MAX_ARITHMETIC = 1 << 24
"""Elements that arithmetic is done with, all of them in float64."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor whose value is known.

    Attributes:
        elem_type: ``TensorProto`` element type.
        data: The values; floats may be in float64 whatever ``elem_type`` is. A view where possible.
        scale: float64 factor that a fold has already put on ``data``, or None.
        any_shape: True if every element equals the only one of ``data`` but the shape is unknown.
        joined: What a merge has made of several weights, or None. ``data`` and ``scale`` have its
            shape only then, and are NaN.
    """

    elem_type: int
    data: NDArray[Any]
    scale: Float64 | None = None
    any_shape: bool = False
    joined: Unrounded | None = None

    @staticmethod
    def of(lazy: Unrounded, elem_type: int) -> Constant:
        """The constant that a fold or a merge has made."""
        if isinstance(lazy, Scaled):
            return Constant(elem_type, lazy.base, lazy.scale)
        nothing = np.broadcast_to(np.nan, lazy.shape)
        return Constant(elem_type, nothing, np.full((1,) * len(lazy.shape), np.nan), joined=lazy)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor; of no meaning where ``any_shape``."""
        return tuple(self.data.shape)

    @property
    def is_float(self) -> bool:
        """True for a floating point tensor that bnfold can compute with."""
        return self.elem_type in FLOATS

    @cached_property
    def float64(self) -> Float64:
        """All values, unrounded, in float64."""
        return self.lazy().float64()

    def lazy(self) -> Unrounded:
        """The tensor in its storage dtype, unrounded (floats only)."""
        if self.joined is not None:
            return self.joined
        return Scaled(self.data, self.scale, FLOATS[self.elem_type])

    def integers(self) -> list[int]:
        """The values as a flat list of Python ints."""
        return [int(item) for item in self.data.reshape(-1)]

    def broadcast_to(self, shape: Sequence[int]) -> Constant | None:
        """The constant with exactly this shape, or None if it has another one."""
        if self.any_shape:
            return Constant(self.elem_type, np.broadcast_to(self.data.reshape(()), shape))
        return self if self.shape == tuple(shape) else None


Evaluator = Callable[[Node, list[Constant]], Constant | None]


def _same(change: Callable[[Node, NDArray[Any], list[Constant]], NDArray[Any]]) -> Evaluator:
    """An operator that moves elements: ``change`` makes a view where NumPy can."""

    def evaluate(node: Node, inputs: list[Constant]) -> Constant | None:
        if inputs[0].any_shape or any(extra.any_shape for extra in inputs[1:]):
            return None
        first = inputs[0]
        data = first.data if first.scale is None else first.float64
        return Constant(first.elem_type, change(node, data, inputs[1:]))

    return evaluate


def _axes(node: Node, inputs: list[Constant]) -> list[int] | None:
    if inputs:
        return inputs[0].integers()
    axes = node.attribute("axes")
    return None if axes is None else list(axes)


def _reshape(node: Node, data: NDArray[Any], rest: list[Constant]) -> NDArray[Any]:
    target = rest[0].integers() if rest else list(node.attribute("shape"))
    if not node.attribute("allowzero", 0):
        target = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(target)]
    return data.reshape(target)


def _transpose(node: Node, data: NDArray[Any], _: list[Constant]) -> NDArray[Any]:
    return data.transpose(node.attribute("perm") or None)


def _squeeze(node: Node, data: NDArray[Any], rest: list[Constant]) -> NDArray[Any]:
    axes = _axes(node, rest)
    return data.squeeze(None if axes is None else tuple(axes))


def _unsqueeze(node: Node, data: NDArray[Any], rest: list[Constant]) -> NDArray[Any]:
    return np.expand_dims(data, tuple(_axes(node, rest) or ()))


def _flatten(node: Node, data: NDArray[Any], _: list[Constant]) -> NDArray[Any]:
    axis = node.attribute("axis", 1)
    rows = int(np.prod(data.shape[:axis] if axis >= 0 else data.shape[: data.ndim + axis]))
    return data.reshape(rows, -1)


def _gather(node: Node, data: NDArray[Any], rest: list[Constant]) -> NDArray[Any]:
    axis, places = node.attribute("axis", 0), rest[0].data
    if data.size // max(data.shape[axis], 1) * places.size > MAX_COMPUTED + data.size:
        raise ValueError("too many elements")
    return np.asarray(np.take(data, places.astype(np.int64), axis=axis))


def _slice(node: Node, data: NDArray[Any], rest: list[Constant]) -> NDArray[Any]:
    if rest:
        starts, ends = rest[0].integers(), rest[1].integers()
    else:
        starts, ends = list(node.attribute("starts")), list(node.attribute("ends"))
    axes = rest[2].integers() if len(rest) > 2 else node.attribute("axes") or range(len(starts))
    steps = rest[3].integers() if len(rest) > 3 else [1] * len(starts)
    index: list[Any] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice_of(start, end, step, data.shape[axis])
    return np.asarray(data[tuple(index)])


def slice_of(start: int, end: int, step: int, length: int) -> slice:
    """The Python slice that ONNX means: bounds are clamped, negative ones count back."""
    start = start + length if start < 0 else start
    end = end + length if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), length), min(max(end, 0), length), step)
    low = min(max(end, -1), length - 1)
    return slice(min(max(start, 0), length - 1), None if low < 0 else low, step)


def _concat(node: Node, inputs: list[Constant]) -> Constant | None:
    if any(part.any_shape or part.scale is not None for part in inputs):
        return None
    different = {id(part): part.data.size for part in inputs}
    if sum(part.data.size for part in inputs) > MAX_COMPUTED + sum(different.values()):
        return None
    axis = node.attribute("axis", 1)
    return Constant(inputs[0].elem_type, np.concatenate([part.data for part in inputs], axis))


def _cast_node(node: Node, inputs: list[Constant]) -> Constant | None:
    target = node.attribute("to")
    return cast(inputs[0], target) if isinstance(target, int) else None


def cast(constant: Constant, elem_type: int) -> Constant | None:
    """The constant in another element type, or None where the conversion is not understood."""
    if constant.elem_type == elem_type:
        return constant
    core, shape = distinct(constant.data), constant.data.shape
    if constant.is_float and elem_type in FLOATS:
        values = core.astype(np.float64)
        if constant.scale is not None:
            return None
        narrow = FLOATS[elem_type].itemsize < FLOATS[constant.elem_type].itemsize
        same_size = FLOATS[elem_type].itemsize == FLOATS[constant.elem_type].itemsize
        data: NDArray[Any] = round_to(values, FLOATS[elem_type]) if narrow or same_size else core
    elif constant.elem_type in FLOATS or constant.elem_type in _INTEGERS:
        if elem_type in FLOATS and constant.elem_type in _INTEGERS:
            data = round_to(core.astype(np.float64), FLOATS[elem_type])
        elif elem_type in _INTEGERS and constant.elem_type in _INTEGERS:
            data = core.astype(_INTEGERS[elem_type])
        else:
            return None
    else:
        return None
    return Constant(elem_type, np.broadcast_to(data, shape), None, constant.any_shape)


def expand(_: Node, inputs: list[Constant]) -> Constant | None:
    """The first constant, broadcast with the shape that the second one holds."""
    target = inputs[1].integers()
    data = inputs[0].data if inputs[0].scale is None else inputs[0].float64
    shape = np.broadcast_shapes(data.shape, tuple(target))
    return Constant(inputs[0].elem_type, np.broadcast_to(data, shape))


def _constant_of_shape(node: Node, inputs: list[Constant]) -> Constant | None:
    proto = node.attributes.get("value")
    if proto is None:
        return Constant(TensorProto.FLOAT, np.broadcast_to(np.float32(0), inputs[0].integers()))
    value = onnx.numpy_helper.to_array(proto.t).reshape(())
    return Constant(proto.t.data_type, np.broadcast_to(value, inputs[0].integers()))


def distinct(array: NDArray[Any]) -> NDArray[Any]:
    """Return the part of a broadcast view that holds its numbers."""
    repeated = (
        slice(0, 1) if stride == 0 and length > 1 else slice(None)
        for stride, length in zip(array.strides, array.shape, strict=True)
    )
    return array[tuple(repeated)]


def _elementwise(
    floats: Callable[..., Any], integers: Callable[..., Any] | None = None
) -> Evaluator:
    def evaluate(node: Node, inputs: list[Constant]) -> Constant | None:
        kind = inputs[0].elem_type
        if node.opset < 7 and len(inputs) > 1 and inputs[0].shape != inputs[1].shape:
            return None  # broadcasting was an attribute then
        compute: Callable[..., Any] | None
        if inputs[0].is_float and all(p.is_float or p.elem_type in _INTEGERS for p in inputs):
            arrays = [part.data if part.scale is None else part.float64 for part in inputs]
            cores, compute = [distinct(array) for array in arrays], floats
        elif all(part.elem_type == kind and kind in _INTEGERS for part in inputs):
            cores, compute = [part.data for part in inputs], integers
        else:
            return None
        size = MAX_COMPUTED + sum(core.size for core in cores)
        if compute is None or np.broadcast(*cores).size > min(size, MAX_ARITHMETIC):
            return None
        if compute is floats:
            cores = [core.astype(np.float64) for core in cores]
        shapes = [part.shape for part in inputs if not part.any_shape]
        shape = np.broadcast_shapes(*shapes) if shapes else ()
        unknown = any(part.any_shape for part in inputs)
        if unknown and any(np.prod(s) != 1 for s in shapes):
            return None
        result = _stored(np.asarray(compute(*cores)), kind)
        if result is None:
            return None
        data = result if unknown else np.broadcast_to(result, shape)
        return Constant(kind, data, None, unknown)

    return evaluate


def _stored(result: NDArray[Any], kind: int) -> NDArray[Any] | None:
    """What a runtime keeps of a result; None where its type makes infinity or zero of a number."""
    dtype = FLOATS.get(kind)
    if dtype is None:
        return result
    rounded = round_to(result, dtype)
    stored = rounded.astype(np.float64)
    same_range = np.array_equal(np.isfinite(stored), np.isfinite(result))
    return rounded if same_range and np.array_equal(stored == 0, result == 0) else None


def _reduce(reduction: Callable[..., Any]) -> Evaluator:
    """A reduction of floats, in float64: what weight normalization is exported as."""

    def evaluate(node: Node, inputs: list[Constant]) -> Constant | None:
        if not inputs[0].is_float or inputs[0].any_shape or inputs[0].data.size > MAX_ARITHMETIC:
            return None
        axes = _axes(node, inputs[1:])
        if not axes and node.attribute("noop_with_empty_axes", 0):
            return inputs[0]
        kept = bool(node.attribute("keepdims", 1))
        data = reduction(inputs[0].float64, axis=tuple(axes) if axes else None, keepdims=kept)
        result = _stored(np.asarray(data), inputs[0].elem_type)
        return None if result is None else Constant(inputs[0].elem_type, result)

    return evaluate


def _norm(array: Float64, **where: Any) -> Any:
    return np.sqrt(np.square(array).sum(**where))


def _divide_integers(a: NDArray[Any], b: NDArray[Any]) -> Any:
    if not b.all():
        raise ValueError("division by zero")
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


_INTEGERS: dict[int, np.dtype[Any]] = {
    kind: onnx.helper.tensor_dtype_to_np_dtype(kind)
    for kind in (
        TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    )
}  # fmt: skip

EVALUATORS: dict[str, Evaluator] = {
    "Identity": _same(lambda _node, data, _rest: data),
    "Reshape": _same(_reshape),
    "Flatten": _same(_flatten),
    "Transpose": _same(_transpose),
    "Squeeze": _same(_squeeze),
    "Unsqueeze": _same(_unsqueeze),
    "Gather": _same(_gather),
    "Slice": _same(_slice),
    "Concat": _concat,
    "Cast": _cast_node,
    "CastLike": _cast_node,
    "Expand": expand,
    "ConstantOfShape": _constant_of_shape,
    "Add": _elementwise(np.add, np.add),
    "Sub": _elementwise(np.subtract, np.subtract),
    "Mul": _elementwise(np.multiply, np.multiply),
    "Div": _elementwise(np.divide, _divide_integers),
    "Pow": _elementwise(np.power),
    "Sqrt": _elementwise(np.sqrt),
    "Reciprocal": _elementwise(np.reciprocal),
    "Neg": _elementwise(np.negative, np.negative),
    "Abs": _elementwise(np.abs, np.abs),
    "Exp": _elementwise(np.exp),
    "Max": _elementwise(np.maximum, np.maximum),
    "Min": _elementwise(np.minimum, np.minimum),
    "ReduceSum": _reduce(np.sum),
    "ReduceMean": _reduce(np.mean),
    "ReduceL2": _reduce(_norm),
}
