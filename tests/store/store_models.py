"""Models for the tests of the store: small, and with everything that a model can hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def weight(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tensor(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor("", array))


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def sparse(name: str, seed: int, nnz: int) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        tensor(name, weight(seed, nnz)),
        tensor(f"{name}_indices", np.arange(nnz, dtype=np.int64)),
        [nnz * 2],
    )


def typed(name: str, data_type: int, field: str, values: list[float]) -> TensorProto:
    proto = TensorProto(name=name, data_type=data_type, dims=[len(values)])
    getattr(proto, field).extend(values)
    return proto


def conv_model() -> onnx.ModelProto:
    """Conv with a weight of 73 728 bytes and a bias of 256; the Reshape shape stays small."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "W", "b"], ["c"], name="conv"),
            helper.make_node("Reshape", ["c", "shape"], ["y"], name="reshape"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            tensor("W", weight(0, 64, 32, 3, 3)),
            tensor("b", weight(1, 64)),
            tensor("shape", np.array([1, -1], np.int64)),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def everything_model() -> onnx.ModelProto:
    """One of each thing that can hold a tensor, or that a rewrite could lose."""
    branches = [
        helper.make_graph(
            [constant("k", weight(seed, 2000)), helper.make_node("Add", ["W", "k"], [out])],
            f"branch{seed}",
            [],
            [value(out)],
            [tensor("W", weight(seed + 10, 1500)), tensor("small", weight(3, 2))],
        )
        for seed, out in ((1, "t"), (2, "e"))
    ]
    ends = np.array(["a", "b"], dtype=object)
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["i"], then_branch=branches[0], else_branch=branches[1]),
            constant("k", weight(4, 1024)),
            constant("tiny", weight(5, 3)),
            helper.make_node("Odd", ["k"], ["o"], domain="com.example", ts=[tensor("", ends)] * 2),
            helper.make_node(
                "Odd",
                ["k"],
                ["p"],
                domain="com.example",
                tensors=[tensor("a", weight(6, 1100)), tensor("a", weight(7, 1100))],
                graphs=branches,
                sparse=[sparse("s", 8, 1200), sparse("s", 9, 3)],
            ),
            helper.make_node("Constant", [], ["q"], sparse_value=sparse("v", 10, 1300)),
            helper.make_node("Fn", ["k"], ["y"], domain="local"),
        ],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [value("y")],
        [
            tensor("W", weight(11, 40, 30)),
            tensor("W", weight(12, 40, 30)),
            tensor("empty", np.zeros((0,), np.float32)),
            tensor("hollow", np.zeros((3, 0, 5), np.float32)),
            tensor("scalar", np.array(2.5, np.float32)),
            typed("floats", TensorProto.FLOAT, "float_data", [0.1] * 1500),
            typed("doubles", TensorProto.DOUBLE, "double_data", [0.2] * 1500),
            typed("ints", TensorProto.INT64, "int64_data", [7] * 5000),
            typed("halves", TensorProto.FLOAT16, "int32_data", [15360] * 5000),
        ],
        doc_string="a graph",
        sparse_initializer=[sparse("z", 13, 1400), sparse("zz", 14, 4)],
    )
    explicit = graph.initializer.add()
    explicit.CopyFrom(tensor("explicit", weight(15, 1400)))
    explicit.data_location = TensorProto.DEFAULT
    explicit.doc_string = "after the data"
    explicit.metadata_props.add(key="k", value="v")
    stale = graph.initializer.add()
    stale.CopyFrom(tensor("stale", weight(16, 1400)))
    stale.external_data.add(key="location", value="bnfold-store:0:0")
    function = helper.make_function(
        "local",
        "Fn",
        ["a"],
        ["b"],
        [constant("w", weight(17, 1200)), helper.make_node("Add", ["a", "w"], ["b"])],
        [helper.make_opsetid("", 17)],
        attribute_protos=[helper.make_attribute("default", tensor("d", weight(18, 1050)))],
    )
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid(name, 1) for name in ("com.example", "local")],
        ir_version=9,
    )
    model.opset_import.add(domain="", version=17)
    training = model.training_info.add()
    training.initialization.initializer.append(tensor("t0", weight(19, 1600)))
    training.algorithm.initializer.append(tensor("t1", weight(20, 1600)))
    # Field 1000 with the text "unknown", in the model, the graph and a big tensor.
    unknown = b"\xc2\x3e\x07unknown"
    model.MergeFromString(unknown)
    model.graph.MergeFromString(unknown)
    model.graph.initializer[0].MergeFromString(unknown)
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv": conv_model,
    "everything": everything_model,
}
