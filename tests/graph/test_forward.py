from __future__ import annotations

import pytest

from tests.support import assert_fold, build

BN = "BatchNormalization"
P4 = "double[4] gamma, double[4] beta, double[4] mean, double[4] var"
NORM = "n = BatchNormalization(x, gamma, beta, mean, var)"

CASES: dict[str, tuple[str, list[str], dict[str, str], list[str]]] = {
    "conv-valid": (
        f"""g (double[N,4,6,5] x) => (double[N,6,4,3] y) <double[6,4,3,3] w, double[6] b, {P4}>
        {{ {NORM}  y = Conv(n, w, b) }}""",
        ["n"], {}, ["Conv"],
    ),
    "conv-grouped-no-bias": (
        f"""g (double[N,4,6,5] x) => (double[N,6,4,3] y) <double[6,2,3,3] w, {P4}>
        {{ {NORM}  y = Conv<group=2>(n, w) }}""",
        ["n"], {}, ["Conv"],
    ),
    "conv-padded": (
        f"""g (double[N,4,6,5] x) => (double[N,6,6,5] y) <double[6,4,3,3] w, {P4}>
        {{ {NORM}  y = Conv<pads=[1,1,1,1]>(n, w) }}""",
        [], {"n": "padding_shift"}, [BN, "Conv"],
    ),
    "conv-same": (
        f"""g (double[N,4,6,5] x) => (double[N,6,6,5] y) <double[6,4,3,3] w, {P4}>
        {{ {NORM}  y = Conv<auto_pad="SAME_UPPER">(n, w) }}""",
        [], {"n": "padding_shift"}, [BN, "Conv"],
    ),
    "conv-same-that-pads-nothing": (
        f"""g (double[N,4,6,5] x) => (double[N,6,3,5] y) <double[6,4,2,1] w, {P4}>
        {{ {NORM}  y = Conv<auto_pad="SAME_UPPER", strides=[2,1]>(n, w) }}""",
        ["n"], {}, ["Conv"],
    ),
    "conv-padded-scale-only": (
        """g (double[N,4,6,5] x) => (double[N,6,6,5] y)
        <double[6,4,3,3] w, double[4] gamma, double[4] beta = {0,0,0,0}, double[4] mean = {0,0,0,0}, double[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  y = Conv<pads=[1,1,1,1]>(n, w) }""",
        ["n"], {}, ["Conv"],
    ),
    "conv-transpose-scale-only": (
        """g (double[N,4,3,4] x) => (double[N,6,7,9] y)
        <double[4,6,3,3] w, double[4] gamma, double[4] beta = {0,0,0,0}, double[4] mean = {0,0,0,0}, double[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  y = ConvTranspose<strides=[2,2]>(n, w) }""",
        ["n"], {}, ["ConvTranspose"],
    ),
    "conv-transpose-phases": (
        f"""g (double[N,4,3,4] x) => (double[N,6,6,8] y) <double[4,6,2,2] w, {P4}>
        {{ {NORM}  y = ConvTranspose<strides=[2,2]>(n, w) }}""",
        [], {"n": "padding_shift"}, [BN, "ConvTranspose"],
    ),
    "conv-transpose-kernel-1": (
        f"""g (double[N,4,3,4] x) => (double[N,6,3,4] y) <double[4,6,1,1] w, {P4}>
        {{ {NORM}  y = ConvTranspose(n, w) }}""",
        ["n"], {}, ["ConvTranspose"],
    ),
    "gemm": (
        f"""g (double[N,4] x) => (double[N,5] y) <double[5,4] w, double[5] b, {P4}>
        {{ {NORM}  y = Gemm<transB=1, alpha=0.5, beta=3.0>(n, w, b) }}""",
        ["n"], {}, ["Gemm"],
    ),
    "matmul-add": (
        f"""g (double[N,4] x) => (double[N,5] y) <double[4,5] w, double[5] b, {P4}>
        {{ {NORM}  m = MatMul(n, w) y = Add(b, m) }}""",
        ["n"], {}, ["MatMul", "Add"],
    ),
    "matmul-alone": (
        f"""g (double[N,4] x) => (double[N,5] y) <double[4,5] w, {P4}>
        {{ {NORM}  y = MatMul(n, w) }}""",
        ["n"], {}, ["Gemm"],
    ),
    "matmul-rank-3": (
        f"""g (double[N,4,7] x) => (double[N,7,5] y) <double[4,5] w, {P4}>
        {{ {NORM}  t = Transpose<perm=[0,2,1]>(n)  y = MatMul(t, w) }}""",
        ["n"], {}, ["Transpose", "MatMul", "Add"],
    ),
    "matmul-constant-left": (
        f"""g (double[N,4,7] x) => (double[N,5,7] y) <double[5,4] w, double[5,1] b, {P4}>
        {{ {NORM}  m = MatMul(w, n) y = Add(m, b) }}""",
        ["n"], {}, ["MatMul", "Add"],
    ),
    "flatten-gemm": (
        f"""g (double[N,4,3,2] x) => (double[N,5] y) <double[24,5] w, double[5] b, {P4}>
        {{ {NORM}  f = Flatten(n)  y = Gemm(f, w, b) }}""",
        ["n"], {}, ["Flatten", "Gemm"],
    ),
    "flatten-gemm-unknown-size": (
        f"""g (double[N,4,H,2] x) => (double[N,5] y) <double[24,5] w, double[5] b, {P4}>
        {{ {NORM}  f = Flatten(n)  y = Gemm(f, w, b) }}""",
        [], {"n": "unknown_shape"}, [BN, "Flatten", "Gemm"],
    ),
    "global-pool-flatten-gemm": (
        f"""g (double[N,4,H,W] x) => (double[N,5] y) <double[4,5] w, double[5] b, {P4}>
        {{ {NORM}  p = GlobalAveragePool(n)  f = Flatten(p)  y = Gemm(f, w, b) }}""",
        ["n"], {}, ["GlobalAveragePool", "Flatten", "Gemm"],
    ),
    "lstm": (
        """g (float[N,4,7] x) => (float[7,2,N,3] y)
        <float[2,12,4] w, float[2,12,3] r, float[2,24] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  t = Transpose<perm=[2,0,1]>(n)
          y = LSTM<hidden_size=3, direction="bidirectional">(t, w, r, b) }""",
        ["n"], {}, ["Transpose", "LSTM"],
    ),
    "gru-without-bias": (
        """g (float[N,4,7] x) => (float[7,1,N,3] y)
        <float[1,9,4] w, float[1,9,3] r, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
        { n = BatchNormalization(x, gamma, beta, mean, var)  t = Transpose<perm=[2,0,1]>(n)
          y = GRU<hidden_size=3, linear_before_reset=1>(t, w, r) }""",
        ["n"], {}, ["Transpose", "GRU"],
    ),
    "every-consumer": (
        f"""g (double[N,4,6,5] x) => (double[N,6,4,3] y, double[N,2,6,5] z)
        <double[6,4,3,3] w, double[2,4,1,1] v, {P4}>
        {{ {NORM}  y = Conv(n, w)  z = Conv(n, v) }}""",
        ["n"], {}, ["Conv", "Conv"],
    ),
    "one-consumer-refuses": (
        f"""g (double[N,4,6,5] x) => (double[N,6,4,3] y, double[N,4,6,5] z) <double[6,4,3,3] w, {P4}>
        {{ {NORM}  y = Conv(n, w)  z = Relu(n) }}""",
        [], {"n": "graph_input"}, [BN, "Conv", "Relu"],
    ),
    "shared-weight-is-copied": (
        f"""g (double[N,4,6,5] x, double[N,4,6,5] u) => (double[N,6,4,3] y, double[N,6,4,3] z)
        <double[6,4,3,3] w, {P4}>
        {{ {NORM}  y = Conv(n, w)  z = Conv(u, w) }}""",
        ["n"], {}, ["Conv", "Conv"],
    ),
    "bn-bn-conv": (
        f"""g (double[N,4,6,5] x) => (double[N,6,4,3] y)
        <double[6,4,3,3] w, {P4}, double[4] g2, double[4] b2, double[4] m2, double[4] var2>
        {{ {NORM} r = BatchNormalization(n, g2, b2, m2, var2)  y = Conv(r, w) }}""",
        ["n", "r"], {}, ["Conv"],
    ),
    "bn-mul-add-becomes-one-bn": (
        f"""g (double[N,4,6,5] x) => (double[N,4,6,5] y)
        <{P4}, double[4,1,1] m, double[1,4,1,1] a>
        {{ {NORM}  s = Mul(n, m)  t = Add(a, s)  y = Sigmoid(t) }}""",
        ["s"], {"n": "graph_input"}, [BN, "Sigmoid"],
    ),
    "mul-add-bn-becomes-one-bn": (
        f"""g (double[N,4,6,5] x) => (double[N,4,6,5] y)
        <{P4}, double[4,1,1] m, double[1,4,1,1] a>
        {{ s = Mul(x, m)  t = Add(a, s)  n = BatchNormalization(t, gamma, beta, mean, var)  y = Sigmoid(n) }}""",
        ["s"], {"n": "graph_input"}, [BN, "Sigmoid"],
    ),
    "decomposed-kept-is-shortened": (
        """g (double[N,4,6,5] x) => (double[N,4,6,5] y)
        <double[4,1,1] m, double[4,1,1] d, double[4,1,1] k, double[4,1,1] a>
        { p = Sub(x, m)  q = Div(p, d)  r = Mul(q, k)  s = Add(r, a)  y = Sigmoid(s) }""",
        [], {"p": "graph_input"}, ["Mul", "Add", "Sigmoid"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    text, folded, kept, ops = CASES[name]
    assert_fold(build(text), folded=folded, kept=kept, ops=ops)
