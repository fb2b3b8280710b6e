"""A model run node by node, so that nothing has to be in memory but what the next nodes read.

Every node is a model of its own: its computed inputs are the inputs, its constants the
initializers, its outputs the outputs. So only the weights of one node are loaded at a time, every
tensor of the main graph can be looked at and replaced before the next node reads it, and a runtime
has nothing to fuse. Bodies and functions run inside of their node. Where the runtime has no kernel
for a node the ONNX reference evaluator runs it.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from bnfold.check.feeds.draws import is_float
from bnfold.check.localization.nodes import EvaluatedNode, SessionNode, in_order, names_used
from bnfold.check.models.model import Array, Model
from bnfold.check.runtimes.placement import shape_arithmetic
from bnfold.check.runtimes.providers import CPU
from bnfold.check.runtimes.sessions import (
    REFERENCE_EVALUATOR,
    RunError,
    Runner,
    Value,
)
from bnfold.check.verdict.noise import NOT_WEIGHTS, next_float, rounded_otherwise
from bnfold.errors import ProviderError

__all__ = ["Step", "Stepper", "shaken"]

_DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})
# Types that the runtime takes from NumPy without a copy.
_PLAIN = frozenset("fiub")


def shaken(value: Value, rng: np.random.Generator, *, alike: bool) -> Value:
    """Move every float of a tensor by one ulp, up or down by chance; other values stay.

    Args:
        value: What was computed.
        rng: Random numbers.
        alike: True to move equal numbers alike, as a rounding would; False to draw for each.
    """
    if not isinstance(value, np.ndarray) or not is_float(value.dtype):
        return value
    if alike:
        bits = np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}").astype(np.uint64)
        key, factor = rng.integers(0, 2**63, 2, dtype=np.uint64)
        with np.errstate(over="ignore"):
            mixed = ((bits.reshape(value.shape) ^ key) * (factor | np.uint64(1))) >> np.uint64(63)
        up = mixed.astype(bool)
    else:
        up = np.asarray(rng.integers(0, 2, value.shape, np.uint8)).astype(bool)
    # The neighbours of zero are denormal numbers, which are noise to nobody.
    return np.where(value == 0, value, next_float(value, up)).astype(value.dtype)


@dataclass(frozen=True)
class Step:
    """One node of the main graph.

    Attributes:
        index: Position among the steps.
        node: The node.
        reads: Computed values and graph inputs that it uses, those that its bodies capture too.
        constants: Initializers and constants that it uses.
        is_exact: True if what it computes are shapes, sizes and bounds: no noise moves those.
    """

    index: int
    node: onnx.NodeProto
    reads: tuple[str, ...]
    constants: tuple[str, ...]
    is_exact: bool

    @property
    def label(self) -> str:
        """Node name; the name of its first output where the node has none."""
        return self.node.name or next(filter(None, self.node.output), "")

    def is_like(self, other: Step) -> bool:
        """True if another node has the same operator, attributes and outputs."""
        ours, theirs = self.node, other.node
        return (
            (ours.op_type, ours.domain) == (theirs.op_type, theirs.domain)
            and list(ours.output) == list(theirs.output)
            and _attributes(ours) == _attributes(theirs)
        )


class Stepper:
    """The nodes of a model that its outputs depend on.

    Args:
        model: The model.
        provider: Execution provider, or ``onnx.reference``.

    Attributes:
        model: The model.
        steps: The nodes, each after those that it reads from.
        producers: The step that computes a value, by name.
        readers: For each value the steps that read it.
        constants: Tensors of initializers and constant nodes, by name.
        outputs: Names of the graph outputs.
    """

    def __init__(self, model: Model, provider: str) -> None:
        self.model = model
        self._provider = provider
        proto = model.skeleton.proto
        graph = proto.graph
        self.outputs = [output.name for output in graph.output]
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        self._sparse = {sparse.values.name: sparse for sparse in graph.sparse_initializer}
        self.constants |= {name: sparse.values for name, sparse in self._sparse.items()}
        nodes: list[tuple[int, onnx.NodeProto]] = []
        for position, node in enumerate(graph.node):
            tensor = _constant_of(node)
            if tensor is None:
                nodes.append((position, node))
            else:
                self.constants[node.output[0]] = tensor
        self.steps = self._live(in_order(nodes, self._known(graph)), shape_arithmetic(graph))
        self.producers = {n: step for step in self.steps for n in step.node.output if n}
        self.readers: dict[str, list[Step]] = {}
        for step in self.steps:
            for name in step.reads:
                self.readers.setdefault(name, []).append(step)
        self._types: dict[str, onnx.TypeProto] | None = None
        self._opset = {e.domain: e.version for e in proto.opset_import}

    def _known(self, graph: onnx.GraphProto) -> set[str]:
        return {value.name for value in graph.input} | set(self.constants)

    def _live(
        self, nodes: Sequence[tuple[int, onnx.NodeProto]], exact: set[tuple[int, ...]]
    ) -> tuple[Step, ...]:
        """Return the steps that the outputs depend on."""
        wanted, kept = set(self.outputs), []
        for position, node in reversed(nodes):
            if wanted & {name for name in node.output if name}:
                used = set(names_used(node))
                wanted |= used
                kept.append((position, node, used))
        computed = {n for _, node, _ in kept for n in node.output if n}
        computed |= {spec.name for spec in self.model.inputs}
        constants = set(self.constants) - computed
        return tuple(
            Step(
                index,
                node,
                tuple(sorted(used & computed)),
                tuple(sorted(used & constants)),
                (position,) in exact,
            )
            for index, (position, node, used) in enumerate(reversed(kept))
        )

    def uses(self) -> Counter[str]:
        """Count for each value how often it will be read, outputs of the graph once more."""
        uses = Counter(name for step in self.steps for name in step.reads)
        uses.update(self.outputs)
        return uses

    def value(self, name: str) -> Array:
        """Return the values of a constant."""
        sparse = self._sparse.get(name)
        if sparse is None:
            return self.model.values(self.constants[name])
        values, indices = self.model.values(sparse.values), self.model.values(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if indices.ndim == 1:
            dense.flat[indices] = values
        else:
            dense[tuple(indices.T)] = values
        return dense

    def moved(self, step: Step, seed: Sequence[int]) -> dict[str, Array]:
        """Return a step's weights as another rounding would have made them.

        Single numbers and what sets sizes and bounds stay, as they do in a model's neighbours
        (:mod:`bnfold.check.verdict.noise`).
        """
        if step.is_exact or step.node.op_type in NOT_WEIGHTS:
            return {}
        found = {}
        for name in step.constants:
            tensor = self.constants.get(name)
            if tensor is None or math.prod(tensor.dims) < 2:
                continue
            values = self.value(name)
            if is_float(values.dtype):
                rng = np.random.default_rng((*seed, zlib.crc32(name.encode())))
                found[name] = rounded_otherwise(values, rng)
        return found

    def same_constants(self, step: Step, other: Stepper, twin: Step) -> bool:
        """True if a step of this model and one of another have the same constants, bit by bit."""
        pairs = {
            (ours, theirs)
            for ours, theirs in zip(step.node.input, twin.node.input, strict=False)
            if ours in step.constants or theirs in twin.constants
        }
        # What bodies capture goes by its name.
        known = {name for pair in pairs for name in pair}
        pairs |= {(name, name) for name in {*step.constants, *twin.constants} - known}
        return all(
            ours in self.constants
            and theirs in other.constants
            and _same_bits(self.value(ours), other.value(theirs))
            for ours, theirs in pairs
        )

    def run(
        self,
        step: Step,
        worlds: Sequence[Mapping[str, Value]],
        weights: Mapping[str, Array] | None = None,
    ) -> list[dict[str, Value]]:
        """Run one node.

        Args:
            step: The node.
            worlds: For each run the values that it reads, among others.
            weights: Values in place of some of its constants.

        Returns:
            For each run the outputs by name.

        Raises:
            RunError: Nothing runs it.
        """
        feeds = [{name: world[name] for name in step.reads} for world in worlds]
        ways = [REFERENCE_EVALUATOR]
        if self._provider != REFERENCE_EVALUATOR:
            ways = list(dict.fromkeys((self._provider, CPU, REFERENCE_EVALUATOR)))
        first: RunError | ProviderError | None = None
        names = [name for name in step.node.output if name]
        for way in ways:
            try:
                runner = self._open(step, feeds[0], weights or {}, way)
                found = [runner.run(feed) for feed in feeds]
            except (RunError, ProviderError) as error:
                first = first or error
                continue
            return [dict(zip(names, map(_plain, values), strict=True)) for values in found]
        raise RunError(f"'{step.label}' ({step.node.op_type}): {first}")

    def _open(
        self, step: Step, sample: Mapping[str, Value], weights: Mapping[str, Array], way: str
    ) -> Runner:
        values = {name: weights[name] for name in step.constants if name in weights}
        if way == REFERENCE_EVALUATOR:
            values |= {n: self.value(n) for n in step.constants if n not in values}
            return EvaluatedNode(self._proto(step, {**sample, **values}, {}), values)
        proto = self._proto(step, sample, values)
        loaded = dataclasses.replace(self.model.skeleton, proto=proto)
        outside = {
            tensor.name: values[tensor.name] if tensor.name in values else self.value(tensor.name)
            for tensor in proto.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        }
        label = f"{self.model.label}, node '{step.label}'"
        model = Model(label, None, proto.SerializeToString(), loaded, (), ())
        return SessionNode(model, way, outside)

    def _proto(
        self, step: Step, sample: Mapping[str, Value], values: Mapping[str, Array]
    ) -> onnx.ModelProto:
        """Return the model of one node.

        Args:
            step: The node.
            sample: A value for each input of the model.
            values: Constants that get other values.
        """
        whole = self.model.skeleton.proto
        proto = onnx.ModelProto(ir_version=max(whole.ir_version, 4))
        proto.opset_import.extend(whole.opset_import)
        if step.node.domain not in _DEFAULT_DOMAINS or len(step.node.attribute):
            proto.functions.extend(whole.functions)
        graph = proto.graph
        graph.name = "node"
        graph.node.append(step.node)
        for name, value in sample.items():
            info = graph.input.add(name=name)
            info.type.CopyFrom(self._type(name, value))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in step.node.output if name)
        for name in step.constants:
            if name not in sample:
                graph.initializer.append(self._tensor(name, values.get(name)))
        return proto

    def _tensor(self, name: str, values: Array | None) -> onnx.TensorProto:
        """Return a constant as an initializer; large ones are marked as external."""
        source = self.constants[name]
        large = source.data_location == onnx.TensorProto.EXTERNAL
        if values is None and not large and name not in self._sparse:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(source)
            tensor.name = name
            tensor.ClearField("external_data")
            return tensor
        values = self.value(name) if values is None else values
        tensor = onnx.TensorProto(name=name, data_type=source.data_type, dims=values.shape)
        if large and values.dtype.kind in _PLAIN:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights")
        else:
            tensor.raw_data = onnx.numpy_helper.from_array(values).raw_data
        return tensor

    def _type(self, name: str, value: Value) -> onnx.TypeProto:
        if isinstance(value, np.ndarray):
            return helper.make_tensor_type_proto(_element_type(value), None)
        if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
            inner = helper.make_tensor_type_proto(_element_type(value[0]), None)
            return helper.make_sequence_type_proto(inner)
        if self._types is None:
            self._types = self._inferred()
        if name not in self._types:
            raise RunError(f"the type of '{name}' is not known")
        return self._types[name]

    def _inferred(self) -> dict[str, onnx.TypeProto]:
        """Return the types that shape inference finds; needed for what is not a tensor."""
        try:
            proto = onnx.shape_inference.infer_shapes(self.model.skeleton.proto)
        except Exception:  # noqa: BLE001 - what is declared is all there is then
            proto = self.model.skeleton.proto
        graph = proto.graph
        return {v.name: v.type for v in (*graph.value_info, *graph.input, *graph.output)}


def _attributes(node: onnx.NodeProto) -> list[bytes]:
    return sorted(a.SerializeToString(deterministic=True) for a in node.attribute)


def _plain(value: Value) -> Value:
    return np.asarray(value) if isinstance(value, np.generic) else value


def _same_bits(ours: Array, theirs: Array) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if ours.dtype.kind == "O":
        return bool(np.array_equal(ours, theirs))
    first, second = (np.ascontiguousarray(v).reshape(-1).view(np.uint8) for v in (ours, theirs))
    return bool(np.array_equal(first, second))


def _element_type(array: Array) -> int:
    if array.dtype.kind in "OUS":
        return int(onnx.TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def _constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a Constant node, or None for any other node."""
    if node.op_type != "Constant" or node.domain not in _DEFAULT_DOMAINS:
        return None
    return next((a.t for a in node.attribute if a.name == "value"), None)
