"""Large weights are read a few rows at a time, and give what they give as a whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from bnfold.graph.rules import parameters
from tests.support import assert_fold, build, fold

BN = "float[6] gamma, float[6] beta, float[6] mean, float[6] var"
N = "n = BatchNormalization(x, gamma, beta, mean, var)"
Q = "int8[5,6,1] q={" + ",".join(str(i * 7 % 50 - 20) for i in range(30)) + "}"
SCALES = "float[5] s={0.1,0.2,0.3,0.4,0.5}, int8[5] z={1,2,3,-4,0}"
CASES = {
    "matrix on the right": f"(float[N,6] x) => (float[N,5] y) <{BN}, float[6,5] w> {{ {N}  y = MatMul(n, w) }}",
    "matrix on the left": f"(float[N,6,3] x) => (float[N,5,3] y) <{BN}, float[5,6] w> {{ {N}  y = MatMul(w, n) }}",
    "gemm": f"(float[N,6] x) => (float[N,5] y) <{BN}, float[6,5] w> {{ {N}  y = Gemm<alpha=0.5>(n, w) }}",
    "gemm, transposed": f"(float[N,6] x) => (float[N,5] y) <{BN}, float[5,6] w> {{ {N}  y = Gemm<transB=1>(n, w) }}",
    "convolution": f"(float[N,6,4] x) => (float[N,5,3] y) <{BN}, float[5,6,2] w> {{ {N}  y = Conv(n, w) }}",
    "convolution in groups": f"(float[N,6,4] x) => (float[N,4,3] y) <{BN}, float[4,3,2] w> {{ {N}  y = Conv<group=2>(n, w) }}",
    "transposed convolution": f"(float[N,6,4] x) => (float[N,5,4] y) <{BN}, float[6,5,1] w> {{ {N}  y = ConvTranspose(n, w) }}",
    "quantized": f"(float[N,6,4] x) => (float[N,5,4] y) <{BN}, {Q}, float s={{0.1}}, int8 z={{3}}> {{ {N}  w = DequantizeLinear(q, s, z)  y = Conv(n, w) }}",
    "quantized by rows": f"(float[N,6,4] x) => (float[N,5,4] y) <{BN}, {Q}, {SCALES}> {{ {N}  w = DequantizeLinear<axis=0>(q, s, z)  y = Conv(n, w) }}",
}  # fmt: skip
LINEAR = "float[6] gamma={1,1,1,1,1,1}, float[6] beta, float[6] mean, float[6] var={1,1,1,1,1,1}"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("elements", [1, 7, 13])
def test_blocks_give_the_same(name: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "_BLOCK_ELEMENTS", elements)
    text = CASES[name]
    if name.startswith("quantized"):  # whose scale cannot vary along columns
        text = text.replace(BN, LINEAR).replace(N, N.replace("(x", "<epsilon=0.0>(x"))
    assert_fold(build(f"g {text}"), folded=["n"])


def test_memory_is_that_of_a_block() -> None:
    length = 1536
    text = f"""g (float[N,{length}] x) => (float[N,{length}] y)
    <float[{length}] t, float[{length},{length}] w> {{ n = Sub(x, t)  y = MatMul(n, w) }}"""
    rng = np.random.default_rng(0)
    model = build(text, {"w": rng.normal(size=(length, length)).astype(np.float32)})
    size = model.ByteSize()
    tracemalloc.start()
    result, _ = fold(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [node.op_type for node in result.graph.node] == ["Gemm"]
    copies = 3 * size  # of the file: before, while it is written, and after
    assert peak < copies + (16 << 20)
