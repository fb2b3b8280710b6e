"""The value of a constant expression, or None.

Exporters hide weights behind Constant, ConstantOfShape, Identity, Cast, Transpose, Reshape,
arithmetic and small shape computations. Values stay views (a transposed weight is a strided view
into the file, a ConstantOfShape is one element with strides of 0), so asking costs nothing until
the numbers are read. Arithmetic between floats is done in float64 and rounded to its type.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.graph.evaluators import (
    EVALUATORS,
    FLOATS,
    MAX_COMPUTED,
    Constant,
    Evaluator,
    cast,
    distinct,
    expand,
)
from bnfold.graph.index import Graph, Node, Value
from bnfold.store import TensorStore

__all__ = ["FLOATS", "Constant", "Constants"]

MAX_DEPTH = 64

MAX_REPEATED = 1 << 26
"""Elements that may repeat others in memory, as those of ConstantOfShape: written out they are as
large as those of a real model, which some exchange without its weights."""


class Constants:
    """Evaluates constant expressions of one graph; remembers what it has found.

    Args:
        graph: Shapes must have been inferred.
        tensors: Where the data of initializers lies.
    """

    def __init__(self, graph: Graph, tensors: TensorStore) -> None:
        self._graph = graph
        self._tensors = tensors
        self._known: dict[Value, Constant | None] = {}
        self._left = MAX_COMPUTED
        self._repeated = MAX_REPEATED
        self._owners: dict[int, weakref.ref[NDArray[Any]]] = {}

    def is_overridable(self, value: Value) -> bool:
        """True if a caller may replace this initializer at run time."""
        return value.tensor is not None and value.is_input and self._graph.model.ir_version >= 4

    def get(self, value: Value | None) -> Constant | None:
        """The value of a tensor, or None where it is not constant or not understood."""
        return None if value is None else self._get(value, MAX_DEPTH)

    def set(self, value: Value, constant: Constant) -> None:
        """Remember the value of a constant that a fold has made."""
        self._known[value] = constant

    def reconsider(self) -> None:
        """Forget what was not constant: folds make constants of other values."""
        self._known = {value: found for value, found in self._known.items() if found is not None}

    def _get(self, value: Value, depth: int) -> Constant | None:
        if value not in self._known:
            if depth == 0:
                return None
            found = self._evaluate(value, depth - 1)
            self._known[value] = found if found is None or self._affords(value, found) else None
        return self._known[value]

    def _affords(self, value: Value, found: Constant) -> bool:
        """Whether what was computed so far is in proportion to what is stored."""
        size = found.data.size
        is_new = self._is_new(found.data)
        if value.tensor is not None or (value.producer and value.producer.op == "Constant"):
            self._left += _COMPUTED_PER_STORED * size
            return True
        numbers = distinct(found.data).size
        computed = numbers if is_new else 0
        if computed > self._left or size - numbers > self._repeated:
            return False
        self._left -= computed
        self._repeated -= size - numbers
        return True

    def _is_new(self, array: NDArray[Any]) -> bool:
        """Whether this is no view of what is known already."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        owner = self._owners.get(id(array))
        self._owners[id(array)] = weakref.ref(array)
        return owner is None or owner() is not array

    def _evaluate(self, value: Value, depth: int) -> Constant | None:
        if value.tensor is not None:
            return None if self.is_overridable(value) else self._stored(value.tensor)
        node = value.producer
        if node is None or value.is_input or node.has_references or node.proto.domain not in _ONNX:
            return None
        if node.op == "Constant":
            return self._constant_node(node)
        if node.op == "Shape":
            return _shape(node)
        evaluate = EVALUATORS.get(node.op)
        if evaluate is None or not node.inputs or node.outputs.index(value) != 0:
            return None
        if node.op in ("CastLike", "Expand"):
            return self._of_uniform(node, depth)
        inputs = [None if v is None else self._get(v, depth) for v in node.inputs]
        if any(c is None and v is not None for c, v in zip(inputs, node.inputs, strict=True)):
            return None
        return _guarded(evaluate, node, [c for c in inputs if c is not None])

    def _of_uniform(self, node: Node, depth: int) -> Constant | None:
        """CastLike and Expand of one number need only the type or shape of the other input."""
        first, second = node.input(0), node.input(1)
        if first is None or second is None:
            return None
        data = self._get(first, depth)
        if data is None:
            return None
        if node.op == "CastLike":
            return cast(data, second.elem_type) if second.elem_type else None
        target = self._get(second, depth)
        if target is not None:
            return _guarded(expand, node, [data, target])
        if data.any_shape or data.data.size == 1:
            return Constant(data.elem_type, data.data, data.scale, any_shape=True)
        return None

    def _stored(self, tensor: TensorProto) -> Constant | None:
        if tensor.data_type == TensorProto.STRING:
            return None
        return Constant(tensor.data_type, self._tensors.array(tensor))

    def _constant_node(self, node: Node) -> Constant | None:
        for name, kind, dtype in _SCALARS:
            if name in node.attributes:
                return Constant(kind, np.array(node.attribute(name), dtype))
        proto = node.attributes.get("value")
        return None if proto is None or not proto.HasField("t") else self._stored(proto.t)


_COMPUTED_PER_STORED = 4
"""How many numbers may be computed for each that is stored: those of a dequantization, say."""

_ONNX = ("", "ai.onnx")
_SCALARS = (
    ("value_float", TensorProto.FLOAT, np.float32),
    ("value_floats", TensorProto.FLOAT, np.float32),
    ("value_int", TensorProto.INT64, np.int64),
    ("value_ints", TensorProto.INT64, np.int64),
)


def _guarded(evaluate: Evaluator, node: Node, inputs: list[Constant]) -> Constant | None:
    try:
        with np.errstate(all="ignore"):
            return evaluate(node, inputs)
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError):
        return None  # an expression that is not legal has no value


def _shape(node: Node) -> Constant | None:
    value = node.input(0)
    if value is None or value.shape is None:
        return None
    part = value.shape[node.attribute("start", 0) : node.attribute("end", None)]
    if any(isinstance(dim, str) for dim in part):
        return None
    return Constant(TensorProto.INT64, np.array(part, np.int64))
