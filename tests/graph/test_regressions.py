"""Models that once came out wrong, or did not come out at all: found by random graphs."""

from __future__ import annotations

import pytest

from tests.support import assert_fold, assert_same, build, evaluate, feeds_of

BN = "BatchNormalization"
P4 = "double[4] gamma, double[4] beta, double[4] mean, double[4] var"

CASES: dict[str, tuple[str, list[str], dict[str, str], list[str]]] = {
    "bn-of-a-constant": (
        f"""g (double[N,4,2] x) => (double[N,4,2] y) <double[1,4,2] k, {P4}>
        {{ n = BatchNormalization(k, gamma, beta, mean, var)  y = Mul(x, n) }}""",
        ["n"], {}, ["Mul"],
    ),
    "bn-of-a-constant-is-an-output": (
        f"""g (double[N,4,2] x) => (double[1,4,2] n, double[N,4,2] y) <double[1,4,2] k, {P4}>
        {{ n = BatchNormalization(k, gamma, beta, mean, var)  y = Mul(x, n) }}""",
        ["n"], {}, ["Identity", "Mul"],
    ),
    "bn-of-a-constant-that-is-used-elsewhere": (
        f"""g (double[N,4,2] x) => (double[N,4,2] y) <double[1,4,2] k, {P4}>
        {{ n = BatchNormalization(k, gamma, beta, mean, var)  m = Mul(k, x)  y = Mul(m, n) }}""",
        ["n"], {}, ["Mul", "Mul"],
    ),
    "matmul-forward-of-one-shift-for-all": (
        """g (double[N,4] x) => (double[N,5] y)
        <double[4,5] w, double[4] gamma, double[4] beta = {2,2,2,2}, double[4] mean = {0,0,0,0}, double[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  y = MatMul(n, w) }""",
        ["n"], {}, ["Gemm"],
    ),
    "gemm-forward-of-one-shift-for-all": (
        """g (double[N,4] x) => (double[N,5] y)
        <double[4,5] w, double[5] b, double[4] gamma, double[4] beta = {2,2,2,2}, double[4] mean = {0,0,0,0}, double[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  y = Gemm(n, w, b) }""",
        ["n"], {}, ["Gemm"],
    ),
    "grouped-conv-forward-of-one-shift-for-all": (
        """g (double[N,4,3] x) => (double[N,6,3] y)
        <double[6,2,1] w, double[4] gamma, double[4] beta = {2,2,2,2}, double[4] mean = {0,0,0,0}, double[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  y = Conv<group=2>(n, w) }""",
        ["n"], {}, ["Conv"],
    ),
    "operand-becomes-a-constant": (
        f"""g (double[N,4,2] x) => (double[N,4,2] y) <double[1,4,1] k, {P4}>
        {{ m = BatchNormalization(x, gamma, beta, mean, var)
          n = BatchNormalization(k, gamma, beta, mean, var)  y = Add(m, n) }}""",
        ["n", "y"], {"m": "no_linear_neighbour"}, [BN],
    ),
    "constant-expression-that-a-fold-replaces": (
        f"""g (double[N,4,2] x) => (double[N,4,2] y) <double[4,3] w, double[1,4,1] k, double[1,4,1] d, double[4] g2, {P4}>
        {{ n = BatchNormalization(k, gamma, beta, mean, var)  e = Div(n, d)
          m = BatchNormalization(e, g2, beta, mean, var)  y = Mul(x, m) }}""",
        ["n", "e", "m"], {"y": "no_linear_neighbour"}, ["Mul"],
    ),
    "neg-of-a-folded-constant": (
        f"""g (double[N,4] x) => (double[N,4] y) <double[1,4] k, double[4] g2, {P4}>
        {{ n = BatchNormalization(k, gamma, beta, mean, var)  m = Neg(n)
          e = BatchNormalization(m, g2, beta, mean, var)  y = Max(e, x) }}""",
        ["n", "e"], {}, ["Max"],
    ),
    "identity-bn-of-a-constant": (
        """g (double[N,1] x) => (double[1,1] n, double[1,1] y, double[N,1] z)
        <double[1,1] k, double[1] g1={1}, double[1] b1={0.5}, double[1] m1={0.5}, double[1] v1={0.75}, double[1] b2>
        { n = BatchNormalization<epsilon=0.25>(k, g1, b1, m1, v1)
          y = BatchNormalization(n, g1, b2, m1, v1)  z = Add(x, n) }""",
        ["n", "y"], {}, ["Identity", "Identity", "Add"],
    ),
    "layer-norm-whose-scale-only-broadcasts": (
        f"""g (double[N,4,6] x) => (double[N,4,6] y) <double[6] s, double[4,6] b, {P4}>
        {{ c = LayerNormalization<axis=1>(x, s, b)  y = BatchNormalization(c, gamma, beta, mean, var) }}""",
        ["y"], {}, ["LayerNormalization"],
    ),
    "gather-in-a-table-that-is-read-twice": (
        f"""g (int64[N,5] i) => (double[N,4,5] y, double[N,5,4] z) <double[9,4] e, {P4}>
        {{ z = Gather(e, i)  q = Gather(e, i)  p = Transpose<perm=[0,2,1]>(q)
          y = BatchNormalization(p, gamma, beta, mean, var) }}""",
        ["y"], {}, ["Gather", "Gather", "Transpose"],
    ),
    "slices-that-meet-again": (
        f"""g (double[N,3,5] x) => (double[N,4,5] y)
        <double[4,3,1] w, {P4}, int64[1] o={{0}}, int64[1] two={{2}}, int64[1] four={{4}}, int64[1] one={{1}}>
        {{ c = Conv(x, w)  a = Slice(c, o, two, one)  b = Slice(c, two, four, one)
          p = Concat<axis=1>(b, a)  y = BatchNormalization(p, gamma, beta, mean, var) }}""",
        ["y"], {}, ["Conv", "Slice", "Slice", "Concat"],
    ),
    "slices-that-overlap": (
        f"""g (double[N,3,5] x) => (double[N,4,5] y)
        <double[3,3,1] w, {P4}, int64[1] o={{0}}, int64[1] two={{2}}, int64[1] three={{3}}, int64[1] one={{1}}>
        {{ c = Conv(x, w)  a = Slice(c, o, two, one)  b = Slice(c, one, three, one)
          p = Concat<axis=1>(b, a)  y = BatchNormalization(p, gamma, beta, mean, var) }}""",
        [], {"y": "fan_out"}, ["Conv", "Slice", "Slice", "Concat", BN],
    ),
    "slices-that-overlap-where-one-changes-nothing": (
        """g (double[N,3,5] x) => (double[N,4,5] y)
        <double[3,3,1] w, double[4] gamma={1,3,1,1}, double[4] zero={0,0,0,0}, double[4] one4={1,1,1,1},
         int64[1] o={0}, int64[1] two={2}, int64[1] three={3}, int64[1] one={1}>
        { c = Conv(x, w)  a = Slice(c, o, two, one)  b = Slice(c, one, three, one)
          p = Concat<axis=1>(a, b)  y = BatchNormalization<epsilon=0.0>(p, gamma, zero, zero, one4) }""",
        [], {"y": "fan_out"}, ["Conv", "Slice", "Slice", "Concat", BN],
    ),
    "residual-in-gemm": (
        f"""g (double[N,4] x) => (double[N,4] y) <double[4,4] w, double[4,4] v, {P4}>
        {{ a = MatMul(x, v)  c = Gemm<beta=2.0>(x, w, a)  y = BatchNormalization(c, gamma, beta, mean, var) }}""",
        ["y"], {}, ["Gemm", "Gemm"],
    ),
    "resize-tf-half-pixel-for-nn": (
        """g (float[N,3,5,5] x) => (float[N,4,10,10] y)
        <float[4,3,1,1] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var, float[4] s={1,1,2,2}>
        { c = Conv(x, w)  p = Resize<mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn">(c, "", s)
          y = BatchNormalization(p, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv", "Resize"],
    ),
    "shapes-behind-a-group-normalization": (
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (double[N,4,6,5] x) => (double[?,4,?,?] y) <double[4] s, double[4] b, int64[2] axes={{2,3}}, {P4}>
        {{ c = GroupNormalization<num_groups=2>(x, s, b)  r = ReduceMean(c, axes)
          n = BatchNormalization(r, gamma, beta, mean, var)  y = Sigmoid(n) }}""",
        ["n"], {}, ["GroupNormalization", "ReduceMean", "Sigmoid"],
    ),
    "maximum-of-padding-only": (
        """<ir_version: 8, opset_import: ["" : 19]>
        g (float[N,3,1,1] x) => (float[N,4,1,1] y)
        <float[4,3,1,1] w, float[4] gamma={1,2,0.5,3}, float[4] beta, float[4] mean, float[4] var>
        { c = Conv(x, w)  p = MaxPool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(c)
          y = BatchNormalization(p, gamma, beta, mean, var) }""",
        [], {"y": "padding_shift"}, ["Conv", "MaxPool", BN],
    ),
    "maximum-of-padding-only-behind": (
        """<ir_version: 8, opset_import: ["" : 19]>
        g (float[N,4,1,1] x) => (float[N,3,1,1] y)
        <float[3,4,1,1] w, float[4] gamma={1,2,0.5,3}, float[4] beta, float[4] mean, float[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)
          p = MaxPool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(n)  y = Conv(p, w) }""",
        [], {"n": "padding_shift"}, [BN, "MaxPool", "Conv"],
    ),
    "mean-of-padding-only": (
        """<ir_version: 8, opset_import: ["" : 19]>
        g (float[N,3,1,1] x) => (float[N,4,1,1] y)
        <float[4,3,1,1] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
        { c = Conv(x, w)  p = AveragePool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(c)
          y = BatchNormalization(p, gamma, beta, mean, var) }""",
        [], {"y": "padding_shift"}, ["Conv", "AveragePool", BN],
    ),
    "taps-apart-along-an-axis-without-padding": (
        """<ir_version: 8, opset_import: ["" : 19]>
        g (float[N,3,5,1] x) => (float[N,4,3,2] y)
        <float[4,3,1,1] w, float[4] gamma={1,2,0.5,3}, float[4] beta, float[4] mean, float[4] var>
        { c = Conv(x, w)  p = MaxPool<kernel_shape=[2,2], dilations=[2,1], pads=[0,1,0,1]>(c)
          y = BatchNormalization(p, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv", "MaxPool"],
    ),
    "padding-mode-that-is-empty": (
        """g (float[N,4,5,5] x) => (float[N,3,7,7] y)
        <float[3,4,1,1] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)
          y = Conv<auto_pad="", pads=[1,1,1,1]>(n, w) }""",
        [], {"n": "padding_shift"}, [BN, "Conv"],
    ),
    "weights-rounded-by-a-sum": (
        """g (float[N,3,5] x) => (float[N,4,5] y)
        <float[4,3,1] k, float m={12582912}, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
        { a = Add(k, m)  w = Sub(a, m)  c = Conv(x, w)
          y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    text, folded, kept, ops = CASES[name]
    assert_fold(build(text), folded=folded, kept=kept, ops=ops)


def test_channels_of_a_convolution_in_a_body_where_inference_is_silent() -> None:
    model = build(
        """g (float[N,3,6,5] x, bool b) => (float[M,4,P,Q] y)
        <float[12] w, int64[4] s={4,3,1,1}, float[4,1,1] k>
        { y = If(b)<
            then_branch = t () => (float[?,?,?,?] u) { v = Reshape(w, s)  c = Conv(x, v)  u = Mul(c, k) },
            else_branch = e () => (float[?,?,?,?] u2) { v2 = Reshape(w, s)  u2 = Conv(x, v2) }> }""",
        opset=13,
    )
    assert_fold(model, folded=["u"], sizes={"N": 2})


def test_channels_that_only_a_parameter_tells() -> None:
    model = build(
        f"""g (double[N,C,6,5] x) => (double[N,6,4,3] y)
        <double[4,1,1] k, double[6,4,3,3] w, {P4}>
        {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = Mul(n, k)  y = Conv(m, w) }}"""
    )
    result = assert_fold(model, folded=["n", "m"], ops=["Conv"], run=False)
    feeds = feeds_of(model, {"N": 2, "C": 4})
    assert_same(evaluate(model, feeds), evaluate(result, feeds), 1e-11)


HALF = "float16[4] gamma, float16[4] beta, float16[4] mean, float16[4] var"

# name: (graph, values, reasons, opset)
REFUSED: dict[str, tuple[str, dict[str, list[float]], dict[str, str], int]] = {
    "shift-left-behind-a-matmul-overflows": (
        """g (float16[N,3,4] x) => (float16[N,5,3] y)
        <float16[4,5] w, float16[5] one, float16[5] beta, float16[5] mean>
        { c = MatMul(x, w)  t = Transpose<perm=[0,2,1]>(c)
          y = BatchNormalization<epsilon=0.0>(t, one, beta, mean, one) }""",
        {"one": [1] * 5, "beta": [6e4] * 5, "mean": [-6e4] * 5}, {"y": "overflow"}, 17,
    ),
    "scale-of-a-normalization-underflows": (
        f"""g (float16[N,4,3] x) => (float16[N,4,3] y) <float16[4] s, float16[4] zero, {HALF}>
        {{ c = InstanceNormalization(x, s, zero)
          y = BatchNormalization<epsilon=0.0>(c, gamma, zero, zero, var) }}""",
        {"s": [1e-4] * 4, "zero": [0] * 4, "gamma": [1e-3] * 4, "var": [1] * 4}, {"y": "overflow"}, 17,
    ),
    "constant-expression-overflows": (
        """g (float16[N,4,3] x) => (float16[N,4,3] y)
        <float16[4,4,1] w, float16[4] g0, float16[4] b0, float16[4] beta, float16[4] mean, float16[4] var>
        { c = Conv(x, w)  q = Mul(g0, g0)  gamma = Div(q, b0)
          y = BatchNormalization(c, gamma, beta, mean, var) }""",
        {"g0": [1000] * 4, "b0": [60000] * 4}, {"gamma": "dynamic_weight", "y": "dynamic_weight"}, 17,
    ),
    "attribute-of-pad-is-too-coarse": (
        f"""g (double[N,4,3] x) => (double[N,4,5] y) <double[4,4,1] w, {P4}>
        {{ c = Conv(x, w)  p = Pad<pads=[0,0,1,0,0,1], value=0.5>(c)
          y = BatchNormalization(p, gamma, beta, mean, var) }}""",
        {"gamma": [0.3] * 4, "beta": [0.1] * 4, "mean": [0.2] * 4, "var": [0.7] * 4},
        {"y": "overflow"}, 10,
    ),
    "clip-at-the-wrong-infinity": (
        """g (float[N,4,5] x) => (float[N,4,5] y)
        <float[4,4,1] w, float low, float[4] gamma, float[4] zero, float[4] var>
        { c = Conv(x, w)  p = Clip(c, low)  y = BatchNormalization(p, gamma, zero, zero, var) }""",
        {"low": [3.4028235e38], "gamma": [1e-3] * 4, "zero": [0] * 4}, {"y": "nonlinear"}, 17,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, values, kept, opset = REFUSED[name]
    model = build(text, values, opset=opset)
    assert_fold(model, kept=kept, ops=[node.op_type for node in model.graph.node], run=False)
