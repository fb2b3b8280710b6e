"""What the graph says about values that its inputs can take.

A declaration ``float[N, C, H, W]`` or ``int64[N, L]`` leaves open what actually runs: the number
of channels stands in the first convolution's weight, the number of words in an embedding table.
The walk is short and only advises: sizes and values are tried on the reference in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

__all__ = ["Hint", "find_hints"]

# Operators behind which a tensor's axes, and so the advice about its sizes, are the same.
_SAME_AXES = frozenset(
    {"Abs", "Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout"}
    | {"Exp", "Identity", "LeakyRelu", "Log", "Mul", "Neg", "PRelu", "QuantizeLinear", "Relu"}
    | {"Sigmoid", "Sqrt", "Sub", "Tanh"}
)
# Operators behind which a tensor's elements are the same numbers.
_SAME_VALUES = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
# (operator, input) where a value sets the size of something: a wide draw would ask for
# terabytes, and moving it by one unit in the last place can change a shape.
_SIZES = frozenset(
    {
        ("ConstantOfShape", 0),
        ("Expand", 1),
        ("Loop", 0),
        ("OneHot", 1),
        ("Pad", 1),
        ("Range", 0),
        ("Range", 1),
        ("Range", 2),
        ("Reshape", 1),
        ("Resize", 1),
        ("Resize", 2),
        ("Resize", 3),
        ("Slice", 1),
        ("Slice", 2),
        ("Slice", 3),
        ("Slice", 4),
        ("Split", 1),
        ("Tile", 1),
        ("TopK", 1),
        ("Upsample", 1),
    }
)
_GATHERS = frozenset({"Gather", "GatherElements"})


@dataclass
class Hint:
    """Advice about one graph input.

    Attributes:
        rank: Number of axes, or None where the graph does not say.
        dims: Sizes by axis; negative axes count from the end.
        bound: Indices have to lie in ``range(bound)``; None where it is no index.
        is_size: True if the value sets the size of something.
        is_number: True for integers that the graph turns into floats first: pixels, not names.
    """

    rank: int | None = None
    dims: dict[int, int] = field(default_factory=dict)
    bound: int | None = None
    is_size: bool = False
    is_number: bool = False


class _Graph:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.users: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.constants = {init.name: list(init.dims) for init in graph.initializer}
        for node in graph.node:
            for position, name in enumerate(node.input):
                self.users.setdefault(name, []).append((node, position))
            for name in node.output:
                self.producers[name] = node
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.constants[node.output[0]] = list(attribute.t.dims)

    def reached(
        self, name: str, through: frozenset[str]
    ) -> Iterator[tuple[onnx.NodeProto, int, str]]:
        """Yield (node, position, value read) for each use of a value, also behind carriers."""
        pending, seen = [name], {name}
        while pending:
            value = pending.pop()
            for node, position in self.users.get(value, ()):
                yield node, position, value
                if node.op_type in through and node.output and node.output[0] not in seen:
                    seen.add(node.output[0])
                    pending.append(node.output[0])

    def dims(self, node: onnx.NodeProto, position: int) -> list[int] | None:
        """The dimensions of a node's constant input, also of a quantized or copied constant."""
        if position >= len(node.input):
            return None
        name = node.input[position]
        for _ in range(4):
            if name in self.constants:
                return self.constants[name]
            producer = self.producers.get(name)
            if producer is None or producer.op_type not in {"Cast", "DequantizeLinear", "Identity"}:
                return None
            name = producer.input[0]
        return None


def find_hints(graph: onnx.GraphProto, names: list[str]) -> dict[str, Hint]:
    """Return the advice for each of the graph inputs ``names``."""
    index = _Graph(graph)
    hints = {}
    for name in names:
        hint = Hint()
        for node, position, value in index.reached(name, _SAME_AXES):
            _advise_sizes(index, node, position, hint)
            hint.is_number |= value == name and node.op_type == "Cast" and _to_float(node)
        for node, position, _ in index.reached(name, _SAME_VALUES):
            hint.is_size |= (node.op_type, position) in _SIZES
            if node.op_type in _GATHERS and position == 1 and (dims := index.dims(node, 0)):
                axis = _attribute(node, "axis", 0)
                if -len(dims) <= axis < len(dims):
                    hint.bound = min(dims[axis], hint.bound or dims[axis])
        hints[name] = hint
    return hints


def _advise_sizes(index: _Graph, node: onnx.NodeProto, position: int, hint: Hint) -> None:
    if position != 0:
        return
    weight = index.dims(node, 1)
    if weight is None:
        return
    match node.op_type, len(weight):
        case "Conv", rank if rank >= 3:
            hint.rank = rank
            hint.dims[1] = weight[1] * _attribute(node, "group", 1)
        case "ConvTranspose", rank if rank >= 3:
            hint.rank = rank
            hint.dims[1] = weight[0]
        case (("BatchNormalization" | "InstanceNormalization"), 1):
            hint.dims[1] = weight[0]
        case "LayerNormalization", rank if rank >= 1:
            hint.dims[-1] = weight[-1]
        case "Gemm", 2:
            hint.rank = 2
            inner = weight[1] if _attribute(node, "transB", 0) else weight[0]
            hint.dims[0 if _attribute(node, "transA", 0) else 1] = inner
        case "MatMul", rank if rank >= 2:
            hint.dims[-1] = weight[-2]
        case (("GRU" | "LSTM" | "RNN"), 3):
            hint.rank = 3
            hint.dims[2] = weight[2]
        case _:
            pass


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _to_float(node: onnx.NodeProto) -> bool:
    to = _attribute(node, "to", 0)
    return to in {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
