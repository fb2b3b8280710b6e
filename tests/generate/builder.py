"""Builds one random model, node by node, and knows the shape of everything in it.

The lengths of an axis are followed under several assignments of the symbolic dimensions at once, by
plain arithmetic that shares no code with bnfold: that is what makes the graphs legal.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from tests.generate.hidden import WAYS

ASSIGNMENTS = 3
COMPUTED = {
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16),
}


class Dim(NamedTuple):
    """The length of an axis under each assignment, and whether inference can know it."""

    sizes: tuple[int, ...]
    known: bool
    symbol: str = ""

    @property
    def length(self) -> int:
        return self.sizes[0]

    def map(self, change: Any) -> Dim:
        return Dim(tuple(change(size) for size in self.sizes), self.known)


def static(length: int) -> Dim:
    return Dim((length,) * ASSIGNMENTS, known=True)


Shape = tuple[Dim, ...]


@dataclass(eq=False)
class Tensor:
    """A computed tensor."""

    name: str
    shape: Shape
    kind: int
    uses: int = 0

    @property
    def rank(self) -> int:
        return len(self.shape)

    def has(self, *axes: int) -> bool:
        """True if the lengths of these axes are known."""
        return all(-self.rank <= axis < self.rank and self.shape[axis].known for axis in axes)

    def length(self, axis: int) -> int:
        return self.shape[axis].length


@dataclass
class Case:
    """A model, with feeds for every assignment of its symbolic dimensions."""

    model: ModelProto
    feeds: list[dict[str, np.ndarray]]


@dataclass(eq=False)
class Builder:
    """The state of a model that is being built."""

    rng: random.Random
    kind: int
    opset: int
    ir: int
    data: np.random.Generator
    symbols: dict[str, tuple[int, ...]]
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    pool: list[Tensor] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    feeds: list[dict[str, np.ndarray]] = field(
        default_factory=lambda: [{} for _ in range(ASSIGNMENTS)]
    )
    names: set[str] = field(default_factory=set)
    constants: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)
    depth: int = 0
    straight: int = 75

    # --- choices

    def chance(self, percent: int) -> bool:
        return self.rng.randint(0, 99) < percent

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.rng.randint(0, len(options) - 1)]

    def small(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    @property
    def dtype(self) -> np.dtype[Any]:
        return COMPUTED[self.kind]

    def tensor(self) -> Tensor:
        """A tensor to go on with: mostly the newest."""
        found = self.pool[-1] if self.chance(self.straight) else self.pick(self.pool)
        assert isinstance(found, Tensor)
        return found

    # --- names

    def fresh(self, hint: str) -> str:
        """A new name; some look like those that a fold would form."""
        base = f"{hint}{len(self.names)}"
        if self.chance(3):
            base = self.pick(["{} é", "{}/Conv:0", "π.{}", "  {}", "'{}'", "::{}"]).format(base)
        if self.names and self.chance(4):
            suffix = self.pick(["_folded", "_product", "_shift", "_bias", "_constant"])
            base = f"{self.pick(sorted(self.names))}{suffix}"
        while base in self.names:
            base += "_"
        self.names.add(base)
        return base

    # --- constants

    def normal(self, *shape: int) -> np.ndarray:
        """Moderate numbers, away from overflow and from cancellation."""
        array: np.ndarray = self.data.normal(size=shape)
        return array

    def constant(self, array: Any, *, hint: str = "k", plain: bool = False) -> str:
        """A float constant, sometimes an old one of this shape, sometimes behind an expression."""
        values = np.asarray(array).astype(self.dtype)
        key = (values.shape, self.kind, hint[0])
        known = self.constants.setdefault(key, [])
        if known and self.chance(8):
            return str(self.pick(known))
        if not plain:
            values = self._odd(values)
        hidden = not plain and self.chance(14)
        name = self.pick(WAYS)(self, values, hint) if hidden else None
        if name is None:
            name = self.fresh(hint)
            self._hold(name, values)
        known.append(name)
        return name

    def _odd(self, values: np.ndarray) -> np.ndarray:
        """Seldom a number that is hard to compute with."""
        if not values.size or not self.chance(1):
            return values
        odd = values.copy()
        number = self.pick([np.inf, -np.inf, np.nan, -0.0, 1e-7])
        with np.errstate(over="ignore", under="ignore"):
            odd.reshape(-1)[self.small(0, values.size - 1)] = number
        return odd

    def integers(self, numbers: Sequence[int], *, scalar: bool = False) -> str:
        """An int64 constant."""
        shape = () if scalar else (len(numbers),)
        return self.hold("i", np.array(numbers, np.int64).reshape(shape))

    def hold(self, hint: str, values: np.ndarray) -> str:
        """A constant that is as it is, in the type it has."""
        name = self.fresh(hint)
        self._hold(name, values)
        return name

    def _hold(self, name: str, values: np.ndarray) -> None:
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        # before opset 9 a Constant could hold floats only
        if self.chance(15) and (self.opset >= 9 or kind == self.kind):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)

    # --- inputs and nodes

    def add_input(self, shape: Shape, kind: int | None = None, *, whole: bool = False) -> Tensor:
        """A graph input with its feeds; ``whole`` for integers or booleans of 0 and 1."""
        kind = self.kind if kind is None else kind
        name = self.fresh("x")
        dims = [dim.symbol or (dim.length if dim.known else None) for dim in shape]
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        for index, feed in enumerate(self.feeds):
            sizes = [dim.sizes[index] for dim in shape]
            array = self.data.normal(size=sizes) * (1.0, 8.0, 0.3)[index] - (0.0, 0.0, 2.0)[index]
            feed[name] = np.asarray(array > 0 if whole else array, dtype)
        return self.remember(Tensor(name, shape, kind))

    def remember(self, tensor: Tensor) -> Tensor:
        if tensor.kind == self.kind:
            self.pool.append(tensor)
        return tensor

    def node(
        self,
        op: str,
        inputs: Sequence[Tensor | str],
        shape: Shape | Sequence[Shape],
        *,
        kind: int | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Tensor:
        """Append a node; several shapes make several outputs, of which the first is returned."""
        names: list[str] = []
        for value in inputs:
            if isinstance(value, Tensor):
                value.uses += 1
            names.append(value if isinstance(value, str) else value.name)
        several = bool(shape) and not isinstance(shape[0], Dim)
        shapes: Sequence[Any] = shape if several else [shape]
        kind = self.kind if kind is None else kind
        outputs = [Tensor(self.fresh(op[0].lower()), each, kind) for each in shapes]
        self.append(op, names, [tensor.name for tensor in outputs], **attributes)
        self.nodes[-1].domain = domain
        for tensor in reversed(outputs):
            self.remember(tensor)
        return outputs[0]

    def append(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **given: Any) -> None:
        name = "" if self.chance(30) else self.fresh("node")
        if self.chance(2):
            name = "the same"  # names of nodes may repeat
        kept = {key: value for key, value in given.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), name=name, **kept))

    # --- subgraphs

    @contextlib.contextmanager
    def nested(self) -> Iterator[tuple[list[NodeProto], list[TensorProto]]]:
        """Nodes and initializers go to a subgraph that captures what there is so far."""
        kept = self.nodes, self.initializers, self.pool, self.constants
        self.nodes, self.initializers, self.pool = [], [], list(self.pool)
        self.constants = {key: list(names) for key, names in self.constants.items()}
        if self.ir < 4 or self.chance(50):
            self.initializers = kept[1]  # what the body needs is captured as well
        self.depth += 1
        own = [] if self.initializers is kept[1] else self.initializers
        try:
            yield self.nodes, own
        finally:
            self.depth -= 1
            self.nodes, self.initializers, self.pool, self.constants = kept

    # --- functions

    def _wrap(self, outputs: set[str], opsets: Sequence[Any]) -> list[FunctionProto]:
        """Seldom, some consecutive nodes become a function that is called once."""
        if self.ir < 8 or len(self.nodes) < 2 or not self.chance(7):
            return []
        first = self.small(0, len(self.nodes) - 2)
        body = self.nodes[first : first + self.small(2, 6)]
        if any(node.domain or any(a.HasField("g") for a in node.attribute) for node in body):
            return []
        made = [name for node in body for name in node.output if name]
        read = dict.fromkeys(name for node in body for name in node.input if name)
        inputs = [name for name in read if name not in made]
        outside = [node for node in self.nodes if all(node is not inner for inner in body)]
        wanted = outputs | {name for node in outside for name in _reads(node)}
        results = [name for name in made if name in wanted]
        if not results or not inputs:
            return []
        call = helper.make_node("Block", inputs, results, name="call", domain="local.blocks")
        self.nodes[first : first + len(body)] = [call]
        return [helper.make_function("local.blocks", "Block", inputs, results, body, opsets)]

    # --- the end

    def finish(self, outputs: Sequence[Tensor], *, overridable: Sequence[str] = ()) -> Case:
        """The model."""
        infos = [
            helper.make_tensor_value_info(
                t.name, t.kind, [d.length if d.known and self.chance(50) else None for d in t.shape]
            )
            for t in outputs
        ]
        listed = list(self.inputs)
        listed += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in self.initializers
            if self.ir < 4 or tensor.name in overridable
        ]
        if infos and self.chance(2):
            infos.append(infos[0])
        opsets = [helper.make_opsetid("", self.opset)]
        functions = self._wrap({info.name for info in infos}, opsets)
        graph = GraphProto(
            node=self.nodes, name="g", initializer=self.initializers, input=listed, output=infos
        )
        domains = {node.domain for node in self.nodes} - {""}
        imports = [*opsets, *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
        model = helper.make_model(
            graph, ir_version=self.ir, opset_imports=imports, functions=functions
        )
        if self.chance(40):
            model = onnx.shape_inference.infer_shapes(model)
        return Case(model, self.feeds)


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node reads, in its bodies too."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (output.name for output in attribute.g.output)
