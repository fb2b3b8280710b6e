"""Models in float64: the operators agree with others, and every float type is promoted."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from check_pairs import text
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.check.exact.evaluator import ExactRunner, TooMuchWorkError
from bnfold.check.exact.operators import fast_operators
from bnfold.check.models.model import open_model
from bnfold.check.runtimes.sessions import RunError

RNG = np.random.default_rng(0)


def exact(proto: onnx.ModelProto, **options: Any) -> ExactRunner:
    return ExactRunner(open_model(proto.SerializeToString(), "reference"), **options)


def by_runtime(op: str, *values: np.ndarray, **attributes: Any) -> np.ndarray:
    """Run one node in ONNX Runtime, in float32."""
    names = [f"i{k}" for k in range(len(values))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {n: v.astype(np.float32) for n, v in zip(names, values, strict=True)}
    return np.asarray(session.run(None, feed)[0])


def one_node(op: str, *values: np.ndarray, **attributes: Any) -> list[np.ndarray]:
    """Run one node by the fast operators and by the evaluator's own."""
    names = [f"i{k}" for k in range(len(values))]
    node = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in names],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    feed = dict(zip(names, values, strict=True))
    return [
        ReferenceEvaluator(model, new_ops=list(ops)).run(None, feed)[0]
        for ops in ((), fast_operators())
    ]


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 7, 6), (4, 3, 3, 3), {}),
    "padded-strided": ((2, 3, 7, 6), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 3]}),
    "dilated": ((1, 2, 9, 9), (3, 2, 3, 3), {"dilations": [2, 3], "pads": [2, 2, 2, 2]}),
    "grouped": ((2, 6, 5, 5), (9, 2, 3, 3), {"group": 3, "pads": [1] * 4}),
    "depthwise": ((2, 4, 5, 5), (8, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
    "same-upper": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same-lower": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "VALID"}),
    "one-dimensional": ((2, 3, 11), (4, 3, 5), {"pads": [2, 2]}),
    "three-dimensional": ((1, 2, 4, 5, 3), (3, 2, 2, 3, 1), {"pads": [0, 1, 0, 1, 1, 0]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    shape, weight, attributes = CONVOLUTIONS[name]
    values = [RNG.normal(size=shape), RNG.normal(size=weight), RNG.normal(size=weight[0])]
    own, fast = one_node("Conv", *values, **attributes)
    np.testing.assert_allclose(fast, own, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        one_node("Conv", *values[:2], **attributes)[1],
        fast - values[2].reshape(-1, *[1] * (len(shape) - 2)),
        atol=1e-12,
    )


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 4, 5), (3, 2, 3, 3), {}),
    "strided": ((2, 3, 4, 5), (3, 2, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "output-padding": ((1, 3, 4, 4), (3, 2, 3, 3), {"strides": [2, 2], "output_padding": [1, 1]}),
    "grouped": ((2, 4, 3, 3), (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "dilated": ((1, 2, 4, 4), (2, 3, 3, 3), {"dilations": [2, 2]}),
    "output-shape": ((1, 3, 3, 3), (3, 2, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
    "one-dimensional": ((2, 3, 6), (3, 2, 3), {"strides": [2], "pads": [1, 1]}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(name: str) -> None:
    shape, weight, attributes = TRANSPOSED[name]
    bias = RNG.normal(size=weight[1] * attributes.get("group", 1))
    values = [RNG.normal(size=shape), RNG.normal(size=weight), bias]
    # The evaluator's own does not take a bias where there are groups.
    node = fast_operators()[1].eval(*values, **attributes)
    expected = by_runtime("ConvTranspose", *values, **attributes)
    assert node.shape == expected.shape
    np.testing.assert_allclose(node, expected, rtol=1e-4, atol=1e-5)


POOLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided-padded": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "ceil": {"strides": [2, 2], "ceil_mode": 1},
    "ceil-padded": {"strides": [3, 2], "pads": [1, 1, 0, 1], "ceil_mode": 1},
    "same-upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "AveragePool-padding"])
def test_pool(op: str, name: str) -> None:
    attributes = {"kernel_shape": [3, 3], **POOLS[name]}
    op, _, counted = op.partition("-")
    if counted:
        attributes["count_include_pad"] = 1
    own, fast = one_node(op, RNG.normal(size=(2, 3, 8, 7)), **attributes)
    np.testing.assert_allclose(fast, own, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["float", "float16", "bfloat16"])
def test_every_float_is_promoted(kind: str) -> None:
    number = {"float": 1, "float16": 10, "bfloat16": 16}[kind]
    dtype = helper.tensor_dtype_to_np_dtype(number)

    def digits(value: float) -> str:
        bits = np.asarray(value, dtype).view(f"u{dtype.itemsize}")
        return str(value) if kind == "float" else str(int(bits))

    model = text(
        f"""g ({kind}[N] x, bool c) => ({kind}[N] y) <{kind}[1] third = {{{digits(0.3333)}}}> {{
            a = Mul(x, third)
            k = Constant<value = {kind}[1] {{{digits(0.1)}}}>()
            b = Add(a, k)
            n = CastLike(k, b)
            d = Cast<to = {number}>(n)
            f = If(c) <then_branch = t () => ({kind}[M] u) {{
                    q = Constant<value = {kind}[1] {{{digits(0.7)}}}>()
                    u = Mul(b, q)
                }}, else_branch = e () => ({kind}[M] v) {{ v = Mul(b, d) }}>
            s = Shape(x)
            z = ConstantOfShape<value = {kind}[1] {{{digits(0.2)}}}>(s)
            y = Add(f, z)
        }}""",
        opset=19,
        ir=9,
    )
    # The digits are those of the type, the arithmetic is that of float64.
    third, tenth, seven, fifth = (float(np.asarray(v, dtype)) for v in (0.3333, 0.1, 0.7, 0.2))
    x = np.asarray([0.123, -4.5], dtype)
    for condition, factor in ((True, seven), (False, tenth)):
        (y,) = exact(model).run({"x": x, "c": np.array(condition)})
        assert y.dtype == np.float64
        expected = (x.astype(float) * third + tenth) * factor + fifth
        np.testing.assert_allclose(y, expected, rtol=1e-15)


def test_functions_are_promoted() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 19, "my" : 1]>
        g (float[N] x) => (float[N] y) { y = my.f(x) }
        <domain: "my", opset_import: ["" : 19]>
        f (x) => (y) { k = Constant<value_float = 0.1>()  y = Mul(x, k) }"""
    )
    (y,) = exact(model).run({"x": np.ones(2, np.float32)})
    np.testing.assert_allclose(y, np.float64(np.float32(0.1)), rtol=1e-15)


def test_weights_move_by_a_little_of_their_own_type() -> None:
    w = RNG.normal(size=(40, 40)).astype(np.float16)
    model = text("g (float16[N,40] x) => (float16[N,40] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    x = np.eye(40, dtype=np.float16)
    (still,) = exact(model).run({"x": x})
    assert np.array_equal(still, w.astype(float))
    (moved,) = exact(model, moved=(0, 1)).run({"x": x})
    ulps = np.abs(moved - still) / np.spacing(np.abs(w)).astype(float)
    assert set(np.unique(np.round(ulps, 1))) <= {0.0, 0.5, 1.0}
    assert 0.15 < np.mean(ulps > 0) < 0.35


def test_watched_tensors_can_be_exchanged() -> None:
    model = text("g (float[N] x) => (float[N] y) { a = Neg(x)\n b = Abs(a)\n y = Neg(b) }")
    walk = exact(model).walk({"x": np.array([1.0, -2.0], np.float32)}, {"a"})
    name, value = next(walk)
    assert name == "a"
    assert value.tolist() == [-1.0, 2.0]
    with pytest.raises(StopIteration) as end:
        walk.send(np.array([5.0, 6.0]))
    assert end.value.value[0].tolist() == [-5.0, -6.0]


def test_too_much_work_is_told() -> None:
    model = text("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    with pytest.raises(TooMuchWorkError, match="too long"):
        exact(model, work=10.0).run({"x": np.ones(100, np.float32)})


def test_an_unknown_operator_is_told() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19, "my" : 1]>\n'
        "g (float[N] x) => (float[N] y) { y = my.Op(x) }"
    )
    with pytest.raises(RunError, match="Op"):
        exact(model).run({"x": np.ones(1, np.float32)})
