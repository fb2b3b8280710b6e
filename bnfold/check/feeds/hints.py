"""What the graph says about values that its inputs can take.

A declaration ``float[N, C, H, W]`` or ``int64[N, L]`` leaves open what actually runs: the number
of channels stands in the first convolution's weight, the number of words in an embedding table, the
words themselves in the attributes of an encoder. The walk is short and only advises: sizes and
values are tried on the reference in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper

from bnfold.check.models.model import Array

__all__ = ["Graph", "Hint", "Hints", "Use", "find_hints"]

# Operators behind which a tensor's axes, and so the advice about its sizes, are the same.
_SAME_AXES = frozenset(
    {"Abs", "Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout"}
    | {"Exp", "Identity", "LeakyRelu", "Log", "Mul", "Neg", "PRelu", "QuantizeLinear", "Relu"}
    | {"Sigmoid", "Sqrt", "Sub", "Tanh"}
)
# Operators behind which all elements of a tensor are there, in order, with their values.
_SAME_VALUES = frozenset(
    {"Cast", "CastLike", "Flatten", "Identity", "OptionalGetElement", "Reshape", "Squeeze"}
    | {"StringNormalizer", "Unsqueeze"}
)
# Operators behind which some of the elements are there, or in another order.
_SOME_VALUES = frozenset({"Concat", "Expand", "Gather", "Slice", "Split", "Tile", "Transpose"})
# (operator, input) where a value sets the size of something: a wide draw would ask for
# terabytes, and moving it by one unit in the last place can change a shape.
_SIZES = frozenset(
    {("CenterCropPad", 1), ("ConstantOfShape", 0), ("DFT", 1), ("Expand", 1), ("Loop", 0)}
    | {("AffineGrid", 1), ("OneHot", 1), ("Pad", 1), ("Range", 0), ("Range", 1), ("Range", 2)}
    | {("BlackmanWindow", 0), ("HammingWindow", 0), ("HannWindow", 0), ("Reshape", 1)}
    | {("Resize", 1), ("Resize", 2), ("Resize", 3), ("Slice", 1), ("Slice", 2), ("Slice", 3)}
    | {("Slice", 4), ("Split", 1), ("SplitToSequence", 1), ("STFT", 1), ("STFT", 3)}
    | {("Tile", 1), ("TopK", 1), ("Upsample", 1)}
)
# Attributes with the values that an operator knows: samples of everything else would only ever
# show what happens to strangers.
_VOCABULARIES = {
    "CategoryMapper": ("cats_strings", "cats_int64s"),
    "DictVectorizer": ("string_vocabulary", "int64_vocabulary"),
    "LabelEncoder": ("keys_strings", "keys_int64s", "keys_floats", "classes_strings"),
    "OneHotEncoder": ("cats_strings", "cats_int64s"),
    "StringNormalizer": ("stopwords",),
    "TfIdfVectorizer": ("pool_strings", "pool_int64s"),
    "TreeEnsemble": ("nodes_splits",),
    "TreeEnsembleClassifier": ("nodes_values",),
    "TreeEnsembleRegressor": ("nodes_values",),
}
_MAX_VOCABULARY = 4096
_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less"})
_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)
_MAX_CONSTANT = 4096


@dataclass(frozen=True)
class Use:
    """One node that reads the elements of a graph input.

    Attributes:
        node: The node.
        position: Which of its inputs it is.
        whole: True if all elements arrive, in their order.
        offset: What was added to the elements on the way.
    """

    node: onnx.NodeProto
    position: int
    whole: bool = True
    offset: int = 0


@dataclass
class Hint:
    """Advice about one graph input.

    Attributes:
        rank: Number of axes, or None where the graph does not say.
        dims: Sizes by axis; negative axes count from the end.
        uses: Where its elements are read.
        words: Values that an operator knows by name: strings, integers or floats.
        is_size: True if the value sets the size of something, or picks an element.
        is_number: True for integers that the graph turns into floats first: pixels, not names.
        is_mask: True for integers that are flags.
        is_divisor: True if integers are divided by it.
    """

    rank: int | None = None
    dims: dict[int, int] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    words: tuple[str | int | float, ...] = ()
    is_size: bool = False
    is_number: bool = False
    is_mask: bool = False
    is_divisor: bool = False


class Graph:
    """Producers, users and constants of a graph with all its bodies.

    Names of a body are looked up as if they were names of the graph: right unless a body hides
    one, and it is only advice.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.users: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.constants: dict[str, TensorProto] = {}
        for body in _bodies(graph):
            self.constants.update((init.name, init) for init in body.initializer)
            for node in body.node:
                for position, name in enumerate(node.input):
                    self.users.setdefault(name, []).append((node, position))
                for name in node.output:
                    self.producers[name] = node
                for attribute in node.attribute:
                    if node.op_type == "Constant" and attribute.name == "value":
                        self.constants[node.output[0]] = attribute.t

    def reached(self, name: str) -> Iterator[tuple[onnx.NodeProto, int, str]]:
        """Yield (node, position, value read) for each use, also where only the axes are kept."""
        pending, seen = [name], {name}
        while pending:
            value = pending.pop()
            for node, position in self.users.get(value, ()):
                yield node, position, value
                if node.op_type in _SAME_AXES and node.output and node.output[0] not in seen:
                    seen.add(node.output[0])
                    pending.append(node.output[0])

    def uses(self, name: str) -> Iterator[Use]:
        """Yield the nodes that read the elements of a value, also behind carriers."""
        pending, seen = [(name, True, 0)], {name}
        while pending:
            value, whole, offset = pending.pop()
            for node, position in self.users.get(value, ()):
                yield Use(node, position, whole, offset)
                step: int | None = 0
                if node.op_type in {"Add", "Sub"}:
                    step = self._added(node, position)
                elif node.op_type in _SAME_VALUES | _SOME_VALUES:
                    # What selects or arranges is not what is carried.
                    step = 0 if position == 0 or node.op_type == "Concat" else None
                else:
                    step = None
                if step is None or not node.output or node.output[0] in seen:
                    continue
                seen.update(node.output)
                kept = whole and node.op_type not in _SOME_VALUES
                pending.extend((output, kept, offset + step) for output in node.output)

    def _added(self, node: onnx.NodeProto, position: int) -> int | None:
        """What an Add or Sub of an integer constant adds to its other operand, or None."""
        if node.op_type == "Sub" and position == 1:
            return None
        constant = self.value(node, 1 - position)
        if constant is None or constant.size != 1 or constant.dtype.kind not in "iu":
            return None
        return int(constant.flat[0]) * (-1 if node.op_type == "Sub" else 1)

    def dims(self, node: onnx.NodeProto, position: int) -> tuple[int, ...] | None:
        """The dimensions of a node's constant input, also of a quantized or copied constant."""
        tensor = self._constant(node, position)
        return None if tensor is None else tuple(tensor.dims)

    def value(self, node: onnx.NodeProto, position: int) -> Array | None:
        """The value of a node's constant input, if it is small enough to be at hand."""
        tensor = self._constant(node, position)
        if tensor is None or np.prod(tensor.dims, dtype=float) > _MAX_CONSTANT:
            return None
        if tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return numpy_helper.to_array(tensor)
        except (TypeError, ValueError):
            return None

    def _constant(self, node: onnx.NodeProto, position: int) -> TensorProto | None:
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


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _bodies(attribute.g)


class Hints(Mapping[str, Hint]):
    """Advice about each of a model's inputs.

    Attributes:
        model: What it was taken from, functions written out.
        graph: Its index.
    """

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]) -> None:
        self.model = _inlined(model)
        self.graph = Graph(self.model.graph)
        self._hints = {name: _hint(self.graph, name) for name in names}

    def __getitem__(self, name: str) -> Hint:
        return self._hints[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hints)

    def __len__(self) -> int:
        return len(self._hints)


def find_hints(model: onnx.ModelProto, names: Sequence[str]) -> Hints:
    """Return the advice for each of the graph inputs ``names``.

    Args:
        model: The model; weights may be cut out of it.
        names: Inputs without initializers.
    """
    return Hints(model, names)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception:  # noqa: BLE001 - whatever it is: then the functions keep what they know
        return model


def _hint(index: Graph, name: str) -> Hint:
    hint = Hint(is_mask="mask" in name.lower())
    for node, position, value in index.reached(name):
        _advise_sizes(index, node, position, hint)
        hint.is_number |= value == name and node.op_type == "Cast" and _to(node) in _FLOATS
    for use in index.uses(name):
        node = use.node
        hint.uses.append(use)
        hint.is_size |= (node.op_type, use.position) in _SIZES
        hint.is_mask |= _makes_condition(index, use)
        hint.is_divisor |= node.op_type in {"Div", "Mod"} and use.position == 1
        if use.position == 0 and node.op_type in _VOCABULARIES:
            words = _vocabulary(node, _VOCABULARIES[node.op_type])
            hint.words = tuple(dict.fromkeys((*hint.words, *words)))
    return hint


def _makes_condition(index: Graph, use: Use) -> bool:
    """True if a node asks only whether a value is 0, or 1."""
    if use.node.op_type == "Cast":
        return _to(use.node) == TensorProto.BOOL
    if use.node.op_type not in _COMPARISONS:
        return False
    other = index.value(use.node, 1 - use.position)
    return other is not None and other.size == 1 and other.flat[0] in (0, 1)


def _vocabulary(node: onnx.NodeProto, attributes: Sequence[str]) -> tuple[str | int | float, ...]:
    for attribute in node.attribute:
        if attribute.name in attributes:
            strings = (word.decode("utf-8", "replace") for word in attribute.strings)
            tensor = numpy_helper.to_array(attribute.t).tolist() if attribute.HasField("t") else ()
            words = dict.fromkeys((*strings, *attribute.ints, *attribute.floats, *tensor))
            return tuple(words)[:_MAX_VOCABULARY]
    return ()


def _advise_sizes(index: Graph, node: onnx.NodeProto, position: int, hint: Hint) -> None:
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


def _to(node: onnx.NodeProto) -> int:
    return _attribute(node, "to", 0)
