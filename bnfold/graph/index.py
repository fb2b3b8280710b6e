"""The graph of a model as linked values and nodes, across subgraphs and functions.

A :class:`Graph` wraps a skeleton ``ModelProto``. Every value knows its producer and all its uses,
those in nested subgraphs among them; every node knows its place. Rules only read. Edits go through
the methods of :class:`Graph` and reach the protobuf lists in ``writeback.py``, so each edit
costs the same in a graph of ten nodes and of a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from bnfold.errors import ModelError
from bnfold.store import LazyTensor
from bnfold.store.dtypes import quoted

__all__ = ["Graph", "Node", "Scope", "Use", "Value"]

Dim = int | str

_NOT_LEGAL = "this is no legal ONNX model: export it again"


@dataclass(eq=False, slots=True, repr=False)
class Value:
    """A tensor of one scope.

    Attributes:
        name: Name in the file.
        scope: The graph or function body that defines it.
        producer: The node that computes it, or None.
        uses: Every node input that reads it, in this scope and in nested ones.
        tensor: The initializer that holds it, or None.
        lazy: What the initializer will hold when written, where a fold has changed it.
        is_input: True for a graph or function input.
        is_output: True for a graph or function output.
        is_protected: True if something beside the nodes refers to it by name.
        shape: Dimensions from shape inference, or None for an unknown rank. Two equal strings are
            the same length; an unknown length has a string of its own.
        elem_type: ``TensorProto`` element type, 0 where unknown.
    """

    name: str
    scope: Scope
    producer: Node | None = None
    uses: dict[Use, None] = field(default_factory=dict)
    tensor: TensorProto | None = None
    lazy: LazyTensor | None = None
    is_input: bool = False
    is_output: bool = False
    is_protected: bool = False
    shape: tuple[Dim, ...] | None = None
    elem_type: int = 0
    described_as: str = ""

    def __repr__(self) -> str:
        return f"<Value {self.name}>"  # not the whole graph that hangs on it

    @property
    def captured_by(self) -> Node | None:
        """A node of a nested scope that reads this value, or None."""
        return next((use.node for use in self.uses if use.node.scope is not self.scope), None)


@dataclass(eq=False, slots=True, repr=False)
class Node:
    """One node; ``inputs`` and ``outputs`` are None where the file has an empty name.

    ``name`` is for reports: where the file gives the node none, it is that of its first output, and
    it stays so when the output is renamed. ``is_call`` is true where the model has a function of
    that type: a runtime may call it even if ONNX has an operator of the same name.
    """

    proto: NodeProto
    scope: Scope
    position: int
    name: str = field(init=False)
    inputs: list[Value | None] = field(default_factory=list)
    outputs: list[Value | None] = field(default_factory=list)
    followers: list[Node] = field(default_factory=list)
    leaders: list[Node] = field(default_factory=list)
    alive: bool = True
    is_call: bool = False
    attributes: dict[str, AttributeProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        outputs = (name for name in self.proto.output if name)
        self.name = self.proto.name or next(outputs, "")

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    @property
    def op(self) -> str:
        """Operator type, prefixed with its domain unless it is surely an operator of ONNX."""
        domain = self.proto.domain
        kind: str = self.proto.op_type
        if domain in ("", "ai.onnx"):
            return f"ai.onnx::{kind}" if self.is_call else kind
        return f"{domain}::{kind}"

    @property
    def opset(self) -> int:
        """Version of the node's operator set, 0 where the file imports none."""
        return self.scope.opsets.get(_domain(self.proto), 0)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute (bytes decoded), or ``default``."""
        proto = self.attributes.get(name)
        if proto is None:
            return default
        value = onnx.helper.get_attribute_value(proto)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    @property
    def has_references(self) -> bool:
        """True if an attribute takes its value from the enclosing function's caller."""
        return any(proto.ref_attr_name for proto in self.attributes.values())

    def input(self, index: int) -> Value | None:
        """The value at an input, or None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int = 0) -> Value | None:
        """The value at an output, or None where it is absent."""
        return self.outputs[index] if index < len(self.outputs) else None


@dataclass(frozen=True, slots=True)
class Use:
    """Input ``index`` of ``node``."""

    node: Node
    index: int


@dataclass(eq=False, slots=True, repr=False)
class Scope:
    """The main graph, a subgraph of a node, or the body of a function.

    Attributes:
        label: ``main``, ``main/<node>/<attribute>`` or ``function <domain>::<name>``.
        proto: The graph or function in the skeleton.
        parent: The enclosing scope, or None.
        opsets: Operator set versions by domain.
        values: Values that this scope defines, by name.
        nodes: Nodes in file order.
    """

    label: str
    proto: GraphProto | FunctionProto
    parent: Scope | None
    opsets: dict[str, int]
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Scope {self.label}>"

    @property
    def is_function(self) -> bool:
        """True for the body of a model-local function."""
        return isinstance(self.proto, FunctionProto)

    def find(self, name: str) -> Value | None:
        """The value that ``name`` means here, outer scopes included."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None


class Graph:
    """All scopes of one model.

    Args:
        model: The skeleton; its lists change only when they are written back.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.scopes: list[Scope] = []
        self.names: set[str] = set()
        self._suffixes: dict[str, int] = {}
        self.constants_as_nodes = model.ir_version < 4
        self.dropped_inputs: set[str] = set()
        opsets = _opsets(model.opset_import)
        self.main = self._index(model.graph, "main", None, opsets)
        for function in model.functions:
            label = f"function {function.domain}::{function.name}"
            self._index(function, label, None, _opsets(function.opset_import) or opsets)
        functions = {(_domain(function), function.name) for function in model.functions}
        for node in self.nodes() if functions else ():
            node.is_call = (_domain(node.proto), node.proto.op_type) in functions
        self._protect_training_info()

    def nodes(self) -> Iterator[Node]:
        """Every node that is alive, scope by scope, in file order."""
        for scope in self.scopes:
            yield from (node for node in scope.nodes if node.alive)

    # --- reading

    def _index(
        self,
        proto: GraphProto | FunctionProto,
        label: str,
        parent: Scope | None,
        opsets: dict[str, int],
    ) -> Scope:
        scope = Scope(label, proto, parent, opsets)
        self.scopes.append(scope)
        for item in proto.input:
            self._define(scope, item if isinstance(item, str) else item.name).is_input = True
        if isinstance(proto, GraphProto):
            self._index_tensors(scope, proto)
        for position, node_proto in enumerate(proto.node):
            node = Node(node_proto, scope, position)
            node.attributes = {attribute.name: attribute for attribute in node_proto.attribute}
            scope.nodes.append(node)
            for name in node_proto.output:
                value = self._define(scope, name) if name else None
                if value is not None:
                    if value.producer is not None:
                        raise ModelError(f"{quoted(name)} is computed twice", hint=_NOT_LEGAL)
                    value.producer = node
                node.outputs.append(value)
        for node in scope.nodes:
            self._link(node)
        _require_order(scope)
        for output in proto.output:
            name = output if isinstance(output, str) else output.name
            found = scope.find(name)
            if found is not None:
                found.is_output = True
        return scope

    def _index_tensors(self, scope: Scope, proto: GraphProto) -> None:
        for tensor in proto.initializer:
            self._define(scope, tensor.name).tensor = tensor
        named = [sparse.values.name for sparse in proto.sparse_initializer]
        for annotation in proto.quantization_annotation:
            named += [entry.value for entry in annotation.quant_parameter_tensor_names]
        for name in named:
            self._define(scope, name).is_protected = True

    def _link(self, node: Node) -> None:
        for index, name in enumerate(node.proto.input):
            value = (node.scope.find(name) or self._define(node.scope, name)) if name else None
            node.inputs.append(value)
            if value is not None:
                value.uses[Use(node, index)] = None
        for attribute in node.attributes.values():
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for number, graph in enumerate(graphs):
                suffix = f"[{number}]" if len(graphs) > 1 else ""
                label = f"{node.scope.label}/{node.name}/{attribute.name}{suffix}"
                self._index(graph, label, node.scope, node.scope.opsets)

    def _define(self, scope: Scope, name: str | bytes) -> Value:
        if isinstance(name, bytes):  # what protobuf returns for a string that is not UTF-8
            text = repr(name[:80])[1:]
            raise ModelError(
                f"the name {text} is not UTF-8", hint="rename the tensor with the tool that made it"
            )
        self.names.add(name)
        if name not in scope.values:
            scope.values[name] = Value(name, scope, described_as=name)
        return scope.values[name]

    def _protect_training_info(self) -> None:
        for info in self.model.training_info:
            bound = [*info.initialization_binding, *info.update_binding]
            names = {entry.key for entry in bound} | {entry.value for entry in bound}
            for graph in (info.initialization, info.algorithm):
                names.update(name for node in graph.node for name in node.input)
            for name in names & self.main.values.keys():
                self.main.values[name].is_protected = True

    # --- editing

    def fresh(self, base: str) -> str:
        """A name that nothing in the model has, formed from ``base``."""
        name, number = base, self._suffixes.get(base, 1)
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        self._suffixes[base] = number
        return name

    def connect(self, node: Node, index: int, value: Value | None) -> None:
        """Make ``value`` the input ``index`` of ``node``, extending the inputs if need be."""
        while len(node.inputs) <= index:
            node.inputs.append(None)
            node.proto.input.append("")
        old = node.inputs[index]
        if old is not None:
            del old.uses[Use(node, index)]
        node.inputs[index] = value
        node.proto.input[index] = "" if value is None else value.name
        if value is not None:
            value.uses[Use(node, index)] = None

    def keep_inputs(self, node: Node, indices: list[int]) -> None:
        """Take all other inputs out of a node; those that stay move up."""
        kept = [node.inputs[index] for index in indices]
        for index, value in enumerate(node.inputs):
            if value is not None:
                del value.uses[Use(node, index)]
        node.inputs = []
        del node.proto.input[:]
        for index, value in enumerate(kept):
            self.connect(node, index, value)

    def produce(self, node: Node, value: Value) -> None:
        """Make ``value`` the only output of ``node``; nothing computes the old one any more."""
        old = node.outputs[0]
        if old is not None and old.scope.values.get(old.name) is old:
            del old.scope.values[old.name]
            old.producer = None
        node.outputs = [value]
        node.proto.output[:] = [value.name]
        value.producer = node

    def rename(self, value: Value, name: str) -> None:
        """Give ``value`` another name everywhere."""
        if value.scope.values.get(value.name) is value:
            del value.scope.values[value.name]
        value.name = name
        value.scope.values[name] = value
        for use in value.uses:
            use.node.proto.input[use.index] = name
        if value.producer is not None:
            value.producer.proto.output[value.producer.outputs.index(value)] = name

    def remove(self, node: Node) -> None:
        """Take ``node`` out; nothing may read its outputs any more."""
        self.retire(node)
        for value in node.outputs:
            if value is not None and value.scope.values.get(value.name) is value:
                del value.scope.values[value.name]

    def retire(self, node: Node) -> None:
        """Take ``node`` out; another node computes its outputs from now on."""
        for index, value in enumerate(node.inputs):
            if value is not None:
                del value.uses[Use(node, index)]
        node.alive = False

    def drop_initializer(self, value: Value) -> None:
        """Take an initializer out that nothing reads, and the graph input that lists it."""
        del value.scope.values[value.name]
        if value.is_input:
            self.dropped_inputs.add(value.name)

    def freeze(self) -> bool:
        """Make every overridable initializer a constant; True if there was one."""
        frozen = [v for v in self.main.values.values() if v.is_input and v.tensor is not None]
        for value in frozen:
            value.is_input = False
            self.dropped_inputs.add(value.name)
        return bool(frozen)

    def insert(
        self, proto: NodeProto, inputs: list[Value], output: Value, *, after: Node | None = None,
        before: Node | None = None,
    ) -> Node:  # fmt: skip
        """Put a new node that computes ``output`` beside another one."""
        anchor = after if after is not None else before
        assert anchor is not None  # noqa: S101 - one of the two is always given
        node = Node(proto, anchor.scope, anchor.position)
        node.attributes = {attribute.name: attribute for attribute in proto.attribute}
        (anchor.followers if after is not None else anchor.leaders).append(node)
        for index, value in enumerate(inputs):
            self.connect(node, index, value)
        node.outputs = [output]
        output.producer = node
        node.proto.output[:] = [output.name]
        anchor.scope.nodes.append(node)
        return node

    def new_value(self, scope: Scope, name: str, *, like: Value | None = None) -> Value:
        """A value with a fresh name formed from ``name``, of the shape and type of ``like``."""
        value = Value(self.fresh(name), scope)
        value.described_as = "" if like is None else like.described_as
        if like is not None:
            value.shape, value.elem_type = like.shape, like.elem_type
        scope.values[value.name] = value
        return value


def _require_order(scope: Scope) -> None:
    """Refuse nodes that wait for one another; a mere disorder is none of bnfold's business."""
    reads = {
        node: [
            value.producer
            for value in node.inputs
            if value is not None and value.producer is not None and value.scope is scope
        ]
        for node in scope.nodes
    }
    if all(read.position < node.position for node in reads for read in reads[node]):
        return
    try:
        TopologicalSorter(reads).prepare()
    except CycleError as error:
        name = quoted(error.args[1][0].name)
        raise ModelError(f"{name} is computed from its own result", hint=_NOT_LEGAL) from error


def _opsets(imports: Any) -> dict[str, int]:
    return {_domain(each): each.version for each in imports}


def _domain(proto: Any) -> str:
    """The domain of a node, a function or an import; that of ONNX has two names."""
    domain: str = proto.domain
    return "" if domain == "ai.onnx" else domain
