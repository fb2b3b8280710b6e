"""Edges of merges: what is joined, in which order, and what nearly is.

``z = Sub(o, o)`` are zeros that nobody knows, and ``h = Reshape(x, z)`` is x, of unknown shape.
"""

from __future__ import annotations

import onnx
import pytest

from bnfold.report import Reason, Verdict
from tests.support import assert_fold, assert_same, build, evaluate, feeds_of, fold

HEAD = "g (double[N,1,8] x) => (double[?,?,?] y)"
WIDE = "g (double[N,4,8] x) => (double[?,?,?] y)"
MATRIX = "g (double[4,5] x) => (double[?,5] y)"
HIDDEN = "z = Sub(o, o)  h = Reshape(x, z)"
FAR = """double[1,1,2] w1, double[1,1,2] w2, double[1,1,2] w3, double[1,1,2] v2, double[1,1,3] v3,
 double[1,1,4] v4, double[1,1,5] v5, double[1,1,6] v6"""
APART = """a = Conv<strides=[8], dilations=[5], pads=[2,3]>(h, w1)
 b = Conv<strides=[8], dilations=[3], pads=[1,2]>(h, w2)
 c = Conv<strides=[8], dilations=[3], pads=[0,3]>(h, w3)
 d = Conv<strides=[8]>(h, v2)  e = Conv<strides=[8]>(h, v3)  f = Conv<strides=[8]>(h, v4)
 i = Conv<strides=[8]>(h, v5)"""
NINE = """u1 = Identity(x)  u2 = Identity(u1)  u3 = Identity(u2)  u4 = Identity(u3)  u5 = Identity(u4)
 u6 = Identity(u5)  u7 = Identity(u6)"""

# name: (graph, opset, branches that go, places where branches stay, operators left)
CASES: dict[str, tuple[str, int, list[str], dict[str, str], list[str]]] = {
    "pool-behind-more-channels": (f"{HEAD} <double[4,1,1] u, double[4] b, double[4,1,2] w, double[4] c> {{ l = Conv(x, u, b)  p = AveragePool<kernel_shape=[2]>(l)  a = Conv<dilations=[3], pads=[1,1]>(x, w, c)  y = Add(a, p) }}", 17, ["p"], {}, ["Conv"]),
    "pool-behind-fewer-channels": (f"{WIDE} <double[1,4,1] u, double[1] b, double[1,4,2] w, double[1] c> {{ l = Conv(x, u, b)  p = AveragePool<kernel_shape=[2]>(l)  a = Conv<dilations=[3], pads=[1,1]>(x, w, c)  y = Add(a, p) }}", 17, [], {"y": "no_gain"}, ["Conv", "AveragePool", "Conv", "Add"]),
    "three-in-front-of-a-stride": (f"{HEAD} <double[1,1,1] u, double[1] b, double[1,1,1] v, double[1] c, double[1,1,2] w, double[1] d> {{ l = Conv(x, u, b)  i = Identity(l)  p = Conv<strides=[4]>(i, v, c)  a = Conv<strides=[4], dilations=[5], pads=[1,4]>(x, w, d)  y = Add(a, p) }}", 17, ["p"], {}, ["Conv"]),
    "average-beside-a-transposed-convolution": (f"{HEAD} <double[1,1,3] w> {{ a = ConvTranspose<pads=[1,1]>(x, w)  p = AveragePool<kernel_shape=[3], pads=[1,1], count_include_pad=1>(x)  y = Add(a, p) }}", 17, [], {"y": "nonlinear"}, ["ConvTranspose", "AveragePool", "Add"]),
    "seven-identities": (f"{HEAD} <double[1,1,3] w> {{ a = Conv<pads=[1,1]>(x, w)  {NINE}  y = Add(a, u7) }}", 17, ["u7"], {}, ["Conv"]),
    "eight-identities": (f"{HEAD} <double[1,1,3] w> {{ a = Conv<pads=[1,1]>(x, w)  {NINE}  u8 = Identity(u7)  y = Add(a, u8) }}", 17, ["u8"], {}, ["Conv"]),
    "nine-identities": (f"{HEAD} <double[1,1,3] w> {{ a = Conv<pads=[1,1]>(x, w)  {NINE}  u8 = Identity(u7)  u9 = Identity(u8)  y = Add(a, u9) }}", 17, [], {}, ["Conv", *["Identity"] * 9, "Add"]),
    "behind-different-nodes": (f"{HEAD} <double[1,1,1] w, double[1,1,1] v> {{ s = Sigmoid(x)  t = Tanh(x)  a = Conv(s, w)  q = Conv(t, v)  y = Add(a, q) }}", 17, [], {}, ["Sigmoid", "Tanh", "Conv", "Conv", "Add"]),
    "gemm-stays-rather-than-matmul": ("g (double[4,5] x) => (double[4,5] y) <double[5,5] w, double[5,5] v> { a = MatMul(x, w)  q = Gemm(x, v)  y = Add(a, q) }", 17, ["a"], {}, ["Gemm"]),
    "small-gemm-stays-rather-than-matmul": ("g (double[4,5] x) => (double[4,1] y) <double[5,5] w, double[5,1] v> { a = MatMul(x, w)  y = Gemm(a, v) }", 17, ["a"], {}, ["Gemm"]),
    "shift-in-front-of-a-left-matrix": (f"{MATRIX} <double[2,4] w, double[2,4] v, double k> {{ s = Add(x, k)  a = MatMul(w, s)  q = MatMul(v, x)  y = Add(a, q) }}", 17, ["q"], {}, ["MatMul", "Add"]),
    "shift-in-front-of-a-wide-left-matrix": ("g (double[4,5] x) => (double[?,5] y) <double[3,4] w, double[3,4] v, double k> { s = Sub(k, x)  a = MatMul(w, s)  q = MatMul(v, x)  y = Add(a, q) }", 17, ["q"], {}, ["MatMul", "Add"]),
    "shifted-value-beside-a-left-matrix": (f"{MATRIX} <double[4,4] w, double[4,1] b, double k> {{ s = Add(x, k)  i = Identity(s)  a = Gemm(w, x, b)  y = Add(a, i) }}", 17, ["i"], {}, ["Gemm"]),
    "left-matrix-behind-a-left-matrix": (f"{MATRIX} <double[4,4] w, double[4,1] k, double[2,4] v> {{ a = Gemm(w, x, k)  y = MatMul(v, a) }}", 17, ["y"], {}, ["Gemm"]),
    "left-matrix-behind-a-bias-of-rows-and-columns": (f"{MATRIX} <double[4,4] w, double[4,5] k, double[2,4] v> {{ a = Gemm(w, x, k)  y = MatMul(v, a) }}", 17, ["y"], {}, ["Gemm"]),
    "matrix-behind-a-bias-of-rows-and-columns": ("g (double[5,4] x) => (double[5,2] y) <double[4,4] w, double[5,4] k, double[4,2] v> { a = Gemm(x, w, k)  y = MatMul(a, v) }", 17, ["y"], {}, ["Gemm"]),
    "matrix-behind-a-bias-per-row": ("g (double[3,4] x) => (double[3,2] y) <double[4,4] w, double[3,1] k, double[4,2] v, double[2] c> { a = Gemm(x, w, k)  y = Gemm(a, v, c) }", 17, ["y"], {}, ["Gemm"]),
    "transposed-behind-transposed": (f"{HEAD} <double[1,1,1] w, double[1,1,1] v, double[1,1,1] p> {{ u = ConvTranspose(x, w)  a = ConvTranspose(u, v)  q = ConvTranspose(x, p)  y = Add(a, q) }}", 17, [], {"y": "nonlinear"}, ["ConvTranspose"] * 3 + ["Add"]),
    "shift-in-front-of-a-transposed-one": (f"{WIDE.replace('double', 'float')} <float[4,2,1] w, float k, float[4,2,1] p> {{ s = Add(x, k)  a = ConvTranspose<group=2>(s, w)  q = ConvTranspose<group=2>(x, p)  y = Add(a, q) }}", 17, ["q"], {}, ["ConvTranspose"]),
    "shift-in-front-of-a-transposed-kernel": (f"{WIDE} <double[4,3,2] w, double k, double[4,3,2] p> {{ s = Add(x, k)  a = ConvTranspose(s, w)  q = ConvTranspose(x, p)  y = Add(a, q) }}", 17, [], {"y": "nonlinear"}, ["Add", "ConvTranspose", "ConvTranspose", "Add"]),
    "values-that-are-broadcast-first": (f"{HEAD} <double[4,1,1] w, double[4,1,1] v> {{ a = Conv(x, w)  q = Conv(x, v)  y = Sum(x, x, a, q) }}", 17, ["q"], {"y": "not_per_channel"}, ["Conv", "Sum"]),
    "number-per-channel-of-the-second": (f"{WIDE} <double[1,4,1] w, double[4,4,1] v, double[4,1] k> {{ a = Conv(x, w)  q = Conv(x, v)  t = Sum(a, q)  y = Sum(t, k) }}", 17, [], {"t": "not_per_channel"}, ["Conv", "Conv", "Sum"]),
    "numbers-per-channel": (f"{WIDE} <double[4,4,1] w, double[4,4,1] v, double[4,1] k, double[1,4,1] m, double[1] n, double o> {{ a = Conv(x, w)  q = Conv(x, v)  y = Sum(a, k, q, m, n, o) }}", 17, ["q"], {}, ["Conv"]),
    "numbers-per-position-and-per-channel": (f"{WIDE} <double[4,4,1] w, double[4,4,1] v, double[8] j, double[4,1] k> {{ a = Conv(x, w)  q = Conv(x, v)  t = Sum(a, j, q)  y = Sum(t, k) }}", 17, ["q"], {}, ["Conv", "Sum"]),
    "number-that-is-spread-and-numbers-per-channel": (f"{WIDE} <double[4,4,1] w, double[4,4,1] v, double j, double[4,1] k> {{ m = Shape(x)  e = Expand(j, m)  a = Conv(x, w)  q = Conv(x, v)  t = Sum(a, e, q)  y = Sum(t, k) }}", 17, ["q"], {}, ["Shape", "Expand", "Conv", "Sum"]),
    "number-beside-one-convolution": (f"{WIDE} <double[4,4,1] w, double[4,1] k> {{ s = Sigmoid(x)  a = Conv(x, w)  t = Sum(a, s)  y = Sum(t, k) }}", 17, [], {}, ["Sigmoid", "Conv", "Sum"]),
    "same-length-of-an-unknown-one": ("g (double[3,1,8] x, int64[M] o) => (double[?,1,?] y) <double[1,1,3] w, double[1,1,3] v> { z = Sub(o, o)  h = Reshape(x, z)  a = Conv<auto_pad=\"SAME_UPPER\", strides=[2]>(h, w)  q = Conv<auto_pad=\"SAME_UPPER\", strides=[2]>(h, v)  y = Add(a, q) }", 17, [], {}, ["Sub", "Reshape", "Conv", "Conv", "Add"]),
    "same-length-along-two-axes": ("g (double[N,1,9,8] x) => (double[N,1,5,4] y) <double[1,1,3,3] w, double[1,1,3,3] v> { a = Conv<auto_pad=\"SAME_UPPER\", strides=[2,2]>(x, w)  q = Conv<pads=[1,0,1,1], strides=[2,2]>(x, v)  y = Add(a, q) }", 17, ["q"], {}, ["Conv"]),
    "number-of-more-axes": ("g (double[4,4,8] x) => (double[1,4,4,8] y) <double[4,4,1] w, double[4,4,1] v, double[1,1,1,1] k> { a = Conv(x, w)  q = Conv(x, v)  y = Sum(a, q, k) }", 17, ["q"], {}, ["Conv", "Sum"]),
    "numbers-of-more-axes": ("g (double[4,4,8] x) => (double[1,4,4,8] y) <double[4,4,1] w, double[4,4,1] v, double[1,4,1,1] k> { a = Conv(x, w)  q = Conv(x, v)  y = Sum(a, q, k) }", 17, ["q"], {}, ["Conv", "Sum"]),
    "three-of-seven": (f"g (double[3,1,16] x, int64[3] o) => (double[?,1,?] y) <{FAR}> {{ {HIDDEN}  {APART}  y = Sum(a, b, c, d, e, f, i) }}", 17, ["b", "c"], {"y": "padding_shift"}, ["Sub", "Reshape", *["Conv"] * 5, "Sum"]),
    "three-of-eight": (f"g (double[3,1,16] x, int64[3] o) => (double[?,1,?] y) <{FAR}> {{ {HIDDEN}  {APART}  j = Conv<strides=[8]>(h, v6)  y = Sum(a, b, c, d, e, f, i, j) }}", 17, [], {"y": "padding_shift"}, ["Sub", "Reshape", *["Conv"] * 8, "Sum"]),
    "one-of-eight-and-a-number": (f"g (double[3,1,16] x, int64[3] o) => (double[?,1,?] y) <{FAR}, double k> {{ {HIDDEN}  {APART}  j = Conv<strides=[8]>(h, v6)  s = Sum(a, b, c, d, e, f, i, j)  y = Add(s, k) }}", 17, [], {"s": "padding_shift"}, ["Sub", "Reshape", *["Conv"] * 8, "Sum"]),
    "biases-of-transposed-ones-of-fewer-channels": (f"{WIDE} <double[4,2,3] w, double[2] b, double[4,2,3] v, double[2] c> {{ a = ConvTranspose(x, w, b)  q = ConvTranspose(x, v, c)  y = Add(a, q) }}", 17, ["q"], {}, ["ConvTranspose"]),
    "biases-of-transposed-ones-of-more-channels": (f"{WIDE} <double[4,6,3] w, double[6] b, double[4,6,3] v, double[6] c> {{ a = ConvTranspose(x, w, b)  q = ConvTranspose(x, v, c)  y = Add(a, q) }}", 17, ["q"], {}, ["ConvTranspose"]),
    "one-output-padding": (f"{HEAD} <double[1,1,3] w, double[1,1,2] v> {{ a = ConvTranspose<strides=[2], pads=[1,1], output_padding=[1]>(x, w)  q = ConvTranspose<strides=[2]>(x, v)  y = Add(a, q) }}", 17, ["q"], {}, ["ConvTranspose"]),
    "two-output-paddings": (f"{HEAD} <double[1,1,1] w, double[1,1,1] v> {{ a = ConvTranspose<strides=[2], output_padding=[1]>(x, w)  q = ConvTranspose<strides=[2], output_padding=[1]>(x, v)  y = Add(a, q) }}", 17, ["q"], {}, ["ConvTranspose"]),
    "output-padding-that-is-needed": (f"{HEAD} <double[1,1,2] w, double[1,1,1] v> {{ a = ConvTranspose<strides=[3]>(x, w)  q = ConvTranspose<strides=[3], output_padding=[1]>(x, v)  y = Add(q, a) }}", 17, ["q"], {}, ["ConvTranspose"]),
    "dilations-that-agree": (f"{HEAD} <double[1,1,3] w, double[1,1,3] v> {{ a = Conv<dilations=[3], pads=[1,5]>(x, w)  q = Conv<dilations=[3], pads=[1,5]>(x, v)  y = Add(a, q) }}", 17, ["q"], {}, ["Conv"]),
    "pool-between": (f"{HEAD} <double[1,1,1] w, double[1,1,1] v> {{ u = Conv(x, w)  p = AveragePool<kernel_shape=[2]>(u)  y = Conv(p, v) }}", 17, [], {}, ["Conv", "AveragePool", "Conv"]),
    "nodes-before-and-between": (f"{HEAD} <double[1,1,1] w, double k, double[1,1,1] v> {{ i = Neg(x)  u = Conv(i, w)  s = Sub(k, u)  y = Conv(s, v) }}", 17, ["u"], {}, ["Conv"]),
    "matrices-and-a-difference-between": ("g (double[4,5] x) => (double[?,?] y) <double[5,5] w, double k, double[5,5] v> { i = Neg(x)  u = MatMul(i, w)  s = Sub(k, u)  y = Gemm(s, v) }", 17, ["u"], {}, ["Neg", "Gemm"]),
    "left-matrices-and-a-sign-between": (f"{MATRIX} <double[4,4] w, double[4,4] v> {{ u = MatMul(w, x)  s = Neg(u)  y = MatMul(v, s) }}", 17, ["u"], {}, ["MatMul"]),
    "inner-sum-that-does-not-pay": (f"{HEAD} <double[1,1,2] w, double[1,1,1] v> {{ a = Conv<dilations=[3], pads=[1,2]>(x, w)  q = Conv(x, v)  t = Add(a, q)  s = Sigmoid(x)  y = Sub(t, s) }}", 17, [], {"y": "no_gain"}, ["Conv", "Conv", "Add", "Sigmoid", "Sub"]),
    "sum-of-opset-6": ("g (float[N,1,8] x) => (float[?,?,?] y) <float[1,1,3] w, float[1,1,3] v> { a = Conv(x, w)  q = Conv(x, v)  y = Add(a, q) }", 6, ["q"], {}, ["Conv"]),
    "sum-of-opset-6-without-broadcast": ("g (float[N,1,8] x) => (float[?,?,?] y) <float[1,1,3] w, float[1,1,3] v> { a = Conv(x, w)  q = Conv(x, v)  y = Sub<broadcast=0>(a, q) }", 6, ["q"], {}, ["Conv"]),
    "sixty-four-terms": (f"{HEAD} <double[1,1,1] w, double[1,1,1] v> {{ s = Sigmoid(x)  a = Conv(x, w)  q = Conv(x, v)  y = Sum(a, q{', s' * 62}) }}", 17, ["q"], {}, ["Sigmoid", "Conv", "Sum"]),
    "sixty-five-terms": (f"{HEAD} <double[1,1,1] w, double[1,1,1] v> {{ s = Sigmoid(x)  a = Conv(x, w)  q = Conv(x, v)  y = Sum(a, q{', s' * 63}) }}", 17, [], {}, ["Sigmoid", "Conv", "Conv", "Sum"]),
    "refused-before-two-became-one": (f"{HEAD} <double[1,1,4] w, double[1,1,1] p, double[1,1,2] v, double[1,1,1] e> {{ l = Conv<pads=[1,2]>(x, w)  u0 = Conv(l, p)  {NINE.replace('(x)', '(u0)')}  q = Conv<dilations=[3], pads=[1,2]>(x, v)  f = Conv(x, e)  s = Sigmoid(x)  y = Sum(u7, q, f, s) }}", 17, ["u0", "q", "f"], {}, ["Conv", "Sigmoid", "Sum"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_join(name: str) -> None:
    text, opset, merged, apart, ops = CASES[name]
    assert_fold(build(text, opset=opset), merged=merged, apart=apart, ops=ops)


SAME = (
    "g (double[N,1,{length}] x) => (double[N,1,?] y) <double[1,1,{one}] w, double[1,1,{other}] v>"
)


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "upper", "lower"),
    [
        (8, 2, 1, (0, 1), (1, 0)),
        (8, 3, 1, (1, 1), (1, 1)),
        (8, 3, 2, (0, 1), (1, 0)),
        (7, 3, 2, (1, 1), (1, 1)),
        (7, 4, 2, (1, 2), (2, 1)),
        (7, 5, 3, (2, 2), (2, 2)),
        (8, 6, 3, (2, 2), (2, 2)),
        (9, 6, 3, (1, 2), (2, 1)),
        (9, 2, 4, (0, 1), (1, 0)),
        (8, 1, 3, (0, 0), (0, 0)),
    ],
)
def test_padding_of_the_same_length(
    length: int, kernel: int, stride: int, upper: tuple[int, int], lower: tuple[int, int]
) -> None:
    """What a convolution finds by itself is what another one is given."""
    for mode, (begin, end) in (("UPPER", upper), ("LOWER", lower)):
        head = SAME.format(length=length, one=kernel, other=kernel)
        body = f"""a = Conv<auto_pad="SAME_{mode}", strides=[{stride}]>(x, w)
            q = Conv<strides=[{stride}], pads=[{begin},{end}]>(x, v)  y = Add(a, q)"""
        result = assert_fold(build(f"{head} {{ {body} }}"), merged=["q"], ops=["Conv"])
        (weight,) = result.graph.initializer
        assert list(weight.dims) == [1, 1, kernel]


# name: (graph, places where branches stay); none of them is legal
ILLEGAL: dict[str, tuple[str, dict[str, str]]] = {
    "no-groups": (f"{WIDE} <double[4,4,1] w, double[4,4,1] v> {{ a = Conv<group=0>(x, w)  q = Conv<group=0>(x, v)  y = Add(a, q) }}", {}),
    "groups-that-do-not-fit": (f"{WIDE} <double[4,4,1] w, double[4,4,1] v> {{ a = Conv<group=3>(x, w)  q = Conv<group=3>(x, v)  y = Add(a, q) }}", {}),
    "weights-without-a-kernel": ("g (double[N,4] x) => (double[?,?] y) <double[4,4] w, double[4,4] v> { a = Conv(x, w)  q = Conv(x, v)  y = Add(a, q) }", {}),
    "weights-without-rows": (f"{WIDE} <double[0,4,1] w, double[0,4,1] v> {{ a = Conv(x, w)  q = Conv(x, v)  y = Add(a, q) }}", {}),
    "kernel-that-is-not-that-of-the-weight": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv<kernel_shape=[2]>(x, w)  q = Conv<kernel_shape=[2]>(x, v)  y = Add(a, q) }}", {}),
    "too-few-strides": ("g (double[N,4,8,8] x) => (double[?,?,?,?] y) <double[4,4,3,3] w, double[4,4,3,3] v> { a = Conv<strides=[2]>(x, w)  q = Conv<strides=[2]>(x, v)  y = Add(a, q) }", {}),
    "too-many-strides": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv<strides=[2,1]>(x, w)  q = Conv<strides=[2,1]>(x, v)  y = Add(a, q) }}", {}),
    "too-many-pads": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv<pads=[2,1,1]>(x, w)  q = Conv<pads=[2,1,1]>(x, v)  y = Add(a, q) }}", {}),
    "negative-pads": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv<pads=[-1,0]>(x, w)  q = Conv<pads=[-1,0]>(x, v)  y = Add(a, q) }}", {}),
    "negative-strides": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv<strides=[-1]>(x, w)  q = Conv<strides=[-1]>(x, v)  y = Add(a, q) }}", {}),
    "negative-dilations": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv<dilations=[-1]>(x, w)  q = Conv<dilations=[-1]>(x, v)  y = Add(a, q) }}", {}),
    "sum-without-an-operand": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv(x, w)  q = Conv(x, v)  y = Sum(a, , q) }}", {}),
    "sum-of-nothing": (f"{WIDE} {{ t = Sum()  y = Add(x, t) }}", {}),
    "sum-of-two-results": (f"{WIDE} <double[4,4,3] w, double[4,4,3] v> {{ a = Conv(x, w)  q = Conv(x, v)  y, t = Sum(a, q) }}", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name: str) -> None:
    text, apart = ILLEGAL[name]
    model = build(text)
    result, report = fold(model)
    assert result == model
    assert {each.name: str(each.reason) for each in report.sites} == apart


TWO = "<double[1,1,3] w, double[1,1,3] v> { a = Conv(x, w)  q = Conv(x, v)  y = Add(a, q) }"


def test_one_that_a_body_reads_alone_is_not_taken_from_outside() -> None:
    model = build("""g (double[N,1,8] x, bool f) => (double[?,?,?] y) <double[1,1,3] w, double[1,1,3] v>
        { a = Conv(x, w)
          y = If(f)<then_branch = t () => (double[?,?,?] s) { q = Conv(x, v)  s = Add(a, q) },
                    else_branch = e () => (double[?,?,?] u) { u = Conv(x, v) }> }""")
    assert assert_fold(model, merged=[]) == model


def test_value_that_an_annotation_names_stays() -> None:
    model = build(f"{HEAD} {TWO}")
    annotation = model.graph.quantization_annotation.add(tensor_name="x")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="q")
    assert assert_fold(model, merged=[], run=False) == model


def test_bias_that_is_infinite() -> None:
    model = build(
        f"""{HEAD} <double[1,1,3] w, double[1] b, double[1,1,3] v>
        {{ a = Conv(x, w, b)  q = Conv(x, v)  y = Add(a, q) }}""",
        {"b": float("inf")},
    )
    assert assert_fold(model, merged=[]) == model


def test_addition_that_is_excluded_is_no_part_of_a_sum() -> None:
    model = build(
        f"""{WIDE} <double[4,4,3] w, double[4,4,3] v, double[4,1] k>
        {{ a = Conv(x, w)  q = Conv(x, v)  s = Add(a, k)  y = Add(s, q) }}"""
    )
    assert_fold(model, kept={"s": "excluded"}, merged=[], keep=("s",))


def test_verdicts_of_bodies() -> None:
    model = build("""g (double[N,1,8] x, bool f) => (double[?,?,?] y)
        <double[1,1,3] w, double[1,1,3] v, double[1,1,2] p, double[1,1,1] o>
        { y = If(f)<then_branch = t () => (double[?,?,?] s) { a = Conv(x, w)  q = Conv(x, v)  s = Add(a, q) },
                    else_branch = e () => (double[?,?,?] u) { b = Conv<dilations=[3], pads=[1,2]>(x, p)  c = Conv(x, o)  u = Add(b, c) }> }""")
    _, report = fold(model)
    gone, stays = report.sites
    assert gone == Verdict(
        "q", "branch", "main/y/then_branch", None, True, "parallel", ("a",), ("s",)
    )
    assert stays == Verdict(
        "u", "branch", "main/y/else_branch", None, False, reason=Reason.NO_GAIN, detail=stays.detail
    )
    assert stays.folded is False


def test_all_that_took_an_affine_in_where_one_of_them_is_merged() -> None:
    model = build("""g (float[N,4,8] x) => (float[?,?,?] y, float[?,?,?] r)
        <float[4] gamma, float[4] beta, float[4] mean, float[4] var, float[2,4,1] w, float[2,4,3] v, float[2,4,1] p>
        { s = Sigmoid(x)  n = BatchNormalization(s, gamma, beta, mean, var)  a = Conv(n, w)  b = Conv(n, p)
          c = Conv<pads=[1,1]>(s, v)  y = Add(a, c)  r = Relu(b) }""")
    assert_fold(model, folded=["n"], merged=["a"])
    _, report = fold(model)
    assert report.sites[0].into == ("c", "b")


def test_attributes_that_a_caller_gives() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (double[N,1,8] x) => (double[?,?,?] y) { y = f.two<s=[2]>(x) }
        <domain: "f", opset_import: ["" : 17]> two <s> (x) => (y)
        { w = Constant<value = double[1,1,3] {1,2,3}>()  v = Constant<value = double[1,1,3] {2,5,3}>()
          a = Conv<strides: ints = @s>(x, w)  q = Conv<strides: ints = @s>(x, v)  y = Add(a, q) }""")
    result, report = fold(model)
    assert result == model
    assert not report.sites


# name: (what is computed from x, w and v, the function, what it computes)
FUNCTIONS: dict[str, tuple[str, str, str]] = {
    "side-by-side": ("a = Conv(x, w)  q = Conv(x, v)  y = Sub(a, q)", "Conv", "(a, b) => (c) { s = Sigmoid(a)  c = Mul(s, b) }"),
    "one-behind-the-other": ("a = Conv(x, w)  y = Conv(a, v)", "Conv", "(a, b) => (c) { s = Sigmoid(a)  c = Mul(s, b) }"),
    "sum": ("a = Conv(x, w)  q = Conv(x, v)  y = Add(a, q)", "Add", "(a, b) => (c) { c = Mul(a, b) }"),
    "linear": ("a = Conv(x, w)  q = Neg(x)  y = Add(a, q)", "Neg", "(a) => (c) { c = Abs(a) }"),
    "carrier": ("a = Conv(x, w)  y = BatchNormalization(a, gamma, beta, mean, var)", "Conv", "(a, b) => (c) { s = Sigmoid(a)  c = Mul(s, b) }"),
    "passed": ("a = Conv(x, w)  p = Identity(a)  y = BatchNormalization(p, gamma, beta, mean, var)", "Identity", "(a) => (c) { c = Abs(a) }"),
    "site": ("a = Conv(x, w)  y = BatchNormalization(a, gamma, beta, mean, var)", "BatchNormalization", "(a, b, c, d, e) => (f) { f = Abs(a) }"),
    "constant": ("u = Neg(w)  a = Conv(x, u)  q = Conv(x, v)  y = Add(a, q)", "Neg", "(a) => (c) { c = Abs(a) }"),
}  # fmt: skip


@pytest.mark.parametrize("called", ["", "ai.onnx"])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_in_place_of_an_operator(name: str, domain: str, called: str) -> None:
    """A function of the model with the name of an ONNX operator is called instead of it."""
    body, operator, function = FUNCTIONS[name]
    model = build(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,1,8] x) => (float[?,?,?] y)
        <float[1,1,1] w, float[1,1,1] v, float[1] gamma, float[1] beta, float[1] mean, float[1] var> {{ {body} }}
        <domain: "{domain}", opset_import: ["" : 17]> {operator} {function}"""
    )
    for node in model.graph.node:
        node.domain = called
    feeds = feeds_of(model, {})
    result, report = fold(model)
    assert not any(verdict.folded for verdict in report.sites)
    assert_same(evaluate(model, feeds), evaluate(result, feeds), 0)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("s = GlobalMaxPool(x)  a = Conv<strides=[2]>(s, p)  q = Conv(s, o)  y = Add(a, q)", "their strides differ"),
        ("s = GlobalMaxPool(x)  a = Conv<pads=[1,1]>(s, p)  q = Conv(s, o)  y = Add(a, q)", "their padding is not aligned"),
    ],
    ids=["strides", "padding"],
)  # fmt: skip
def test_what_is_in_the_way(body: str, detail: str) -> None:
    _, report = fold(build(f"{HEAD} <double[1,1,1] p, double[1,1,1] o> {{ {body} }}"))
    (verdict,) = report.sites
    assert verdict.detail == f'at "y", {detail} along axis 2'


def test_one_tap_gets_no_attributes() -> None:
    model = build(
        f"""{HEAD} <double[1,1,1] w, double[1,1,1] v>
        {{ a = Conv(x, w)  q = Conv<dilations=[3]>(x, v)  y = Add(a, q) }}"""
    )
    result = assert_fold(model, merged=["q"], ops=["Conv"])
    assert not result.graph.node[0].attribute
