from __future__ import annotations

import pytest

from tests.support import assert_fold, build

BN = "BatchNormalization"

# name: (graph, folded, kept, operators left)
CASES: dict[str, tuple[str, list[str], dict[str, str], list[str]]] = {
    "conv": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
    "conv-bias-padded-strided": (
        """g (double[N,3,6,5] x) => (double[N,4,3,3] y)
        <double[4,3,3,3] w, double[4] b, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)
          y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
    "conv-empty-bias": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w, "")  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
    "conv-1d-grouped": (
        """g (double[N,4,9] x) => (double[N,6,7] y)
        <double[6,2,3] w, double[6] gamma, double[6] beta, double[6] mean, double[6] var>
        { c = Conv<group=2>(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
    "conv-3d-depthwise-multiplier": (
        """g (double[N,2,4,4,3] x) => (double[N,6,3,3,2] y)
        <double[6,1,2,2,2] w, double[6] gamma, double[6] beta, double[6] mean, double[6] var>
        { c = Conv<group=2>(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
    "conv-transpose-grouped": (
        """g (float[N,4,3,4] x) => (float[N,6,7,9] y)
        <float[4,3,3,3] w, float[6] b, float[6] gamma, float[6] beta, float[6] mean, float[6] var>
        { c = ConvTranspose<group=2, strides=[2,2]>(x, w, b)
          y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["ConvTranspose"],
    ),
    "gemm-everything": (
        """g (double[4,N] x) => (double[N,5] y)
        <double[5,4] w, double[1,5] b, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(x, w, b)
          y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Gemm"],
    ),
    "gemm-c-varies-over-rows": (
        """g (double[3,4] x) => (double[3,5] y)
        <double[4,5] w, double[3,1] b, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = Gemm(x, w, b)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Gemm"],
    ),
    "gemm-scalar-c": (
        """g (double[3,4] x) => (double[3,5] y)
        <double[4,5] w, double b, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = Gemm<beta=0.0>(x, w, b)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Gemm"],
    ),
    "gemm-no-c": (
        """g (double[3,4] x) => (double[3,5] y)
        <double[4,5] w, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = Gemm(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Gemm"],
    ),
    "gemm-left-constant-transposed-out": (
        """g (double[4,N] x) => (double[N,5] y)
        <double[4,5] w, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = Gemm<transA=1>(w, x)  t = Transpose(c)  y = BatchNormalization(t, gamma, beta, mean, var) }""",
        ["y"], {}, ["Gemm", "Transpose"],
    ),
    "matmul-rank-2-becomes-gemm": (
        """g (double[N,4] x) => (double[N,5] y)
        <double[4,5] w, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = MatMul(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Gemm"],
    ),
    "matmul-add-left": (
        """g (double[N,4] x) => (double[N,5] y)
        <double[4,5] w, double[5] b, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = MatMul(x, w)  a = Add(b, c)  y = BatchNormalization(a, gamma, beta, mean, var) }""",
        ["y"], {}, ["MatMul", "Add"],
    ),
    "matmul-rank-3-transposed-leaves-add": (
        """g (double[N,7,4] x) => (double[N,5,7] y)
        <double[4,5] w, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = MatMul(x, w)  t = Transpose<perm=[0,2,1]>(c)
          y = BatchNormalization(t, gamma, beta, mean, var) }""",
        ["y"], {}, ["MatMul", "Add", "Transpose"],
    ),
    "matmul-constant-left": (
        """g (double[N,4,7] x) => (double[N,5,7] y)
        <double[5,4] w, double[5,1] b, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = MatMul(w, x)  a = Add(c, b)  y = BatchNormalization(a, gamma, beta, mean, var) }""",
        ["y"], {}, ["MatMul", "Add"],
    ),
    "matmul-wrong-axis-of-the-same-length": (
        """g (double[N,5,4] x) => (double[N,5,5] y)
        <double[4,5] w, double[5] gamma, double[5] beta, double[5] mean, double[5] var>
        { c = MatMul(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        [], {"y": "not_per_channel"}, ["MatMul", BN],
    ),
    "through-scalars-and-identity": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double two, double[1,4,1,1] k, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)  i = Identity(c)  m = Mul(i, two)  a = Sub(k, m)  d = Div(a, two)  o = Dropout(d)
          y = BatchNormalization(o, gamma, beta, mean, var) }""",
        ["m", "y"], {}, ["Conv", "Identity", "Dropout"],
    ),
    "constant-over-x": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double[1,4,1,1] k, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)  d = Div(k, c)  y = BatchNormalization(d, gamma, beta, mean, var) }""",
        [], {"y": "nonlinear"}, ["Conv", "Div", BN],
    ),
    "bn-bn": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double[4] g1, double[4] b1, double[4] m1, double[4] var1,
         double[4] g2, double[4] b2, double[4] m2, double[4] var2>
        { c = Conv(x, w)  z = BatchNormalization(c, g1, b1, m1, var1)
          y = BatchNormalization<epsilon=0.1>(z, g2, b2, m2, var2) }""",
        ["z", "y"], {}, ["Conv"],
    ),
    "fan-out": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y, double[N,4,4,3] r)
        <double[4,3,3,3] w, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)  r = Relu(c)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        [], {"y": "fan_out"}, ["Conv", "Relu", BN],
    ),
    "conv-is-output": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y, double[N,4,4,3] c)
        <double[4,3,3,3] w, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        [], {"y": "graph_output"}, ["Conv", BN],
    ),
    "training-mode": (
        """g (double[2,3,6,5] x) => (double[2,4,4,3] y)
        <double[4,3,3,3] w, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)
          y, rm, rv = BatchNormalization<training_mode=1>(c, gamma, beta, mean, var) }""",
        [], {"y": "training_mode"}, ["Conv", BN],
    ),
    "dynamic-weight": (
        """g (double[N,3,6,5] x, double[4,3,3,3] w) => (double[N,4,4,3] y)
        <double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        [], {"y": "dynamic_weight"}, ["Conv", BN],
    ),
    "nothing-around": (
        """g (double[N,4,6,5] x) => (double[N,4,6,5] y)
        <double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { y = BatchNormalization(x, gamma, beta, mean, var) }""",
        [], {"y": "no_linear_neighbour"}, [BN],
    ),
    "weights-behind-expressions": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[3,3,4,3] w, double[2,2] g0, double[4] beta, double[4] mean, double[1,4] var0, int64[1] four = {4}, int64[1] zero = {0}>
        { t = Transpose<perm=[2,0,3,1]>(w)  i = Identity(t)  gamma = Reshape(g0, four)
          v = Abs(var0) vs = Squeeze(v, zero)
          c = Conv(x, i)  y = BatchNormalization(c, gamma, beta, mean, vs) }""",
        ["y"], {}, ["Conv"],
    ),
    "through-clip-and-max-with-zero": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double zero = {0}, double[4] gamma = {1,2,0.5,3}, double[4] beta = {0,0,0,0}, double[4] mean = {0,0,0,0}, double[4] var>
        { c = Conv(x, w)  r = Clip(c, zero)  m = Max(zero, r)  y = BatchNormalization(m, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv", "Clip", "Max"],
    ),
    "clip-at-six": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] w, double zero = {0}, double six = {6}, double[4] gamma = {1,2,0.5,3}, double[4] beta = {0,0,0,0}, double[4] mean = {0,0,0,0}, double[4] var>
        { c = Conv(x, w)  r = Clip(c, zero, six)  y = BatchNormalization(r, gamma, beta, mean, var) }""",
        [], {"y": "nonlinear"}, ["Conv", "Clip", BN],
    ),
    "weight-norm": (
        """g (double[N,3,6,5] x) => (double[N,4,4,3] y)
        <double[4,3,3,3] v, double[4,1,1,1] g, int64[3] axes = {1,2,3}, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { n = ReduceL2<axes=[1,2,3]>(v)  u = Div(v, n)  w = Mul(u, g)
          c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["Conv"],
    ),
    "instance-norm": (
        """g (double[N,4,6,5] x) => (double[N,4,6,5] y)
        <double[4] s, double[4] b, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = InstanceNormalization(x, s, b)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        ["y"], {}, ["InstanceNormalization"],
    ),
    "layer-norm-transposed": (
        """g (double[N,6,4] x) => (double[N,4,6] y)
        <double[4] s, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = LayerNormalization(x, s)  t = Transpose<perm=[0,2,1]>(c)
          y = BatchNormalization(t, gamma, beta, mean, var) }""",
        ["y"], {}, ["LayerNormalization", "Transpose"],
    ),
    "layer-norm-other-axis": (
        """g (double[N,4,6] x) => (double[N,4,6] y)
        <double[6] s, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        { c = LayerNormalization(x, s)  y = BatchNormalization(c, gamma, beta, mean, var) }""",
        [], {"y": "not_per_channel"}, ["LayerNormalization", BN],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    text, folded, kept, ops = CASES[name]
    assert_fold(build(text), folded=folded, kept=kept, ops=ops)
