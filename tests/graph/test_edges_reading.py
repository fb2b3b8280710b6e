"""Edges of what rules read of a node: attributes and inputs of each opset, defaults, parameters.

``z = Sub(b, b)`` are zeros that nobody knows, and ``h = Reshape(x, z)`` is x, of unknown shape. The
dimension M is 3, whatever N is.
"""

from __future__ import annotations

import onnx
import pytest

from tests.graph.edge_graphs import LIN, N4, P4, POS, Y4, W, assert_left_alone
from tests.graph.edge_graphs import V1 as V
from tests.support import assert_fold, assert_same, build, evaluate, feeds_of, fold

P2 = "float[2] g2, float[2] b2, float[2] m2, float[2] var2"
AT2 = "float[4] gamma={1,2,0.5,3}, float[4] beta={2,2,2,2}, float[4] mean={2,2,2,2}, float[4] var"
W2 = "float[4,3,1,1] w"
Q = "int8[4,3,1] q={9,-20,30,5,6,-7,1,2,3,-4,5,60}"

C = "c = Conv(x, w)"
Y2 = "y = BatchNormalization(p, g2, b2, m2, var2)"
OLDEST = "BatchNormalization<is_test=1, consumed_inputs=[0,0,0,1,1]>"
OLD_Y4 = "y = BatchNormalization<is_test=1>(p, gamma, beta, mean, var)"


def in_front(node: str, constants: str = "", parameters: str = P4, inputs: str = "") -> str:
    """A convolution c, ``node`` that reads it, and a batch normalization y of its result p."""
    more = f", {constants}" if constants else ""
    return f"""g (float[N,3,5] x{inputs}) => (float[?,?,?] y) <{W}, {parameters}{more}>
        {{ {C}  {node}  {Y2 if parameters == P2 else Y4} }}"""


def on_image(node: str, constants: str = "", parameters: str = P4) -> str:
    """The same, of pictures."""
    more = f", {constants}" if constants else ""
    return f"""g (float[N,3,5,6] x) => (float[?,4,?,?] y) <{W2}, {parameters}{more}>
        {{ {C}  p = {node}  {Y4} }}"""


def weighed(nodes: str, constants: str, inputs: str = "", outputs: str = "") -> str:
    """A convolution whose weight w is computed, and a batch normalization y."""
    return f"""g (float[N,3,5] x{inputs}) => (float[N,4,5] y{outputs}) <{constants}, {POS}>
        {{ {nodes}  p = Conv(x, w)  {Y4} }}"""


# name: (graph, opset, folded, kept)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "normalization-of-opset-1": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ {C}  y = {OLDEST}(c, gamma, beta, mean, var) }}', 1, ['y'], {}),
    "split-of-opset-12-into-given-lengths": (in_front("p, u = Split<axis=1, split=[2,2]>(c)", parameters=P2), 12, ['y'], {}),
    "split-of-opset-2-into-given-lengths": (f'g (float[N,3,5] x) => (float[N,2,5] y) <{W}, {P2}> {{ {C}  p, u = Split<axis=1, split=[2,2]>(c)  y = {OLDEST}(p, g2, b2, m2, var2) }}', 2, ['y'], {}),
    "split-of-opset-13-into-given-lengths": (in_front("p, u = Split<axis=1>(c, s)", "int64[2] s={2,2}", P2), 13, ['y'], {}),
    "split-into-computed-lengths": (in_front("p, u = Split<axis=1>(c, s)", parameters=P2, inputs=", int64[2] s"), 13, [], {'y': 'unknown_shape'}),
    "split-of-unknown-length": (f'g (float[N,C,5] x) => (float[?,?,?] y) <{P2}> {{ c = Sigmoid(x)  p, u = Split<axis=1>(c)  {Y2} }}', 13, [], {'y': 'unknown_shape'}),
    "split-into-one": (in_front("p = Split<axis=1>(c)"), 13, ['y'], {}),
    "split-into-a-part-of-no-length": (in_front("p, u, t = Split<axis=1, num_outputs=3>(c)", parameters=P2).replace("float", "double"), 18, ['y'], {}),
    "gather-at-computed-places": (in_front("p = Gather<axis=1>(c, i)", inputs=", int64[4] i"), 13, [], {'y': 'unknown_shape'}),
    "gather-of-nothing-behind": (f'g (float[N,4,5] x) => (float[N,2,5] y) <{V}, int64[0] i, {P4}> {{ {N4}  p = Gather<axis=1>(n, i)  j = Concat<axis=1>(p, n)  y = Conv(j, v) }}', 13, ['n'], {}),
    "slice-of-opset-9": (in_front("p = Slice<axes=[-2], starts=[1], ends=[3]>(c)", parameters=P2), 9, ['y'], {}),
    "slice-of-opset-9-along-first-axes": (in_front("p = Slice<starts=[0,1], ends=[2,3]>(c)", parameters=P2), 9, ['y'], {}),
    "slice-of-opset-10": (in_front("p = Slice(c, s, e, a)", "int64[1] s={1}, int64[1] e={3}, int64[1] a={-2}", P2), 10, ['y'], {}),
    "slice-with-steps-along-first-axes": (in_front('p = Slice(c, s, e, "", t)', "int64[2] s={0,3}, int64[2] e={2,-9}, int64[2] t={1,-2}", P2), 13, ['y'], {}),
    "slice-with-computed-steps": (in_front("p = Slice(c, s, e, a, t)", "int64[1] s={0}, int64[1] e={2}, int64[1] a={1}", P2, ", int64[1] t"), 13, [], {'y': 'unknown_shape'}),
    "slice-with-computed-ends": (in_front("p = Slice(c, s, e, a)", "int64[1] s={0}, int64[1] a={1}", P2, ", int64[1] e"), 13, [], {'y': 'unknown_shape'}),
    "slice-with-ends-of-unknown-number": (in_front("z = Sub(b, b)  e = Reshape(b, z)  p = Slice(c, s, e)", "int64[1] s={0}", inputs=", int64[1] b"), 13, ['y'], {}),
    "slice-with-starts-of-unknown-number": (in_front("z = Sub(b, b)  s = Reshape(b, z)  p = Slice(c, s, e)", "int64[1] e={5}", inputs=", int64[1] b"), 13, [], {'y': 'unknown_shape'}),
    "slice-of-unknown-length": (f'g (float[N,C,5] x) => (float[?,?,?] y) <{P2}, int64[1] s={{0}}, int64[1] e={{2}}, int64[1] a={{1}}> {{ c = Sigmoid(x)  p = Slice(c, s, e, a)  {Y2} }}', 13, [], {'y': 'unknown_shape'}),
    "slices-of-a-product-of-which-one-is-scaled": ('g (float[N,4,5] x) => (float[N,4,2] y, float[N,4,3] u) <float[4,5] k, float[4,1] t, int64[1] s={0}, int64[1] m={2}, int64[1] e={5}, int64[1] a={2}> { r = Sigmoid(x)  p = Mul(r, k)  b = Slice(p, s, m, a)  y = Mul(b, t)  d = Slice(p, m, e, a)  u = Sigmoid(d) }', 13, ['y'], {}),
    "arithmetic-with-a-constant-that-became-one": (f'g (float[N,4,5] x) => (float[N,4,5] y) <float[1,4,5] k, float[4,1] t, {P4}> {{ n = BatchNormalization(k, gamma, beta, mean, var)  m = Mul(n, t)  e = Exp(m)  y = Add(x, e) }}', 13, ['n'], {'m': 'nonlinear'}),
    "product-of-unknown-rank-in-front": (f'g (float[M,3,1] x, int64[M] b) => (float[?,4] y) <{W}, int64[1] a={{2}}, float k={{2}}, {P4}> {{ z = Sub(b, b)  h = Reshape(x, z)  c = Conv(h, w)  q = Squeeze(c, a)  p = Mul(q, k)  {Y4} }}', 13, ['y'], {}),
    "product-of-unknown-rank-behind": (f'g (float[M,3,1] x, int64[M] b) => (float[?,2,1] y) <{W}, {V}, int64[1] a={{2}}, float k={{2}}, {P4}> {{ z = Sub(b, b)  h = Reshape(x, z)  c = Conv(h, w)  s = Sigmoid(c)  n = BatchNormalization(s, gamma, beta, mean, var)  q = Squeeze(n, a)  p = Mul(q, k)  u = Unsqueeze(p, a)  y = Conv(u, v) }}', 13, ['n'], {}),
    "product-with-a-constant-of-one-axis-more": ('g (float[N,3] x) => (float[1,N,4] y) <float[3,4] w, float[1,1,1] k={2}, float[4] t> { c = MatMul(x, w)  p = Mul(c, k)  y = Mul(p, t) }', 13, ['y'], {}),
    "product-that-stretches-an-axis": ('g (float[N,4,1] x) => (float[N,4,5] y) <float[5] k> { c = Sigmoid(x)  y = Mul(c, k) }', 13, [], {}),
    "product-with-a-convolution-of-unknown-shape": ('g (float[M,3,5] x, int64[M] b, float[4,3,1] w) => (float[M,4,5] y) <float[4,1] k> { z = Sub(b, b)  h = Reshape(x, z)  c = Conv(h, w)  y = Mul(c, k) }', 13, [], {}),
    "product-with-infinity-in-front": (in_front("k = Div(one, nil)  p = Mul(c, k)", "float one={1}, float nil={0}"), 13, [], {'y': 'non_finite_statistics'}),
    "product-with-a-constant-of-unknown-shape": (f'g (float[N,3,1] x, float[1,4,L] z) => (float[N,4,L] y) <{W}, float k={{2}}, {P4}> {{ {C}  s = Shape(z)  e = Expand(k, s)  p = Mul(c, e)  {Y4} }}', 13, [], {'y': 'nonlinear'}),
    "product-of-opset-7-with-a-constant-of-a-lower-rank": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float[4,1] k> {{ {C}  y = Mul(c, k) }}', 7, ['y'], {}),
    "product-behind-of-different-ranks": (f'g (float[3,4,5] x, float[2,3,4,5] z) => (float[2,3,4,5] y) <float[4,5] k, {LIN}> {{ {N4}  p = Mul(z, n)  y = Mul(p, k) }}', 13, ['n'], {}),
    "product-behind-of-an-operand-of-unknown-rank": (f'g (float[N,4,5] x, float[M,4,5] q, int64[M] b) => (float[?,?,?] y) <{V}, {LIN}> {{ z = Sub(b, b)  h = Reshape(q, z)  {N4}  p = Mul(h, n)  y = Conv(p, v) }}', 13, [], {'n': 'unknown_shape'}),
    "product-of-two-of-opset-6-in-front": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ {C}  p = Mul(c, c)  {OLD_Y4} }}', 6, [], {'y': 'unsupported_opset'}),
    "product-of-two-of-opset-6-behind": (f'g (float[N,4,5] x) => (float[N,4,5] y) <{P4}> {{ n = BatchNormalization<is_test=1>(x, gamma, beta, mean, var)  p = Mul(n, n)  y = Exp(p) }}', 6, [], {'n': 'unsupported_opset'}),
    "negation-behind": (f'g (float[N,4,5] x) => (float[N,2,5] y) <{V}, {P4}> {{ {N4}  p = Neg(n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "quotient-behind-as-the-dividend": (f'g (float[N,4,5] x, float[N,4,5] z) => (float[N,2,5] y) <{V}, {LIN}> {{ {N4}  e = Exp(z)  p = Div(n, e)  y = Conv(p, v) }}', 13, ['n'], {}),
    "pad-of-opset-1": (f'g (float[N,3,5] x) => (float[N,4,7] y) <{W}, {LIN}> {{ {C}  p = Pad<paddings=[0,0,1,0,0,1]>(c)  y = {OLDEST}(p, gamma, beta, mean, var) }}', 1, ['y'], {}),
    "pad-of-opset-2": (f'g (float[N,3,5] x) => (float[N,4,7] y) <{W}, {P4}> {{ {C}  p = Pad<mode="edge", pads=[0,0,1,0,0,1]>(c)  y = {OLDEST}(p, gamma, beta, mean, var) }}', 2, ['y'], {}),
    "pad-of-opset-11": (in_front("p = Pad(c, s, f)", "int64[6] s={0,0,1,0,0,1}, float f={2}"), 11, [], {'y': 'padding_shift'}),
    "pad-of-opset-11-that-keeps-its-value": (in_front("p = Pad(c, s, f)", "int64[6] s={0,0,1,0,0,1}, float f={2}", AT2), 11, ['y'], {}),
    "pad-with-a-value-of-one-element": (in_front("p = Pad(c, s, f)", "int64[6] s={0,0,1,0,0,1}, float[1] f={2}", AT2), 13, ['y'], {}),
    "pad-by-computed-lengths": (in_front("p = Pad(c, s)", inputs=", int64[6] s"), 13, [], {'y': 'unknown_shape'}),
    "quantized-of-one-channel": ('g (float[N,3,5] x) => (float[N,1,5] y) <int8[1,3,1] q={9,-20,30}, float s={0.02}, float[1] gamma={-2}, float[1] beta, float[1] mean, float[1] var> { w = DequantizeLinear(q, s)  p = Conv(x, w)  y = BatchNormalization(p, gamma, beta, mean, var) }', 10, ['y'], {}),
    "quantized-by-groups-behind": (f'g (float[N,4,5] x) => (float[N,4,5] y) <int8[4,2,1] q={{9,-20,30,5,6,-7,1,2}}, float s={{0.02}}, {POS}> {{ {N4}  w = DequantizeLinear(q, s)  y = Conv<group=2>(n, w) }}', 13, [], {'n': 'dynamic_weight'}),
    "quantized-along-inputs-behind": (f'g (float[N,4,5] x) => (float[N,3,5] y) <int8[3,4,1] q={{9,-20,30,5,6,-7,1,2,3,-4,5,60}}, float[4] s={{0.02,0.03,0.04,0.05}}, {POS}> {{ {N4}  w = DequantizeLinear(q, s)  y = Conv(n, w) }}', 13, ['n'], {}),
    "quantized-weight-that-is-an-output": (weighed("w = DequantizeLinear(q, s)", f"{Q}, float s={{0.02}}", outputs=", float[4,3,1] w"), 13, [], {'y': 'fan_out'}),
    "quantized-of-computed-integers": (weighed("w = DequantizeLinear(q, s)", "float s={0.02}", ", int8[4,3,1] q"), 13, [], {'y': 'dynamic_weight'}),
    "quantized-in-blocks": (weighed("w = DequantizeLinear<axis=0, block_size=2>(q, s)", f"{Q}, float[2,3,1] s={{0.02,0.03,0.04,0.05,0.06,0.07}}"), 21, [], {'y': 'dynamic_weight'}),
    "quantized-with-a-scale-of-unknown-shape": (weighed("s = Expand(k, b)  w = DequantizeLinear<axis=0>(q, s)", f"{Q}, float k={{0.02}}", ", int64[1] b"), 13, [], {'y': 'dynamic_weight'}),
    "quantized-bias-that-vanishes": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, int32[4] q={{1,2,3,4}}, float s={{1}}, float[4] gamma={{2,2,2,2}}, float[4] beta={{0,0,0,0}}, float[4] mean={{1,2,3,4}}, float[4] var={{1,1,1,1}}> {{ b = DequantizeLinear(q, s)  p = Conv(x, w, b)  {Y4} }}', 13, ['y'], {}),
    "computed-bias": (f'g (float[N,3,5] x, float[4] q) => (float[N,4,5] y) <{W}, {P4}> {{ b = Sigmoid(q)  p = Conv(x, w, b)  {Y4} }}', 13, [], {'y': 'dynamic_weight'}),
    "maximum-padded-to-the-same-length": (on_image('MaxPool<auto_pad="SAME_UPPER", kernel_shape=[2,2], dilations=[1,1]>(c)', parameters=POS), 13, ['y'], {}),
    "maximum-of-taps-apart-padded-to-the-same-length": (on_image('MaxPool<auto_pad="SAME_UPPER", kernel_shape=[2,2], dilations=[2,2]>(c)', parameters=POS), 13, [], {'y': 'padding_shift'}),
    "maximum-of-taps-apart-padded-at-one-end": (on_image('MaxPool<pads=[0,0,1,0], kernel_shape=[2,2], dilations=[2,2]>(c)', parameters=POS), 13, [], {'y': 'padding_shift'}),
    "resize-to-given-sizes-of-unknown-shape": (f'g (float[3,3,5,6] x, int64[4] b) => (float[3,4,10,12] y) <{W2}, int64[4] s={{3,4,10,12}}, {P4}> {{ z = Sub(b, b)  h = Reshape(x, z)  c = Conv(h, w)  p = Resize(c, "", "", s)  {Y4} }}', 13, [], {'y': 'not_per_channel'}),
    "resize-by-computed-scales": (f'g (float[N,3,5,6] x, float[4] q) => (float[N,4,10,12] y) <{W2}, float[N,4,10,12] p, {P4}> {{ {C}  s = Abs(q)  p = Resize(c, "", s)  {Y4} }}', 13, [], {'y': 'not_per_channel'}),
    "resize-in-an-unknown-mode": (on_image('Resize<coordinate_transformation_mode="other">(c, "", s)', "float[4] s={1,1,2,2}"), 13, [], {'y': 'nonlinear'}),
}  # fmt: skip

# what no runtime takes: name: (graph, opset, why the batch normalization stays)
INVALID = {
    "two-outputs-of-opset-9": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ {C}  y, u = BatchNormalization(c, gamma, beta, mean, var) }}', 9, "training_mode"),
    "training-mode-of-opset-15": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ {C}  y = BatchNormalization<training_mode=1>(c, gamma, beta, mean, var) }}', 15, "training_mode"),
    "training-mode-of-opset-14": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ {C}  y = BatchNormalization<training_mode=1>(c, gamma, beta, mean, var) }}', 14, "training_mode"),
    "parameter-that-is-no-vector": (in_front("p = Relu(c)", parameters=POS.replace("[4] gamma", "[4,1] gamma")), 13, "not_per_channel"),
    "parameters-of-two-lengths": (in_front("p = Relu(c)", parameters=LIN.replace("[4] var", "[1] var")), 13, "not_per_channel"),
    "six-inputs": (f"g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ {C}  y = BatchNormalization(c, gamma, beta, mean, var, var) }}", 13, "dynamic_weight"),
    "integers": (f"g (int64[N,4,5] x) => (float[N,2,5] y) <{V}, {P4}> {{ {N4}  y = Conv(n, v) }}", 13, "unsupported_opset"),
    "convolution-without-a-weight": (f"g (float[N,3,5] x) => (float[N,4,5] y) <{P4}> {{ p = Conv(x)  {Y4} }}", 13, "dynamic_weight"),
    "gather-beyond-the-end": (in_front("p = Gather<axis=1>(c, i)", "int64[4] i={0,1,2,4}"), 13, "unknown_shape"),
    "split-into-three-of-two-lengths": (f"g (float[N,4,5] x) => (float[N,2,5] y, float[N,2,5] u, float[N,2,5] t) <float[2,2,1] v, {P4}> {{ {N4}  p, q, r = Split<axis=1, split=[2,2]>(n)  y = Conv(p, v)  u = Conv(q, v)  t = Sigmoid(r) }}", 11, "unknown_shape"),
}  # fmt: skip

# name: (operator of opset 6, its constant, the last axis of x); all do what the first does
ARITHMETIC_OF_OPSET_6 = {
    "last-axes": ("Mul<broadcast=1>(c, k)", "float[4,1] k", 5),
    "axis": ("Mul<broadcast=1, axis=1>(c, k)", "float[4] k", 5),
    "negative-axis": ("Mul<broadcast=1, axis=-2>(c, k)", "float[4] k", 5),
    "same-rank": ("Mul(c, k)", "float[1,4,1] k", 1),
}

# name: (operator of opset 6 that is not legal, its constant)
ILLEGAL_ARITHMETIC = {
    "of-a-lower-rank-without-broadcasting": ("Mul(c, k)", "float[4,1] k"),
    "beyond-the-last-axis": ("Mul<broadcast=1, axis=2>(c, k)", "float[5,4] k"),
}


@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, folded, kept = CASES[name]
    model = build(text, opset=opset)
    assert_fold(model, folded=folded, kept=kept, sizes={"N": 2}, run=bool(folded))


@pytest.mark.parametrize("name", INVALID)
def test_invalid_graph_is_left_alone(name: str) -> None:
    text, opset, reason = INVALID[name]
    assert_left_alone(text, opset, reason)


def scaled(node: str, constant: str, length: int) -> str:
    return f"""g (float[1,3,{length}] x) => (float[1,4,{length}] y) <{W}, {constant}>
        {{ {C}  y = {node} }}"""


@pytest.mark.parametrize("name", ARITHMETIC_OF_OPSET_6)
def test_arithmetic_of_opset_6(name: str) -> None:
    """No runtime has it any more: compared with what broadcasts as operators do now."""
    node, constant, length = ARITHMETIC_OF_OPSET_6[name]
    model = build(scaled(node, constant, length), opset=6)
    result = assert_fold(model, folded=["y"], ops=["Conv"], run=False)
    same = build(scaled("Mul(c, k)", "float[4,1] k", length))
    feeds = feeds_of(same, {})
    assert_same(evaluate(same, feeds), evaluate(result, feeds), 2e-5)


@pytest.mark.parametrize("name", ILLEGAL_ARITHMETIC)
def test_illegal_arithmetic_of_opset_6_is_no_site(name: str) -> None:
    _, report = fold(build(scaled(*ILLEGAL_ARITHMETIC[name], 5), opset=6))
    assert report.sites == ()


def test_newest_opset() -> None:
    model = build(in_front("p = Identity(c)"), opset=onnx.defs.onnx_opset_version())
    assert_fold(model, folded=["y"], run=False)


def test_no_opset_at_all() -> None:
    model = build(in_front("p = Identity(c)"))
    del model.opset_import[:]
    _, report = fold(model)
    assert [verdict.reason for verdict in report.sites] == ["unsupported_opset"]


def test_attributes_that_come_from_the_caller() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 15, "local" : 1]>
    g (float[N,4] x, float[4] p) => (float[N,4] y) { y = local.block<small=0.5>(x, p) }
    <domain: "local", opset_import: ["" : 15]>
    block <small> (a, p) => (n) { n = BatchNormalization<epsilon: float = @small>(a, p, p, p, p) }""")
    assert_fold(model, kept={"n": "dynamic_weight"}, run=False)


def test_negation_of_unknown_type_in_front() -> None:
    model = build(f"""<ir_version: 8, opset_import: ["" : 13, "other" : 1]>
    g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}>
    {{ q = other.Unknown(x)  c = Conv(q, w)  p = Neg(c)  {Y4} }}""")
    assert_fold(model, kept={"y": "unknown_shape"}, run=False)


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        # of one axis only, all of it is one channel
        (
            "g (float[5] x) => (float[5] y) <float[1] s> { y = BatchNormalization(x, s, s, s, s) }",
            1,
        ),
        (
            """g (float[N,C,5] x, float[4] s, float[M] t, int64[M] b) => (float[N,C,5] y)
            { z = Sub(b, b)  h = Reshape(t, z)  y = BatchNormalization(x, s, h, h, h) }""",
            4,
        ),
    ],
    ids=["of-one-axis", "of-one-known-parameter"],
)
def test_number_of_channels(text: str, channels: int) -> None:
    _, report = fold(build(text))
    assert [verdict.channels for verdict in report.sites] == [channels]
