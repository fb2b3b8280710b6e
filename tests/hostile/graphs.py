"""ONNX models that are hostile by design: each is small, and most are legal protobuf.

``HOSTILE`` has a function for each that returns the bytes of the file.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from bnfold.store.wire import encode_varint, header

__all__ = ["HOSTILE", "bn_model"]

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
PARAMETERS = ("scale", "bias", "mean", "var")


def _info(name: str, shape: Iterable[Any] | None = (1, 4, 8, 8), kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _tensor(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(values, dtype), name)


def _claimed(name: str, dims: Iterable[int], data: bytes = b"", kind: int = FLOAT) -> TensorProto:
    """A tensor that says anything about itself."""
    return TensorProto(name=name, dims=list(dims), data_type=kind, raw_data=data)


def _conv(**attributes: Any) -> NodeProto:
    return helper.make_node("Conv", ["x", "w"], ["c"], name="conv", **attributes)


def _bn(source: str = "c", output: str = "y", name: str = "bn") -> NodeProto:
    return helper.make_node("BatchNormalization", [source, *PARAMETERS], [output], name=name)


def _weights(channels: int = 4) -> list[TensorProto]:
    values = np.linspace(0.5, 1.5, channels)
    return [
        _tensor("w", np.linspace(-1, 1, channels * channels * 9).reshape(channels, channels, 3, 3)),
        *(_tensor(name, values) for name in PARAMETERS),
    ]


def _model(
    nodes: Iterable[NodeProto] = (),
    tensors: Iterable[TensorProto] = (),
    *,
    inputs: Iterable[Any] | None = None,
    outputs: Iterable[Any] | None = None,
    functions: Iterable[Any] = (),
    opset: int = 17,
) -> ModelProto:
    graph = GraphProto(name="g")
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.input.extend([_info("x")] if inputs is None else inputs)
    graph.output.extend([_info("y", list("nchw"))] if outputs is None else outputs)
    model = ModelProto(ir_version=9, graph=graph)
    model.opset_import.add(domain="", version=opset)
    model.opset_import.add(domain="f", version=1)
    model.functions.extend(functions)
    return model


def bn_model() -> ModelProto:
    """A convolution and a batch normalization, as they should be."""
    return _model([_conv(), _bn()], _weights())


def _spoilt(change: Callable[[ModelProto], object]) -> Callable[[], bytes]:
    """That model, with one thing changed."""

    def make() -> bytes:
        model = bn_model()
        change(model)
        return model.SerializeToString()

    return make


def _of(make: Callable[[], ModelProto]) -> Callable[[], bytes]:
    return lambda: make().SerializeToString()


def _renamed(old: bytes, new: bytes) -> Callable[[], bytes]:
    """That model with other bytes of the same length, such as names that are not text."""
    return lambda: bn_model().SerializeToString().replace(old, new)


# --- names and wires


def _cycle() -> ModelProto:
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["c"]),
        _bn(),
    ]
    return _model(nodes, _weights())


def _bn_cycle() -> ModelProto:
    return _model([_bn("z", "y"), helper.make_node("Identity", ["y"], ["z"])], _weights())


def _constant_cycle() -> ModelProto:
    nodes = [
        helper.make_node("Identity", ["b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("BatchNormalization", ["x", "a", "bias", "mean", "var"], ["y"]),
    ]
    return _model(nodes, _weights())


def _self_loop() -> ModelProto:
    return _model([helper.make_node("BatchNormalization", ["y"] * 5, ["y"])])


def _duplicates() -> ModelProto:
    return _model([_conv(), _conv(), _bn(), _bn(), _bn("y", "c")], _weights() + _weights(2))


def _long_names() -> ModelProto:
    name = "n" * (1 << 20)
    nodes = [_conv(), _bn("c", name), helper.make_node("Relu", [name], ["y"], name=name)]
    return _model(nodes, _weights())


# --- depth


def _branch(name: str, inner: NodeProto | None = None) -> GraphProto:
    node = inner or helper.make_node("Relu", ["x"], [name])
    return helper.make_graph([node], name, [], [_info(node.output[0], None)])


def _nested_ifs(depth: int, both: bool = False) -> ModelProto:
    node = None
    for level in range(depth):
        then = _branch(f"t{level}", node)
        other = _branch(f"e{level}", node if both else None)
        node = helper.make_node(
            "If", ["cond"], [f"o{level}"], then_branch=then, else_branch=other, name=f"if{level}"
        )
    assert node is not None
    node.output[0] = "y"
    return _model([node], [_tensor("cond", True, bool)])


def _nested_bytes(depth: int) -> bytes:
    """Graph in attribute in node in graph, far deeper than protobuf reads."""
    inner = b""
    for number in (1, 5, 6) * depth:  # node of a graph, attribute of a node, graph of an attribute
        inner = bytes(header(number, len(inner))) + inner
    return b"\x08\x09" + bytes(header(7, len(inner))) + inner


def _nested_types(depth: int) -> ModelProto:
    model = bn_model()
    kind = model.graph.input.add(name="s").type
    for _ in range(depth):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = FLOAT
    return model


def _nested_loops(depth: int) -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["r"]), helper.make_node("Identity", ["k"], ["l"])],
        "b0",
        [_info("i", (), INT64), _info("k", (), TensorProto.BOOL), _info("v", None)],
        [_info("l", (), TensorProto.BOOL), _info("r", None)],
    )
    for level in range(depth):
        node = helper.make_node("Loop", ["trips", "go", "v"], ["r"], body=body)
        body = helper.make_graph(
            [node, helper.make_node("Identity", ["k"], ["l"])],
            f"b{level + 1}",
            [_info("i", (), INT64), _info("k", (), TensorProto.BOOL), _info("v", None)],
            [_info("l", (), TensorProto.BOOL), _info("r", None)],
        )
    node = helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=body)
    return _model([node], [_tensor("trips", 2**62, np.int64), _tensor("go", True, bool)])


# --- functions


def _function(name: str, called: list[str]) -> Any:
    values = ["a", *(f"v{index}" for index in range(1, len(called))), "b"]
    nodes = [
        helper.make_node(op, [source], [target], domain="f")
        for op, source, target in zip(called, values, values[1:], strict=False)
    ]
    if not called:
        nodes = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["b"], nodes, opsets)


def _calls(names: dict[str, list[str]], entry: str = "f0") -> ModelProto:
    functions = [_function(name, called) for name, called in names.items()]
    node = helper.make_node(entry, ["x"], ["c"], domain="f")
    return _model([node, _bn()], _weights(), functions=functions)


def _function_bomb(levels: int, width: int = 2) -> ModelProto:
    """Every function calls the next one twice; the last one normalizes with its caller's values."""
    inputs = ["a", *PARAMETERS]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = []
    for level in range(levels):
        values = ["a", *(f"v{index}" for index in range(1, width)), "b"]
        nodes = [
            helper.make_node(f"f{level + 1}", [source, *PARAMETERS], [target], domain="f")
            for source, target in itertools.pairwise(values)
        ]
        functions.append(helper.make_function("f", f"f{level}", inputs, ["b"], nodes, opsets))
    last = helper.make_node("BatchNormalization", inputs, ["b"], name="bn")
    functions.append(helper.make_function("f", f"f{levels}", inputs, ["b"], [last], opsets))
    node = helper.make_node("f0", ["c", *PARAMETERS], ["y"], domain="f")
    return _model([_conv(), node], _weights(), functions=functions)


# --- constants that grow


def _with_scale(*nodes: NodeProto, tensors: Iterable[TensorProto] = ()) -> ModelProto:
    """A normalization whose scale is computed from constants: ``s``."""
    norm = helper.make_node("BatchNormalization", ["c", "s", "bias", "mean", "var"], ["y"])
    return _model([_conv(), *nodes, norm], [*_weights(), *tensors])


def _with_weight(*nodes: NodeProto, tensors: Iterable[TensorProto] = ()) -> ModelProto:
    """A convolution whose weight is computed from constants: ``s``."""
    conv = helper.make_node("Conv", ["x", "s"], ["c"])
    return _model([*nodes, conv, _bn()], [*_weights(), *tensors])


def _huge_constant(op: str, **attributes: Any) -> Callable[[], bytes]:
    sides = [1 << 20, 1 << 12, 16, 16]
    tensors = [
        _tensor("shape", sides, np.int64),
        _tensor("one", [1.0]),
        _tensor("one4", [[[[1.0]]]]),
        _tensor("from", 0.0),
        _tensor("to", 1e12),
        _tensor("step", 1.0),
        _tensor("count", 1 << 40, np.int64),
        _tensor("values", [0.0, 1.0]),
        _tensor("index", np.zeros((64, 1)), np.int64),
        _tensor("pads", [1 << 38, 1 << 38], np.int64),
    ]
    inputs = {
        "ConstantOfShape": ["shape"],
        "Expand": ["one4", "shape"],
        "Tile": ["one4", "shape"],
        "Range": ["from", "to", "step"],
        "OneHot": ["index", "count", "values"],
        "Pad": ["one", "pads"],
        "Resize": ["one4", "", "", "shape"],
    }[op]
    node = helper.make_node(op, inputs, ["s"], **attributes)

    def make() -> bytes:
        return _with_weight(node, tensors=tensors).SerializeToString()

    return make


def _doubling(op: str, times: int, **attributes: Any) -> ModelProto:
    nodes, last = [], "bias"
    for index in range(times):
        nodes.append(helper.make_node(op, [last, last], [f"d{index}"], **attributes))
        last = f"d{index}"
    return _with_scale(*nodes, helper.make_node("Identity", [last], ["s"]))


def _outer_product() -> ModelProto:
    """Two vectors whose sum is a matrix of 10^11 numbers."""
    long = np.zeros(1 << 18)
    nodes = [helper.make_node("Add", ["row", "column"], ["s"])]
    tensors = [_tensor("row", long), _tensor("column", long.reshape(-1, 1))]
    return _with_weight(*nodes, tensors=tensors)


def _computed_huge(op: str, **attributes: Any) -> ModelProto:
    """Arithmetic on a constant that is small only as long as nobody writes it out."""
    make = helper.make_node("ConstantOfShape", ["shape"], ["huge"])
    return _with_weight(
        make,
        helper.make_node(op, ["huge"], ["s"], **attributes),
        tensors=[_tensor("shape", [1 << 20, 1 << 12, 16, 16], np.int64)],
    )


def _gathered() -> ModelProto:
    """A gather of a long vector at 2^20 places, twice: 2^40 numbers."""
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["shape"], ["places"], value=_tensor("", [0], np.int64)
        ),
        helper.make_node("Gather", ["bias", "places"], ["s"]),
    ]
    return _with_weight(*nodes, tensors=[_tensor("shape", [1 << 20, 1 << 20], np.int64)])


def _huge_parameters() -> ModelProto:
    """A normalization of 2^40 channels."""
    nodes = [
        *(
            helper.make_node("ConstantOfShape", ["n"], [name], value=_tensor("", [1.0]))
            for name in (*PARAMETERS, "v")
        ),
        helper.make_node("Mul", ["x", "v"], ["c"]),
        _bn(),
    ]
    return _model(nodes, [_tensor("n", [1 << 40], np.int64)], inputs=[_info("x", None)])


def _huge_weight() -> ModelProto:
    """A convolution of terabytes, one number in the file, in front of a normalization."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["w"], value=_tensor("", [1.0])),
        _conv(),
        _bn(),
    ]
    shape = _tensor("n", [4, 1 << 20, 1 << 10, 1 << 10], np.int64)
    return _model(nodes, [shape, *_weights()[1:]], inputs=[_info("x", None)])


# --- width


def _many_inputs(count: int) -> ModelProto:
    inputs = [_info("x"), *(_info(f"i{index}", (1,)) for index in range(count))]
    return _model([_conv(), _bn()], _weights(), inputs=inputs)


def _many_nodes(count: int) -> ModelProto:
    nodes, last = [_conv()], "c"
    for index in range(count):
        nodes.append(helper.make_node("Relu", [last], [f"r{index}"]))
        last = f"r{index}"
    return _model([*nodes, _bn(last)], _weights())


def _many_norms(count: int) -> ModelProto:
    nodes, last = [_conv()], "c"
    for index in range(count):
        nodes.append(_bn(last, f"r{index}", f"bn{index}"))
        last = f"r{index}"
    return _model([*nodes, helper.make_node("Relu", [last], ["y"])], _weights())


def _ladder(op: str, count: int) -> ModelProto:
    """Every value is used twice by the next node: 2^count paths through few nodes."""
    nodes, last = [_conv()], "c"
    for index in range(count):
        attributes = {"axis": 1} if op == "Concat" else {}
        nodes.append(helper.make_node(op, [last, last], [f"r{index}"], **attributes))
        last = f"r{index}"
    return _model([*nodes, _bn(last)], _weights())


def _ladder_of_convs(count: int) -> ModelProto:
    """As before, with operators that could be merged between the steps."""
    nodes, last = [], "x"
    for index in range(count):
        nodes += [
            helper.make_node("Conv", [last, "w"], [f"a{index}"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", [last, "w"], [f"b{index}"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", [f"a{index}", f"b{index}"], [f"r{index}"]),
        ]
        last = f"r{index}"
    return _model([*nodes, _bn(last)], _weights())


def _fan(count: int) -> ModelProto:
    """One normalization that thousands read, each behind the other's sum."""
    nodes = [_bn("x", "n")]
    last = "n"
    for index in range(count):
        nodes.append(helper.make_node("Add", [last, "n"], [f"r{index}"]))
        last = f"r{index}"
    return _model([*nodes, helper.make_node("Identity", [last], ["y"])], _weights())


def _wide_node(count: int) -> ModelProto:
    node = helper.make_node("Concat", ["x"] * count, ["c"], axis=0)
    return _model([node, _bn()], _weights())


def _many_metadata(count: int) -> ModelProto:
    model = bn_model()
    for index in range(count):
        model.metadata_props.add(key=f"k{index}", value="v")
    return model


def _many_attributes(count: int) -> ModelProto:
    node = _conv()
    node.attribute.extend([helper.make_attribute("strides", [1, 1])] * count)
    return _model([node, _bn()], _weights())


def _bodies(count: int) -> ModelProto:
    nodes = []
    for index in range(count):
        one, other = _branch(f"t{index}"), _branch(f"e{index}")
        nodes.append(
            helper.make_node("If", ["q"], [f"o{index}"], then_branch=one, else_branch=other)
        )
    return _model([*nodes, _conv(), _bn()], [*_weights(), _tensor("q", True, bool)])


# --- other


def _strings() -> ModelProto:
    text = TensorProto(name="scale", dims=[4], data_type=TensorProto.STRING)
    text.string_data.extend([b"\xff\xfe", b"a\0b", b"", b"1"])
    return _model([_conv(), _bn()], [text, *_weights()[2:], _weights()[0]])


def _sparse(indices: list[int], dims: list[int]) -> ModelProto:
    model = _model([_conv(), _bn()], _weights()[1:])
    sparse = model.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(_tensor("w", np.ones(len(indices))))
    sparse.indices.CopyFrom(_tensor("", indices, np.int64))
    return model


def _endless_loop() -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["l"]), helper.make_node("Relu", ["v"], ["r"])],
        "body",
        [_info("i", (), INT64), _info("k", (), TensorProto.BOOL), _info("v", None)],
        [_info("l", (), TensorProto.BOOL), _info("r", None)],
    )
    node = helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)
    return _model([node], [_tensor("n", 2**62, np.int64), _tensor("go", True, bool)])


def _self_reference() -> ModelProto:
    """A branch that gives the result of the very node that it belongs to."""
    inner = helper.make_node("Identity", ["y"], ["y"])
    node = helper.make_node(
        "If", ["q"], ["y"], then_branch=_branch("a", inner), else_branch=_branch("b", inner)
    )
    return _model([node, _bn("y", "z")], [*_weights(), _tensor("q", True, bool)])


def _training(model: ModelProto) -> None:
    info = model.training_info.add()
    info.algorithm.CopyFrom(model.graph)
    info.update_binding.add(key="w", value="nowhere")


def _split() -> ModelProto:
    """A Split that says to have fewer outputs than it has."""
    model = _model()
    model.opset_import[0].version = 18
    outputs = ["first", "second", "third"]
    model.graph.node.append(helper.make_node("Split", ["y"], outputs, num_outputs=2))
    return model


def _dims(name: str, dims: Iterable[int], data: bytes | None = None) -> Callable[[], bytes]:
    def change(model: ModelProto) -> None:
        tensor = next(each for each in model.graph.initializer if each.name == name)
        tensor.dims[:] = list(dims)
        if data is not None:
            tensor.raw_data = data

    return _spoilt(change)


def _conv_with(**attributes: Any) -> Callable[[], bytes]:
    return _of(lambda: _model([_conv(**attributes), _bn()], _weights()))


def _wrong_attribute_type(model: ModelProto) -> None:
    node = model.graph.node[0]
    for name in ("group", "strides", "pads", "auto_pad", "dilations", "kernel_shape"):
        node.attribute.add(name=name, type=AttributeProto.GRAPH)
    model.graph.node[1].attribute.add(name="epsilon", type=AttributeProto.STRING, s=b"\xff")


def _versions(ir: int, opset: int) -> Callable[[], bytes]:
    def change(model: ModelProto) -> None:
        model.ir_version = ir
        model.opset_import[0].version = opset

    return _spoilt(change)


def _varint_field(number: int, value: int) -> bytes:
    return encode_varint(number << 3) + encode_varint(value)


def _noise(seed: int) -> bytes:
    return b"\x08\x09" + random.Random(seed).randbytes(4096)  # noqa: S311 - not for secrets


HOSTILE: dict[str, Callable[[], bytes]] = {
    # names and wires
    "a cycle": _of(_cycle),
    "a cycle through a normalization": _of(_bn_cycle),
    "a cycle of constants": _of(_constant_cycle),
    "a node that reads itself": _of(_self_loop),
    "everything twice": _of(_duplicates),
    "names of a megabyte": _of(_long_names),
    "a name with NUL": _renamed(b"scale", b"sc\0le"),
    "a name that is not UTF-8": _renamed(b"scale", b"sc\xff\xfee"),
    "an operator that is not UTF-8": _renamed(
        b"BatchNormalization", b"BatchNormalizat\xff\xfe\xfd"
    ),
    "a domain that is not UTF-8": _renamed(b"conv", b"c\xff\xfev"),
    "outputs that nobody makes": _spoilt(lambda m: m.graph.output.add(name="nowhere")),
    "a normalization without inputs": _spoilt(lambda m: m.graph.node[1].ClearField("input")),
    "a normalization without outputs": _spoilt(lambda m: m.graph.node[1].ClearField("output")),
    "a Split with too many outputs": _of(_split),
    "a node without operator": _spoilt(lambda m: m.graph.node[0].ClearField("op_type")),
    "no inputs and no outputs": _of(lambda: _model(inputs=[], outputs=[])),
    # sizes
    "a negative dimension": _dims("scale", [-4]),
    "two negative dimensions": _dims("scale", [-2, -2]),
    "dimensions that overflow": _dims("w", [1 << 62, 1 << 62, 4]),
    "dimensions that overflow to 16 bytes": _dims("scale", [1 << 32, 1 << 32, 4]),
    "more dimensions than data": _dims("w", [4, 4, 3, 1 << 40]),
    "fewer dimensions than data": _dims("w", [4, 4, 3]),
    "no data": _dims("w", [4, 4, 3, 3], b""),
    "a hundred thousand dimensions": _dims("scale", [1] * 100_000),
    "dimensions of zero": _dims("scale", [0], b""),
    "an unknown element type": _spoilt(lambda m: setattr(m.graph.initializer[1], "data_type", 99)),
    "huge inputs": _spoilt(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[3], "dim_value", 1 << 40)
    ),
    "negative inputs": _spoilt(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", -4)
    ),
    # depth
    "bodies in bodies, 20 deep": _of(lambda: _nested_ifs(20)),
    "bodies in bodies, 30 deep": _of(lambda: _nested_ifs(30)),
    "bodies in both branches, 12 deep": _of(lambda: _nested_ifs(12, both=True)),
    "messages 300 deep": lambda: _nested_bytes(100),
    "messages 3000 deep": lambda: _nested_bytes(1000),
    "messages 90000 deep": lambda: _nested_bytes(30_000),
    "types in types, 40 deep": _of(lambda: _nested_types(40)),
    "loops in loops, 25 deep": _of(lambda: _nested_loops(25)),
    # functions
    "a function that calls itself": _of(lambda: _calls({"f0": ["f0"]})),
    "functions that call each other": _of(lambda: _calls({"f0": ["f1"], "f1": ["f0"]})),
    "a function that is not there": _of(lambda: _calls({"f0": ["f9"]})),
    "a chain of functions": _of(
        lambda: _calls({f"f{i}": [f"f{i + 1}"] for i in range(3000)} | {"f3000": []})
    ),
    "functions that expand to 2^40 nodes": _of(
        lambda: _calls({f"f{i}": [f"f{i + 1}"] * 2 for i in range(40)} | {"f40": []})
    ),
    "functions that expand to 2^20 normalizations": _of(lambda: _function_bomb(20)),
    "functions that expand to 10^40 normalizations": _of(lambda: _function_bomb(40, 10)),
    "a chain of functions with weights": _of(lambda: _function_bomb(2000, 1)),
    # constants
    "ConstantOfShape of terabytes": _huge_constant("ConstantOfShape"),
    "Expand to terabytes": _huge_constant("Expand"),
    "Tile to terabytes": _huge_constant("Tile"),
    "Range of terabytes": _huge_constant("Range"),
    "OneHot of terabytes": _huge_constant("OneHot"),
    "Pad to terabytes": _huge_constant("Pad"),
    "Resize to terabytes": _huge_constant("Resize"),
    "Concat doubled 50 times": _of(lambda: _doubling("Concat", 50, axis=0)),
    "Concat doubled 30 times": _of(lambda: _doubling("Concat", 28, axis=0)),
    "Add doubled 60 times": _of(lambda: _doubling("Add", 60)),
    "MatMul doubled 60 times": _of(lambda: _doubling("MatMul", 60)),
    "an outer sum": _of(_outer_product),
    "Neg of terabytes": _of(lambda: _computed_huge("Neg")),
    "Exp of terabytes": _of(lambda: _computed_huge("Exp")),
    "Cast of terabytes": _of(lambda: _computed_huge("Cast", to=TensorProto.FLOAT16)),
    "ReduceSum of terabytes": _of(lambda: _computed_huge("ReduceSum")),
    "Flatten of terabytes": _of(lambda: _computed_huge("Flatten")),
    "Reshape of terabytes": _of(lambda: _computed_huge("Transpose")),
    "Gather of terabytes": _of(_gathered),
    "a normalization of 2^40 channels": _of(_huge_parameters),
    "a convolution of terabytes": _of(_huge_weight),
    # width
    "a million inputs": _of(lambda: _many_inputs(1_000_000)),
    "ten thousand nodes in a row": _of(lambda: _many_nodes(10_000)),
    "two thousand normalizations in a row": _of(lambda: _many_norms(2_000)),
    "a ladder of sums": _of(lambda: _ladder("Add", 60)),
    "a ladder of products": _of(lambda: _ladder("Mul", 60)),
    "a ladder of concatenations": _of(lambda: _ladder("Concat", 40)),
    "a ladder of convolutions": _of(lambda: _ladder_of_convs(40)),
    "a fan of sums": _of(lambda: _fan(500)),
    "a node of a million inputs": _of(lambda: _wide_node(1_000_000)),
    "a hundred thousand metadata": _of(lambda: _many_metadata(100_000)),
    "an attribute, a hundred thousand times": _of(lambda: _many_attributes(100_000)),
    "two thousand bodies": _of(lambda: _bodies(2_000)),
    # attributes and versions
    "a group of zero": _conv_with(group=0),
    "a negative group": _conv_with(group=-1),
    "a huge group": _conv_with(group=1 << 62),
    "huge pads": _conv_with(pads=[1 << 62] * 4),
    "negative strides": _conv_with(strides=[-1, -1]),
    "huge dilations": _conv_with(dilations=[1 << 62] * 2),
    "attributes of the wrong type": _spoilt(_wrong_attribute_type),
    "an old opset": _versions(3, 1),
    "opset zero": _versions(9, 0),
    "a negative opset": _versions(9, -1),
    "a huge opset": _versions(9, 1 << 62),
    "a negative version": _versions(-1, 17),
    "a huge version": _versions(1 << 62, 17),
    # other
    "strings as weights": _of(_strings),
    "a sparse weight": _of(lambda: _sparse([0, 3], [4, 4, 3, 3])),
    "a sparse weight out of range": _of(lambda: _sparse([-1, 1 << 62], [4, 4, 3, 3])),
    "a sparse weight of terabytes": _of(lambda: _sparse([0], [1 << 20, 1 << 20])),
    "an endless loop": _of(_endless_loop),
    "a body that reads its own result": _of(_self_reference),
    "a training graph": _spoilt(_training),
    "a varint of ten bytes": lambda: b"\x08" + b"\xff" * 9 + b"\x01" + b"\x3a\x00",
    "a varint of eleven bytes": lambda: b"\x08" + b"\xff" * 10 + b"\x01\x3a\x00",
    "a length of 2^63": lambda: b"\x08\x09\x3a" + encode_varint(1 << 63),
    "a field number of 2^29": lambda: b"\x08\x09" + _varint_field(1 << 29, 0),
    "a graph in two parts": lambda: bn_model().SerializeToString() * 2,
    "groups": lambda: bn_model().SerializeToString() + b"\x0b\x0c",
    "noise behind a head": lambda: _noise(0),
}
"""What is hostile about it -> the bytes of the file."""
