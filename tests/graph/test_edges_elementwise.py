"""Edges of the rules of arithmetic and of matrix products: costs, ranges, old opsets, left operands.

``z = Sub(b, b)`` are zeros that nobody knows, and ``h = Reshape(x, z)`` is x, of unknown shape. The
dimension M is 3, whatever N is.
"""

from __future__ import annotations

import onnx
import pytest

from tests.graph.edge_graphs import N4, P4, POS, Y4, W, assert_left_alone
from tests.graph.edge_graphs import V1 as V
from tests.support import assert_fold, build, fold

ZEROS = "float[4] beta={0,0,0,0}, float[4] mean={0,0,0,0}, float[4] var={1,1,1,1}"
SHIFT = "float[4] one={1,1,1,1}, float[4] beta, float[4] mean"

OLD_Y4 = "y = BatchNormalization<is_test=1>(p, gamma, beta, mean, var)"
RELU = "c = Conv(x, w)  r = Relu(c)"

# name: (graph, opset, folded, kept)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "negation-of-unknown-rank": (f'g (float[M,3,1] x, int64[M] b) => (float[?,4] y) <{W}, int64[1] a={{2}}, {P4}> {{ z = Sub(b, b)  h = Reshape(x, z)  c = Conv(h, w)  q = Squeeze(c, a)  p = Neg(q)  {Y4} }}', 13, ['y'], {}),
    "product-with-a-constant-on-the-left-in-front": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float k={{2}}, {P4}> {{ c = Conv(x, w)  p = Mul(k, c)  {Y4} }}', 13, ['y'], {}),
    "product-with-a-constant-on-the-left-behind": (f'g (float[N,4,5] x) => (float[N,2,5] y) <{V}, float k={{2}}, {P4}> {{ {N4}  p = Mul(k, n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "difference-that-takes-the-shift": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float k={{2}}, float[4] gamma={{1,2,0.5,3}}, float[4] beta, float[4] mean, float[4] var> {{ {RELU}  p = Sub(r, k)  {Y4} }}', 13, ['y'], {}),
    "difference-from-a-constant-that-takes-the-shift": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float k={{2}}, {POS}> {{ {RELU}  p = Sub(k, r)  {Y4} }}', 13, ['y'], {'p': 'nonlinear'}),
    "product-that-goes-pays-for-a-shift-in-front": ('g (float[N,5,3] x) => (float[N,5,4] y, int64[3] u) <float[3,4] w, float k={2}, float[4] t> { c = MatMul(x, w)  p = Mul(c, k)  u = Shape(p)  y = Sub(t, p) }', 13, ['y'], {}),
    "product-that-goes-pays-for-a-shift-behind": ('g (float[N,5,4] x) => (float[N,5,2] y, int64[3] u) <float[4,2] w, float k={2}, float[4] t> { n = Sub(t, x)  u = Shape(n)  p = Mul(n, k)  y = MatMul(p, w) }', 13, ['n'], {}),
    "shift-that-would-overflow-the-constant": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float k={{1e30}}, float[4] gamma={{1e20,1,1,1}}, {ZEROS}> {{ {RELU}  p = Add(r, k)  {Y4} }}', 13, [], {'y': 'nonlinear'}),
    "shift-that-underflows": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float k={{1e-30}}, float[4] gamma={{1e-15,1e-15,1e-15,1e-15}}, {ZEROS}> {{ {RELU}  p = Add(r, k)  {Y4} }}', 13, ['y'], {}),
    "scale-that-would-underflow-the-constant": (f'g (float[N,4,5] x) => (float[N,4,5] y) <float k={{1e-30}}, float[4] gamma={{1e-15,1e-15,1e-15,1e-15}}, {ZEROS}> {{ p = Mul(x, k)  {Y4} }}', 13, [], {'y': 'graph_input'}),
    "scale-that-the-constant-takes": (f'g (float[N,4,5] x) => (float[N,4,5] y) <float k={{1e-15}}, float[4] gamma={{1e-15,1e-15,1e-15,1e-15}}, {ZEROS}> {{ p = Mul(x, k)  {Y4} }}', 13, ['y'], {}),
    "sum-of-unknown-lengths-and-a-shift": ('g (float[N,A,5] x, float[N,B,5] z) => (float[N,3,5] y) <float[3] one={1,1,1}, float[3] beta, float[3] mean> { p = Add(x, z)  y = BatchNormalization<epsilon=0.0>(p, one, beta, mean, one) }', 13, [], {'y': 'unknown_shape'}),
    "quotient-behind-as-the-divisor": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,2,5] y) <float[2,4,1] v, float[4,1] k> { s = Sigmoid(x)  n = Mul(s, k)  p = Div(z, n)  y = Conv(p, v) }', 13, [], {'n': 'nonlinear'}),
    "sum-in-front-of-opset-7": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float[4,3,1] v, {P4}> {{ r = Relu(x)  c = Conv(x, w)  d = Conv(r, v)  p = Sum(c, d)  {Y4} }}', 7, ['y'], {}),
    "sum-behind-of-opset-7": (f'g (float[N,4,5] x, float[N,4,5] z) => (float[N,2,5] y) <{V}, {SHIFT}> {{ n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  p = Sum(z, n)  y = Conv(p, v) }}', 7, ['n'], {}),
    "sum-in-front-of-opset-6": (f'g (float[N,3] x) => (float[N,4] y) <float[3,4] w, float[3,4] v, {P4}> {{ r = Relu(x)  c = MatMul(x, w)  d = MatMul(r, v)  p = Sum(c, d)  {OLD_Y4} }}', 6, ['y'], {}),
    "gemm-with-a-computed-bias-of-opset-7": (f'g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[3,4] u, {P4}> {{ q = MatMul(x, u)  p = Gemm(x, w, q)  {Y4} }}', 7, ['y'], {}),
    "gemm-with-a-computed-bias-that-would-overflow": (f'g (float[2,3] x) => (float[2,4] y) <float[3,4] w={{1e30,1,1,1,1,1,1,1,1,1,1,1}}, float[3,4] u, float[4] gamma={{1e10,1,1,1}}, {ZEROS}> {{ q = MatMul(x, u)  p = Gemm(x, w, q)  {Y4} }}', 13, [], {'y': 'overflow'}),
    "matmul-of-unknown-rank": (f'g (float[M,4,3] x, int64[M] b) => (float[M,4,5] y) <float[3,5] w, {P4}> {{ z = Sub(b, b)  h = Reshape(x, z)  p = MatMul(h, w)  {Y4} }}', 13, [], {'y': 'unknown_shape'}),
    "matmul-that-becomes-a-gemm-of-opset-7": (f'g (float[N,3] x) => (float[N,4] y) <float[3,4] w, {P4}> {{ p = MatMul(x, w)  {Y4} }}', 7, ['y'], {}),
    "matmul-of-rank-3-and-opset-6": (f'g (float[N,3,5] x) => (float[N,4,5] y) <float[4,3] w, {P4}> {{ p = MatMul(w, x)  {OLD_Y4} }}', 6, [], {'y': 'not_per_channel'}),
}  # fmt: skip

# what no runtime takes: name: (graph, why the batch normalization stays)
INVALID = {
    "sum-with-nothing": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ c = Conv(x, w)  p = Sum(c, "")  {Y4} }}', 'nonlinear'),
    "gemm-of-three-axes": (f'g (float[2,3] x) => (float[2,4] y) <float[3,4,1] w, {P4}> {{ p = Gemm(x, w)  {Y4} }}', 'unknown_shape'),
    "gemm-of-three-axes-behind": (f'g (float[2,4] x) => (float[2,3] y) <float[4,3,1] w, {P4}> {{ s = Sigmoid(x)  n = BatchNormalization(s, gamma, beta, mean, var)  y = Gemm(n, w) }}', 'unknown_shape'),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, folded, kept = CASES[name]
    model = build(text, opset=opset)
    assert_fold(model, folded=folded, kept=kept, sizes={"N": 2})


@pytest.mark.parametrize("name", INVALID)
def test_invalid_graph_is_left_alone(name: str) -> None:
    text, reason = INVALID[name]
    assert_left_alone(text, 13, reason)


def test_shift_joins_the_next_constant_rather_than_going_on() -> None:
    model = build("""g (float[N,5,4] x) => (float[N,5,2] y, int64[3] u)
        <float[4,2] w, float k, float[4] t>
        { n = Add(x, t)  u = Shape(n)  p = Add(n, k)  y = MatMul(p, w) }""")
    assert_fold(model, folded=["n"], ops=["Shape", "Add", "MatMul"])


def test_negation_in_a_function_has_no_known_type() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[N,1,4] x) => (float[N,1,4] y) { y = local.block(x) }
    <domain: "local", opset_import: ["" : 17]> block (a) => (b) {
      w = Constant<value = float[1,1,1] {2.0}>()
      s = Constant<value = float[1] {3.0}>()
      o = Constant<value = float[1] {0.5}>()
      c = Conv(a, w)
      t = Tanh(c)
      n = BatchNormalization(t, s, o, o, s)
      q = Neg(n)
      b = Tanh(q)
    }""")
    assert_fold(model, kept={"n": "unknown_shape"})


def test_gemm_with_a_computed_bias_is_said_to_take_the_affine() -> None:
    model = build(f"""g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[3,4] u, {P4}>
        {{ q = MatMul(x, u)  p = Gemm(x, w, q)  {Y4} }}""")
    _, report = fold(model, merge=False)
    assert [(verdict.into, verdict.through) for verdict in report.sites] == [(("p", "q"), ())]


def test_bias_of_opset_6_broadcasts() -> None:
    for product, more in (("MatMul(x, w)", ""), ("Gemm<broadcast=1>(x, w, k)", ", float[4] k")):
        text = f"g (float[2,3] x) => (float[2,4] y) <float[3,4] w, {P4}{more}>"
        model = build(f"{text} {{ p = {product}  {OLD_Y4} }}", opset=6)
        (gemm,) = assert_fold(model, folded=["y"], ops=["Gemm"]).graph.node
        values = {each.name: onnx.helper.get_attribute_value(each) for each in gemm.attribute}
        assert values["broadcast"] == 1
