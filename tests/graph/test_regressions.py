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
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    text, folded, kept, ops = CASES[name]
    assert_fold(build(text), folded=folded, kept=kept, ops=ops)


def test_channels_that_only_a_parameter_tells() -> None:
    model = build(
        f"""g (double[N,C,6,5] x) => (double[N,6,4,3] y)
        <double[4,1,1] k, double[6,4,3,3] w, {P4}>
        {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = Mul(n, k)  y = Conv(m, w) }}"""
    )
    result = assert_fold(model, folded=["n", "m"], ops=["Conv"], run=False)
    feeds = feeds_of(model, {"N": 2, "C": 4})
    assert_same(evaluate(model, feeds), evaluate(result, feeds), 1e-11)
