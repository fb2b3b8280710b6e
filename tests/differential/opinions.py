"""What a model computes, according to two programs that share no code with bnfold.

The reference evaluator of ONNX computes in float64, every intermediate tensor too. ONNX Runtime, in
float32 and without optimization, reads the specification independently of it. Neither runs a model
in its own type: no runtime computes float16 in float16 throughout, and none has float64 for all.
What constants have lost when they were rounded to the type of the model stays lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.differential.reference_ops import REFERENCE_OPS
from tests.support import Feeds

__all__ = [
    "FLOATS", "Values", "float64_values", "graphs_of", "nodes", "reads", "runtime_outputs",
]  # fmt: skip

Values = dict[str, np.ndarray]
FLOATS = (TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def float64_values(model: ModelProto) -> Callable[[Feeds], Values]:
    """Every tensor that a node of the main graph computes, and every output, in float64."""
    # the evaluator knows nothing of REFERENCE_OPS inside functions
    whole = onnx.inliner.inline_local_functions(model) if model.functions else model
    wide = retyped(whole, TensorProto.DOUBLE)
    evaluator = ReferenceEvaluator(wide, new_ops=REFERENCE_OPS)

    def run(feeds: Feeds) -> Values:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
            found = evaluator.run(None, _cast(feeds, np.float64), intermediate=True)
        return {name: np.asarray(value) for name, value in found.items() if name}

    return run


def runtime_outputs(model: ModelProto) -> Callable[[Feeds], Values]:
    """The outputs, computed by ONNX Runtime in float32."""
    narrow = retyped(model, TensorProto.FLOAT)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        narrow.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = list(dict.fromkeys(info.name for info in model.graph.output))

    def run(feeds: Feeds) -> Values:
        values = session.run(names, _cast(feeds, np.float32))
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    return run


def _cast(feeds: Feeds, dtype: type) -> Feeds:
    return {
        name: array if array.dtype.kind in "bi" else array.astype(dtype)
        for name, array in feeds.items()
    }


def retyped(model: ModelProto, kind: int) -> ModelProto:
    """The model with one float type in place of each."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for info in (info for graph in _graphs(copy) for info in _infos(graph)):
        if info.type.tensor_type.elem_type in FLOATS:
            info.type.tensor_type.elem_type = kind
    for graph in _graphs(copy):
        for tensor in graph.initializer:
            _retype(tensor, kind)
    for node in nodes(copy):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _retype(attribute.t, kind)
            elif node.op_type == "Cast" and attribute.i in FLOATS:
                attribute.i = kind
    return copy


def _infos(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)


def _retype(tensor: TensorProto, kind: int) -> None:
    if tensor.data_type in FLOATS and tensor.data_type != kind:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float64).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs and functions among them."""
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node
        for node in function.node:
            for graph in graphs_of(node):
                for inner in _nested(graph):
                    yield from inner.node


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield from _nested(model.graph)


def _nested(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for inner in graphs_of(node):
            yield from _nested(inner)


def graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: NodeProto) -> set[str]:
    """The names that a node reads, in its bodies too."""
    names = set(node.input)
    for graph in graphs_of(node):
        names.update(*(reads(inner) for inner in graph.node))
        names.update(output.name for output in graph.output)
    return names
