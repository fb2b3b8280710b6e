"""A model in float64: what it computes where nothing but its weights was ever rounded.

Every float of the model, whatever its type, is taken as the number that it is, and all arithmetic
is done in float64 by the ONNX reference evaluator, with fast convolutions. Then only two things
can tell a correct rewrite from its original: the one rounding of each weight that it computed, and
what a runtime does. A runtime is not part of this, and what the roundings of weights amount to is
measured by moving those of the reference by half an ulp of their own type. So errors far below
the noise of float32 arithmetic come to light.

Weights are read and promoted one at a time, when their node runs, and values are let go after
their last use: memory stays near that of the activations, in double.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from bnfold.check.exact.operators import fast_operators
from bnfold.check.feeds.draws import is_float
from bnfold.check.models.model import Array, Model
from bnfold.check.runtimes.evaluator_ops import evaluator_class
from bnfold.check.runtimes.sessions import RunError, Value
from bnfold.check.verdict.noise import NOT_WEIGHTS, rounded_otherwise

__all__ = ["ExactRunner", "TooMuchWorkError", "Walk", "promoted"]

_DOUBLE = onnx.TensorProto.DOUBLE
_NARROW = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
# Attributes that name the type of what an operator returns.
_TYPES = frozenset({"dtype", "output_datatype", "output_dtype", "to", "stash_type"})
# What evaluating an operator costs for each element of its output, in multiplications: element
# by element in Python, where the default is a few passes of NumPy.
_COST = 4
# What reading, moving and promoting a weight costs for each of its elements.
_READ = 50
_SLOW = dict.fromkeys(
    [
        *("Col2Im", "DeformConv", "GatherND", "GridSample", "LpPool", "MaxRoiPool", "MaxUnpool"),
        *("NonMaxSuppression", "RoiAlign", "ScatterElements", "ScatterND", "TfIdfVectorizer"),
    ],
    4000,
)
_NARROW_ARRAYS = (np.float32, np.float16, ml_dtypes.bfloat16)


# Watched tensors go out, what is to be used in their place comes in, the outputs end it.
Walk = Generator[tuple[str, Value], Value, list[Value]]


class TooMuchWorkError(RunError):
    """Evaluating the model would take longer than it was given."""


class ExactRunner:
    """A model in float64, ready to run.

    Args:
        model: What to run.
        moved: None for the model as it is; else where the random numbers start that move its
            weights by about half an ulp of their own type.
        work: How many multiplications a run may take.
        deadline: A ``time.monotonic()`` at which to give up.

    Raises:
        RunError: The evaluator does not know an operator of the model.
    """

    provider = "float64"

    @property
    def spent(self) -> float:
        """Multiplications of the last run, estimated."""
        return float(self._evaluator.spent)

    def __init__(
        self,
        model: Model,
        *,
        moved: Sequence[int] | None = None,
        work: float = float("inf"),
        deadline: float = float("inf"),
    ) -> None:
        self._model = model
        self._moved = moved
        self._limits = work, deadline
        proto = onnx.ModelProto()
        proto.CopyFrom(model.skeleton.proto)
        del proto.training_info[:]
        self._fixed = {
            name for n in proto.graph.node if n.op_type in NOT_WEIGHTS for name in n.input
        }
        self._weights: dict[str, Callable[[], Array]] = {}
        self._take_weights(proto.graph)
        _promote(proto, self._values)
        for entry in proto.opset_import:
            if entry.domain == "ai.onnx":
                entry.domain = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._evaluator = _evaluator_class()(proto)
        except Exception as error:  # any operator's own code runs here
            raise RunError(_sentence(error)) from error

    def _take_weights(self, graph: onnx.GraphProto) -> None:
        """Take initializers and constants out of the main graph, to be read when they are used."""
        rest = []
        for node in graph.node:
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and node.domain in {"", "ai.onnx"} and tensor is not None:
                self._weights[node.output[0]] = self._reader(node.output[0], tensor)
            else:
                rest.append(node)
        del graph.node[:]
        graph.node.extend(rest)
        for tensor in graph.initializer:
            self._weights[tensor.name] = self._reader(tensor.name, tensor)
        del graph.initializer[:]

    def _reader(self, name: str, tensor: onnx.TensorProto) -> Callable[[], Array]:
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        fixed = name in self._fixed
        return lambda: self._values(kept, fixed=fixed)

    def _values(self, tensor: onnx.TensorProto, *, fixed: bool = True) -> Array:
        """Return the numbers of a tensor: floats as float64, the others as they are."""
        values = self._model.values(tensor)
        if self._moved is not None and not fixed and values.size > 1 and is_float(values.dtype):
            key = int.from_bytes(tensor.name.encode()[-8:], "little") + len(tensor.name)
            values = rounded_otherwise(values, np.random.default_rng((*self._moved, key)))
        return values.astype(np.float64) if is_float(values.dtype) else np.array(values)

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """Return all outputs in graph order, floats as float64.

        Raises:
            RunError: The model does not run with these values.
            TooMuchWorkError: It takes longer than it may.
        """
        walk = self.walk(arrays, frozenset())
        try:
            next(walk)
        except StopIteration as end:
            return list(end.value)
        raise AssertionError("a walk stops at what is watched, which was nothing")

    def walk(self, arrays: Mapping[str, Value], watched: Container[str]) -> Walk:
        """Run step by step.

        Args:
            arrays: A value for each input.
            watched: Tensors of the main graph at which to stop.

        Yields:
            Name and value of each watched tensor once it is computed. What is sent back is used in
            its place; None keeps it.

        Returns:
            All outputs in graph order.

        Raises:
            RunError: The model does not run with these values.
            TooMuchWorkError: It takes longer than it may.
        """
        feed = {name: promoted(value) for name, value in arrays.items()}
        self._evaluator.limit(*self._limits)
        steps = self._evaluator.walk(feed, self._weights, watched)
        send: Value = None
        while True:
            try:
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    found = steps.send(send)
            except StopIteration as end:
                return list(end.value)
            except RunError:
                raise
            except Exception as error:  # any operator's own code runs here
                raise RunError(_sentence(error)) from error
            send = yield found


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def promoted(value: Value) -> Value:
    """Return a value with its floats as float64, whatever they were and however it is nested."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64) if value.dtype in _NARROW_ARRAYS else value
    if isinstance(value, np.floating):
        return np.float64(value)
    if isinstance(value, Mapping):
        return {key: promoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [promoted(item) for item in value]
    return value


def _promote(proto: onnx.ModelProto, values: Callable[[onnx.TensorProto], Array]) -> None:
    """Write float64 in place of every other float type that the model names."""
    _promote_graph(proto.graph, values)
    for function in proto.functions:
        _promote_nodes(function.node, values)
        for attribute in function.attribute_proto:
            _promote_attribute(attribute, values)


def _promote_graph(graph: onnx.GraphProto, values: Callable[[onnx.TensorProto], Array]) -> None:
    for tensor in graph.initializer:
        _promote_tensor(tensor, values)
    for sparse in graph.sparse_initializer:
        _promote_tensor(sparse.values, values)
    for info in (*graph.input, *graph.output, *graph.value_info):
        _promote_type(info.type)
    _promote_nodes(graph.node, values)


def _promote_nodes(nodes: Any, values: Callable[[onnx.TensorProto], Array]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            _promote_attribute(attribute, values)
        narrow = next((a for a in node.attribute if a.name.startswith("value_float")), None)
        if node.op_type == "Constant" and narrow is not None and not narrow.ref_attr_name:
            numbers = np.array(narrow.floats if narrow.floats else narrow.f, np.float64)
            del node.attribute[:]
            node.attribute.append(
                onnx.helper.make_attribute("value", numpy_helper.from_array(numbers))
            )


def _promote_attribute(
    attribute: onnx.AttributeProto, values: Callable[[onnx.TensorProto], Array]
) -> None:
    for tensor in (attribute.t, *attribute.tensors) if attribute.type in {4, 9} else ():
        _promote_tensor(tensor, values)
    for graph in (attribute.g, *attribute.graphs) if attribute.type in {5, 10} else ():
        _promote_graph(graph, values)
    if attribute.name in _TYPES and attribute.type == onnx.AttributeProto.INT:
        if attribute.i in _NARROW:
            attribute.i = _DOUBLE
    elif attribute.type == onnx.AttributeProto.TYPE_PROTO:
        _promote_type(attribute.tp)


def _promote_tensor(tensor: onnx.TensorProto, values: Callable[[onnx.TensorProto], Array]) -> None:
    marked = tensor.data_location == onnx.TensorProto.EXTERNAL
    if tensor.data_type in _NARROW or marked:
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values(tensor)), tensor.name))


def _promote_type(declared: onnx.TypeProto) -> None:
    kind = declared.WhichOneof("value")
    if kind in {"tensor_type", "sparse_tensor_type"}:
        part = getattr(declared, kind)
        if part.elem_type in _NARROW:
            part.elem_type = _DOUBLE
    elif kind in {"sequence_type", "optional_type"}:
        _promote_type(getattr(declared, kind).elem_type)
    elif kind == "map_type":
        _promote_type(declared.map_type.value_type)


def _multiplications(op_type: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> float:
    """Estimate what evaluating a node cost."""
    size: float = sum(getattr(value, "size", 1) for value in outputs)
    if op_type == "Conv":
        return float(size * (inputs[1].size / max(len(inputs[1]), 1) + _COST))
    if op_type == "ConvTranspose":
        return float(inputs[0].size * inputs[1].size / max(len(inputs[1]), 1) + size)
    if op_type in {"MatMul", "Gemm"} and inputs[0].ndim:
        return float(size * inputs[0].shape[-1])
    return size * _SLOW.get(op_type, _COST)


@functools.cache
def _evaluator_class() -> Any:
    """Return the evaluator whose values are float64 at every step."""

    class Evaluator(evaluator_class(fast_operators())):  # type: ignore[misc]  # any evaluator
        def run(
            self,
            output_names: Any,
            feed_inputs: dict[str, Any],
            attributes: dict[str, Any] | None = None,
            intermediate: bool = False,
            check_shape_annotations: bool | None = None,
            _bindings: Any = None,
        ) -> Any:
            """Run a subgraph or function: the form in which the evaluator calls itself."""
            results = {"": None, **self.rt_inits_, **feed_inputs}
            for node in self.rt_nodes_:
                self._step(node, results, results, attributes)
            return [results[name] for name in output_names or self.output_names]

        def walk(
            self,
            feed: Mapping[str, Value],
            weights: Mapping[str, Callable[[], Array]],
            watched: Container[str],
        ) -> Walk:
            """Run the main graph: weights are read for each node, values go after their last use.

            See :meth:`ExactRunner.walk`; the work of each node is sent out beside its values.
            """
            results: dict[str, Any] = {"": None, **self.rt_inits_, **feed}
            needed = [set(_names_used(node.onnx_node)) for node in self.rt_nodes_]
            uses = Counter(name for names in needed for name in names)
            uses.update(self.output_names)
            for node, names in zip(self.rt_nodes_, needed, strict=True):
                read = {
                    name: weights[name]() for name in names if name in weights and name not in feed
                }
                context = results | read if node.need_context() else results
                inputs = [context[i] if i in context else read[i] for i in node.input]
                outputs = self._call(node, inputs, context, None)
                weighed = sum(getattr(value, "size", 1) for value in read.values())
                self.spend(_multiplications(node.op_type, inputs, outputs) + _READ * weighed)
                for name, value in zip(node.output, outputs, strict=False):
                    given = (yield name, value) if name in watched else None
                    results[name] = value if given is None else given
                for name in (*names, *node.output):
                    uses[name] -= name in names
                    if uses[name] <= 0 and name:
                        results.pop(name, None)
            return [
                results[name] if name in results else weights[name]() for name in self.output_names
            ]

        def limit(self, work: float, deadline: float) -> None:
            """Start counting work."""
            self.spent, self.work, self.deadline = 0.0, work, deadline

        def spend(self, work: float) -> None:
            """Count work; raise once it is too much."""
            self.spent += work
            if self.spent > self.work or time.monotonic() > self.deadline:
                raise TooMuchWorkError("evaluating the model in float64 takes too long")

        def _step(
            self,
            node: Any,
            results: dict[str, Any],
            context: dict[str, Any],
            attributes: dict[str, Any] | None,
        ) -> None:
            inputs = [results[name] for name in node.input]
            outputs = self._call(node, inputs, context, attributes)
            results.update(zip(node.output, outputs, strict=False))

        def _call(
            self,
            node: Any,
            inputs: Sequence[Any],
            context: Mapping[str, Any],
            attributes: dict[str, Any] | None,
        ) -> list[Any]:
            options: dict[str, Any] = {}
            if node.has_linked_attribute and attributes:
                options["linked_attributes"] = attributes
            if node.need_context():
                options["context"] = context
            # Some operators have float32 in their own code.
            return [promoted(value) for value in node.run(*inputs, **options)]

    return Evaluator


def _names_used(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, in its subgraphs too; their own names may be among them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.type in {5, 10} else ():
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _names_used(inner)
