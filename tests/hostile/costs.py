"""ONNX models that cost more than they look: lengths that no weight has, and long ways.

``COSTLY`` has a function for each that returns the bytes of the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["COSTLY"]

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
PARAMETERS = ("scale", "bias", "mean", "var")
HUGE = 1 << 28


def _node(op: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def _bn(source: str, output: str) -> NodeProto:
    return _node("BatchNormalization", [source, *PARAMETERS], output)


def _conv(source: str, output: str) -> NodeProto:
    return _node("Conv", [source, "w"], output)


def _integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _model(
    nodes: Iterable[NodeProto],
    tensors: Iterable[TensorProto] = (),
    *,
    shape: Sequence[int] | None = (1, 4, 8, 8),
    kind: int = FLOAT,
    channels: int = 4,
    outputs: Sequence[str] = ("y",),
) -> bytes:
    values = np.linspace(0.5, 1.5, channels, dtype=np.float32)
    constants = [numpy_helper.from_array(values, name) for name in PARAMETERS]
    weight = np.ones((channels, 4, 1, 1), np.float32)
    constants += [numpy_helper.from_array(weight, "w"), *tensors]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    free = [f"d{axis}" for axis in range(4 if shape is None else len(shape))]
    infos = [helper.make_tensor_value_info(name, FLOAT, free) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", inputs, infos, constants)
    model = ModelProto(ir_version=9, graph=graph)
    for domain in ("", "ai.onnx.ml", "f"):
        model.opset_import.add(domain=domain, version=1 if domain else 21)
    return bytes(model.SerializeToString())


# --- lengths that no tensor has


def _long_pad() -> bytes:
    nodes = [_bn("x", "b"), _node("Pad", ["b", "p"], "q"), _conv("q", "y")]
    return _model(nodes, [_integers("p", 0, HUGE, 0, 0, 0, 0, 0, 0)])


def _long_split() -> bytes:
    nodes = [_conv("x", "c"), _node("Split", ["c", "s"], "q", "r", axis=1), _bn("q", "y")]
    return _model(nodes, [_integers("s", 4, HUGE)], shape=None)


def _long_slices() -> bytes:
    cuts = [
        _node("Slice", ["c", "zero", "one", "two"], "q"),
        _node("Slice", ["c", "one", "two", "two"], "z"),
    ]
    numbers = [_integers(name, value) for value, name in enumerate(("zero", "one", "two"))]
    nodes = [_conv("x", "c"), *cuts, _bn("q", "y")]
    shape = (1, 4, 1 << 22, 1)
    return _model(nodes, numbers, shape=shape, channels=200, outputs=("y", "z"))


def _long_concat() -> bytes:
    nodes = [_bn("x", "b"), _node("Slice", ["x", "none", "all", "two"], "s")]
    nodes += [_node("Transpose", ["s"], "t", perm=[0, 2, 1, 3])]
    nodes += [_node("Concat", ["b", *["t"] * 60], "q", axis=1), _conv("q", "y")]
    cuts = [_integers("none", 0), _integers("all", 1 << 22), _integers("two", 2)]
    return _model(nodes, cuts, shape=(1, 4, 1 << 22, 1))


def _long_reshape() -> bytes:
    nodes = [_bn("x", "b"), _node("Reshape", ["b", "s"], "q"), _conv("q", "y")]
    return _model(nodes, [_integers("s", 1, 8191, 8192)], shape=(1, 8192, 8191), channels=8192)


# --- inference of shapes that does not come back


def _vector(op: str, *more: str, **attributes: Any) -> Callable[[], bytes]:
    """A vector of 2^40 elements, which inference takes for a shape."""

    def make() -> bytes:
        nodes = [_node(op, ["x", *more], "v", **attributes), _bn("v", "y")]
        return _model(nodes, [_integers("i", 0)], shape=(1 << 40,), kind=INT64)

    return make


def _vector_in_a_function() -> bytes:
    body = [_node("Cast", ["a"], "b", to=FLOAT)]
    opset = [helper.make_opsetid("", 21)]
    function: FunctionProto = helper.make_function("f", "F", ["a"], ["b"], body, opset)
    model = ModelProto.FromString(_vector("Relu")())
    model.graph.node[0].CopyFrom(_node("F", ["x"], "v", domain="f"))
    model.functions.append(function)
    return bytes(model.SerializeToString())


def _untyped(node: NodeProto) -> Callable[[], bytes]:
    """An operator that reads what nothing is known of."""
    nodes = [_node("Unknown", ["x"], "u", domain="f"), node, _bn("x", "y")]
    return lambda: _model(nodes)


def _equation() -> bytes:
    return _model([_node("Einsum", ["x"], "q", equation="..." * 20_000 + "->"), _bn("q", "y")])


# --- ways that are long for each site


def _scales_in_a_row() -> bytes:
    values = ["x", *(f"v{i}" for i in range(600)), "y"]
    factor = numpy_helper.from_array(np.ones((4, 1, 1), np.float32), "k")
    pairs = itertools.pairwise(values)
    return _model([_node("Add", [a, "k"], b) for a, b in pairs], [factor])


def _sites_before_a_long_way() -> bytes:
    sites = [f"b{i}" for i in range(600)]
    way = [f"c{i}" for i in range(1200)] + ["y"]
    nodes = [*(_bn("x", name) for name in sites), _node("Concat", sites, "c0", axis=0)]
    pairs = itertools.pairwise(way)
    return _model([*nodes, *(_node("Identity", [a], b) for a, b in pairs)])


def _convolutions_in_a_row() -> bytes:
    nodes, weights, last = [], [], "x"
    for index in range(1500):
        weight = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes += [_node("Conv", [last, f"w{index}"], f"c{index}"), _bn(f"c{index}", f"b{index}")]
        last = f"b{index}"
    return _model([*nodes, _node("Identity", [last], "y")], weights)


def _empty_bound() -> bytes:
    nodes = [_conv("x", "c"), _node("Clip", ["c", "none"], "q"), _bn("q", "y")]
    return _model(nodes, [helper.make_tensor("none", FLOAT, [0], [])])


COSTLY: dict[str, Callable[[], bytes]] = {
    "a pad of gigabytes": _long_pad,
    "a split into gigabytes": _long_split,
    "slices of gigabytes": _long_slices,
    "a concatenation of gigabytes": _long_concat,
    "a reshape of two axes into two others": _long_reshape,
    "a vector of terabytes as a shape: Cast": _vector("Cast", to=FLOAT),
    "a vector of terabytes as a shape: Size": _vector("Size"),
    "a vector of terabytes as a shape: Slice": _vector("Slice", "i", "x"),
    "a vector of terabytes as a shape: Concat": _vector("Concat", "i", axis=0),
    "a vector of terabytes as a shape: Unsqueeze": _vector("Unsqueeze", "i"),
    "a vector of terabytes as a shape: a norm": _vector("MeanVarianceNormalization", axes=[0]),
    "a vector of terabytes as a shape, in a function": _vector_in_a_function,
    "an EyeLike of an unknown type": _untyped(_node("EyeLike", ["u"], "e", dtype=2)),
    "a RegexFullMatch of an unknown type": _untyped(_node("RegexFullMatch", ["u"], "e")),
    "a DictVectorizer of an unknown type": _untyped(
        _node("DictVectorizer", ["u"], "e", domain="ai.onnx.ml", int64_vocabulary=[2])
    ),
    "an equation of 60,000 characters": _equation,
    "six hundred scales in a row": _scales_in_a_row,
    "six hundred sites before a long way": _sites_before_a_long_way,
    "fifteen hundred convolutions in a row": _convolutions_in_a_row,
    "a Clip whose bound is empty": _empty_bound,
}
"""What costs more than it looks -> the bytes of the file."""
