"""Branches that become one operator, and what only looks as if it could."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.lazy import round_to
from bnfold.report import FoldReport, Verdict
from tests.support import assert_fold, build, fold

CONSTANTS = """double[4,4,3,3] w, double[4,4,1,1] p, double[4,1,3,3] d, double[4,1,1,1] e, double[4,2,3,3] h,
 double[4] b, double[4] c, double[4,4,1,3] row, double[4,4,3,1] column, double[4,4,5,5] big,
 double[4,4,2,2] even, double k={0.5},
 double[4] gamma, double[4] beta, double[4] mean, double[4] var, double[4,4] m, double[4,4] n, double[4,2] low, double[2,4] up,
 double o={0}, double[4,4,1,1] none, double[1,4,1,1] narrow1, double[4,1,1,1] widen"""

PAD = "pads=[1,1,1,1]"
# name: (body from x (N,4,6,5) to y, operators left, branches that go)
MERGED: dict[str, tuple[str, list[str], list[str]]] = {
    "3x3-and-1x1": (f"a = Conv<{PAD}>(x, w, b)  q = Conv(x, p)  y = Add(a, q)", ["Conv"], ["q"]),
    "1x1-first": (f"q = Conv(x, p)  a = Conv<{PAD}>(x, w, b)  y = Add(q, a)", ["Conv"], ["q"]),
    "difference": (f"a = Conv<{PAD}>(x, w, b)  q = Conv(x, p, c)  y = Sub(q, a)", ["Conv"], ["q"]),
    "identity": (f"a = Conv<{PAD}>(x, w)  y = Add(x, a)", ["Conv"], ["y"]),
    "twice-the-identity": (f"a = Conv<{PAD}>(x, w)  t = Add(x, a)  y = Sum(t, x)", ["Conv"], ["t", "y"]),
    "identity-behind-nodes": (
        f"a = Conv<{PAD}>(x, w)  i = Identity(x)  j = Neg(i)  y = Add(j, a)", ["Conv"], ["i"]),
    "normalization": (
        f"a = Conv<{PAD}>(x, w)  n1 = BatchNormalization(x, gamma, beta, mean, var)  y = Add(a, n1)", ["Conv"], []),
    "scaled-by-a-number": (f"a = Conv<{PAD}>(x, w, b)  s = Mul(a, k)  y = Add(s, x)", ["Conv"], ["y"]),
    "plus-zero": (f"a = Conv<{PAD}>(x, w)  z = Add(a, k)  q = Conv(x, p)  y = Add(z, q)", ["Conv"], ["q"]),
    "asymmetric-kernels": (
        f"""a = Conv<{PAD}>(x, w)  r = Conv<pads=[0,1,0,1]>(x, row)  v = Conv<pads=[1,0,1,0]>(x, column)
          t = Add(r, v)  y = Add(t, a)""", ["Conv"], ["r", "v"]),
    "5x5-and-3x3": (f"a = Conv<pads=[2,2,2,2]>(x, big)  q = Conv<{PAD}>(x, w)  y = Add(a, q)", ["Conv"], ["q"]),
    "strides": (
        f"a = Conv<{PAD}, strides=[2,2]>(x, w)  q = Conv<strides=[2,2]>(x, p)  y = Add(a, q)", ["Conv"], ["q"]),
    "dilation-of-one-tap-does-not-matter": (
        "a = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w)  q = Conv<dilations=[3,1]>(x, p)  y = Add(a, q)", ["Conv"], ["q"]),
    "same-upper-and-explicit": (
        f"""a = Conv<auto_pad="SAME_UPPER">(x, w)  q = Conv<{PAD}>(x, w)  y = Add(a, q)""", ["Conv"], ["q"]),
    "same-lower-even": (
        """a = Conv<auto_pad="SAME_LOWER">(x, even)  q = Conv(x, p)  y = Add(a, q)""", ["Conv"], ["q"]),
    "valid": ("""a = Conv<auto_pad="VALID">(x, w)  q = Conv(x, w)  y = Add(a, q)""", ["Conv"], ["q"]),
    "asymmetric-pads-that-hold-the-other": (
        "a = Conv<pads=[2,2,0,0]>(x, w)  q = Conv(x, p)  y = Add(a, q)", ["Conv"], ["q"]),
    "depthwise": (f"a = Conv<{PAD}, group=4>(x, d)  q = Conv<group=4>(x, e)  t = Add(a, q)  y = Add(t, x)", ["Conv"], ["q", "y"]),
    "groups-that-nest": (f"a = Conv<{PAD}, group=2>(x, h)  q = Conv<group=4>(x, e)  y = Add(a, q)", ["Conv"], ["q"]),
    "depthwise-into-dense": (f"a = Conv<{PAD}>(x, w)  q = Conv<{PAD}, group=4>(x, d)  y = Add(a, q)", ["Conv"], ["q"]),
    "average-that-counts-padding": (
        f"a = Conv<{PAD}>(x, w)  q = AveragePool<kernel_shape=[3,3], {PAD}, count_include_pad=1>(x)  y = Add(a, q)",
        ["Conv"], ["q"]),
    "average-without-padding": (
        "a = Conv(x, w)  q = AveragePool<kernel_shape=[3,3]>(x)  y = Add(a, q)", ["Conv"], ["q"]),
    "pointwise-then-average": (
        f"a = Conv<{PAD}>(x, w)  u = Conv<{PAD}>(x, p, b)  q = AveragePool<kernel_shape=[3,3]>(u)  y = Add(a, q)",
        ["Conv"], ["q"]),
    "another-term-between": (
        f"a = Conv<{PAD}>(x, w)  s = Sigmoid(x)  t = Add(a, s)  q = Conv(x, p)  y = Sub(t, q)", ["Conv", "Sigmoid", "Add"], ["q"]),
    "another-term-is-broadcast": (
        f"a = Conv<{PAD}>(x, w)  s = GlobalMaxPool(x)  t = Add(s, a)  q = Conv(x, p)  y = Add(q, t)", ["Conv", "GlobalMaxPool", "Add"], ["q"]),
    "two-pairs": (
        f"""s = Sigmoid(x)  a = Conv<{PAD}>(x, w)  q = Conv(x, p)  f = Conv<{PAD}>(s, w)  g = Conv(s, p)
          t = Add(a, f)  u = Add(q, g)  y = Add(t, u)""", ["Sigmoid", "Conv", "Conv", "Add"], ["q", "g"]),
    "weight-that-both-read": (f"a = Conv<{PAD}>(x, w)  q = Conv<{PAD}>(x, w, b)  y = Sub(a, q)", ["Conv"], ["q"]),
    "1x1-then-3x3-padded-first": (f"u = Conv<{PAD}>(x, p, b)  y = Conv(u, w)", ["Conv"], ["u"]),
    "1x1-then-3x3-without-bias": (f"u = Conv(x, p)  y = Conv<{PAD}>(u, w, b)", ["Conv"], ["u"]),
    "3x3-then-1x1": (f"u = Conv<{PAD}>(x, w, b)  y = Conv(u, p, c)", ["Conv"], ["y"]),
    "3x3-then-strided-1x1": (f"u = Conv<{PAD}>(x, w, b)  y = Conv<strides=[2,2]>(u, p, c)", ["Conv"], ["y"]),
    "series-beside-a-branch": (f"u = Conv(x, p)  a = Conv<{PAD}>(u, w)  q = Conv<{PAD}>(x, w)  y = Add(a, q)", ["Conv"], ["q"]),
    "run-whose-first-is-added-too": ("u = Conv(x, p)  v = Conv(u, p)  y = Add(v, u)", ["Conv"], ["y", "u"]),
    "matrices": (
        "r = Transpose<perm=[0,2,3,1]>(x)  a = MatMul(r, m)  q = MatMul(r, n)  t = Add(a, q)  y = Sub(t, r)",
        ["Transpose", "MatMul"], ["q", "y"]),
    "low-rank-beside-full-rank": (
        "r = Transpose<perm=[0,2,3,1]>(x)  a = MatMul(r, m)  u = MatMul(r, low)  q = MatMul(u, up)  y = Add(a, q)",
        ["Transpose", "MatMul"], ["q"]),
    "transposed-convolutions": (
        "a = ConvTranspose<strides=[2,2]>(x, w)  q = ConvTranspose<strides=[2,2], output_padding=[0,0], pads=[1,1,1,1]>(x, big)  y = Add(a, q)",
        ["ConvTranspose"], ["a"]),
    "transposed-valid": (
        """a = ConvTranspose<auto_pad="VALID">(x, w)  q = ConvTranspose<pads=[1,1,1,1]>(x, big)  y = Add(a, q)""",
        ["ConvTranspose"], ["a"]),
    "transposed-and-identity": (
        f"a = ConvTranspose<{PAD}>(x, w)  y = Add(a, x)", ["ConvTranspose"], ["y"]),
}  # fmt: skip


def model_of(body: str, **options: int) -> onnx.ModelProto:
    text = f"g (double[N,4,6,5] x) => (double[A,B,C,D] y) <{CONSTANTS}> {{ {body} }}"
    model = build(text, {"none": np.zeros((4, 4, 1, 1))}, **options)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def norms(model: onnx.ModelProto) -> list[str]:
    return [n.output[0] for n in model.graph.node if n.op_type == "BatchNormalization"]


@pytest.mark.parametrize("name", MERGED)
def test_merged(name: str) -> None:
    body, ops, merged = MERGED[name]
    model = model_of(body)
    result = assert_fold(model, folded=norms(model), merged=merged, ops=ops)
    assert result.graph.output[0].name == "y"


# name: (body, operators left, branches that go, normalizations that go)
LEFT: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "constant-zero": ("s = Sigmoid(x)  y = Add(s, o)", ["Sigmoid"], ["y"], []),
    "zero-first-in-a-difference": ("s = Sigmoid(x)  y = Sub(o, s)", ["Sigmoid", "Neg"], ["y"], []),
    "zero-among-several": ("s = Sigmoid(x)  y = Sum(s, o, x)", ["Sigmoid", "Sum"], ["y"], []),
    "operator-of-zeros": ("s = Sigmoid(x)  q = Conv(x, none)  y = Add(s, q)", ["Sigmoid"], ["q"], []),
    "zeros-that-are-broadcast": ("s = GlobalMaxPool(x)  q = Conv(x, none)  y = Add(s, q)", ["GlobalMaxPool", "Conv", "Add"], [], []),
    "residual-of-a-normalization": (
        "s = Sigmoid(x)  n1 = BatchNormalization(s, gamma, beta, mean, var)  t = Add(n1, s)  y = Sigmoid(t)",
        ["Sigmoid", "BatchNormalization", "Sigmoid"], ["t"], []),
    "two-normalizations": (
        """s = Sigmoid(x)  n1 = BatchNormalization(s, gamma, beta, mean, var)  n2 = BatchNormalization(s, beta, gamma, mean, var)
           t = Sub(n1, n2)  y = Sigmoid(t)""",
        ["Sigmoid", "BatchNormalization", "Sigmoid"], [], ["n2"]),
    "normalizations-and-another-term": (
        """s = Sigmoid(x)  n1 = BatchNormalization(s, gamma, beta, mean, var)  u = Add(n1, x)
           t = Sub(u, s)  y = Sigmoid(t)""",
        ["Sigmoid", "BatchNormalization", "Add", "Sigmoid"], ["t"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left(name: str) -> None:
    body, ops, merged, folded = LEFT[name]
    model = model_of(body)
    kept = {"n1": "nonlinear"} if "n1 =" in body else {}
    assert_fold(model, merged=merged, ops=ops, folded=folded, kept=kept)


# name: (body, reason where it is a branch that stays)
APART: dict[str, tuple[str, dict[str, str]]] = {
    "strides-that-differ": (
        "s = GlobalMaxPool(x)  a = Conv<strides=[2,2]>(s, p)  q = Conv(s, p)  y = Add(a, q)", {"y": "padding_shift"}),
    "branch-read-elsewhere": (f"a = Conv<{PAD}>(x, w)  q = Conv<{PAD}>(x, w)  t = Add(a, q)  y = Mul(t, a)", {}),
    "branch-whose-shape-is-read-only-here": (f"a = Conv<{PAD}>(x, w)  r = Relu(a)  q = Conv(x, p)  y = Add(r, q)", {}),
    "another-input": (f"s = Sigmoid(x)  a = Conv<{PAD}>(x, w)  q = Conv(s, p)  y = Add(a, q)", {}),
    "padding-before-a-normalization": (
        f"n1 = BatchNormalization(x, gamma, beta, mean, var)  a = Conv<{PAD}>(n1, w)  q = Conv(x, p)  y = Add(a, q)", {"y": "padding_shift"}),
    "dilations-that-differ": (
        f"a = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w)  q = Conv<{PAD}>(x, w)  y = Add(a, q)", {"y": "no_gain"}),
    "average-that-does-not-count-padding": (
        f"a = Conv<{PAD}>(x, w)  q = AveragePool<kernel_shape=[3,3], {PAD}>(x)  y = Add(a, q)", {}),
    "average-that-may-be-cut": (
        "s = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)  a = Conv<strides=[2,2], pads=[0,0,0,1]>(x, even)  y = Add(a, s)", {}),
    "maximum": (f"a = Conv<{PAD}>(x, w)  q = MaxPool<kernel_shape=[3,3], {PAD}>(x)  y = Add(a, q)", {}),
    "broadcast-of-one-channel": (
        "s = ReduceMean<axes=[1]>(x)  a = Conv(s, e)  y = Add(a, s)", {"y": "not_per_channel"}),
    "broadcast-of-one-position": ("s = GlobalMaxPool(x)  a = Conv<pads=[1,1,1,1]>(s, p)  y = Add(a, s)", {"y": "padding_shift"}),
    "dense-costs-more-than-its-parts": (
        f"a = Conv<{PAD}, group=4>(x, d)  q = Conv(x, p)  y = Add(a, q)", {"y": "no_gain"}),
    "1x1-with-a-bias-then-padded": (f"u = Conv(x, p, b)  y = Conv<{PAD}>(u, w)", {"y": "padding_shift"}),
    "3x3-then-padded-3x3": (f"u = Conv<{PAD}>(x, w)  y = Conv<{PAD}>(u, w)", {"y": "padding_shift"}),
    "3x3-then-padded-1x1": (f"u = Conv<{PAD}>(x, w)  y = Conv<{PAD}>(u, p)", {"y": "padding_shift"}),
    "bottleneck": ("u = Conv(x, narrow1)  y = Conv(u, widen)", {"y": "no_gain"}),
    "depthwise-then-pointwise": (f"u = Conv<{PAD}, group=4>(x, d)  y = Conv(u, p)", {"y": "no_gain"}),
    "output-shape-given": (
        "a = ConvTranspose<strides=[2,2], output_shape=[13,11]>(x, w)  q = ConvTranspose<strides=[2,2]>(x, w)  y = Add(a, q)", {}),
    "sizes-that-only-agree": ("s = Transpose<perm=[0,1,3,2]>(x)  r = Transpose<perm=[0,1,3,2]>(s)  a = Conv(r, p)  y = Add(a, x)", {}),
    "weights-that-are-computed": (f"t = ReduceMax<keepdims=0>(x)  u = Mul(p, t)  a = Conv(x, u)  q = Conv<{PAD}>(x, w)  y = Add(a, q)", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_apart(name: str) -> None:
    body, apart = APART[name]
    model = model_of(body)
    before = [node.op_type for node in model.graph.node]
    kept = {"n1": "padding_shift"} if "n1 =" in body else {}
    assert_fold(model, kept=kept, merged=[], apart=apart, ops=before)


def test_groups_that_do_not_nest() -> None:
    """Two and three groups have only one in common: what pays more is merged first."""
    head = "g (double[N,6,5,4] x) => (double[N,6,5,4] y) <double[6,3,3,3] w2, double[6,2,3,3] w3"
    two = f"a = Conv<{PAD}, group=2>(x, w2)  q = Conv<{PAD}, group=3>(x, w3)"
    model = build(f"{head}> {{ {two}  y = Add(a, q) }}")
    assert_fold(model, merged=[], apart={"y": "no_gain"})
    three = f"{two}  t = Sub(a, q)  r = Conv<{PAD}, group=3>(x, v3)  y = Add(t, r)"
    model = build(f"{head}, double[6,2,3,3] v3> {{ {three} }}")
    assert_fold(model, merged=["r"], apart={"t": "no_gain"}, ops=["Conv", "Conv", "Sub"])
    dense = f"{two}  t = Sub(a, q)  s = Conv<{PAD}>(x, v1)  y = Add(t, s)"
    model = build(f"{head}, double[6,6,3,3] v1> {{ {dense} }}")
    assert_fold(model, merged=["a", "q"], ops=["Conv"])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_any_number_of_axes(axes: int, groups: int) -> None:
    lengths = "6,5,4"[: 2 * axes - 1]
    kernel, ones = ("3,3,3"[: 2 * axes - 1], "1,1,1"[: 2 * axes - 1])
    pads = ",".join("1" * 2 * axes)
    model = build(
        f"""g (double[N,4,{lengths}] x) => (double[N,4,{lengths}] y)
        <double[4,{4 // groups},{kernel}] w, double[4,1,{ones}] e, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
        {{ a = Conv<pads=[{pads}], group={groups}>(x, w)  q = Conv<group=4>(x, e)  t = Sub(a, q)
          n1 = BatchNormalization(x, gamma, beta, mean, var)  y = Add(t, n1) }}"""
    )
    assert_fold(model, folded=["n1"], merged=["q"], ops=["Conv"])


OUTSIDE = {
    "weight-that-a-caller-may-replace": ("double[N,4,6,5] x, double[4,4,1,1] p", "", ""),
    "branch-that-is-an-output": ("double[N,4,6,5] x", ", double[N,4,6,5] q", ""),
    "sum-that-is-an-output": ("double[N,4,6,5] x", ", double[N,4,6,5] t", ""),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_apart_because_of_the_outside(name: str) -> None:
    inputs, outputs, _ = OUTSIDE[name]
    model = build(
        f"""g ({inputs}) => (double[N,4,6,5] y{outputs})
        <double[4,4,3,3] w, double[4,4,1,1] p, double[4,4,1,1] p2>
        {{ a = Conv<pads=[1,1,1,1]>(x, w)  q = Conv(x, p)  t = Add(a, q)  y = Sub(t, z)  z = Conv(x, p2) }}""".replace(
            "y = Sub(t, z)  z = Conv(x, p2)", "z = Conv(x, p2)  y = Sub(t, z)"
        )
    )
    if name.startswith("weight"):
        weight = numpy_helper.from_array(np.ones((4, 4, 1, 1)), "p")
        model.graph.initializer.append(weight)
    merged = {"weight": ["z"], "branch": ["z"], "sum-th": ["q"]}[name[:6]]
    apart = {"sum-th": {}}.get(name[:6], {})
    result = assert_fold(model, merged=merged, apart=apart)
    ops = [node.op_type for node in result.graph.node]
    assert ops.count("Conv") == 2


def test_captured_branch_stays() -> None:
    model = build("""g (double[N,4,6,5] x, bool f) => (double[N,4,6,5] y, double[N,4,6,5] r)
        <double[4,4,3,3] w, double[4,4,1,1] p>
        { a = Conv<pads=[1,1,1,1]>(x, w)  q = Conv(x, p)  y = Add(a, q)
          r = If(f)<then_branch = t () => (double[N,4,6,5] u) { u = Neg(q) },
                    else_branch = e () => (double[N,4,6,5] v) { v = Neg(x) }> }""")
    assert_fold(model, merged=[])


def test_merged_in_a_body_that_captures_its_source() -> None:
    model = build("""g (double[N,4,6,5] x, bool f) => (double[N,4,6,5] y)
        <double[4,4,3,3] w, double[4,4,1,1] p>
        { r = Relu(x)
          y = If(f)<then_branch = t () => (double[N,4,6,5] u) { a = Conv<pads=[1,1,1,1]>(r, w)  q = Conv(r, p)  s = Add(a, q)  u = Add(s, r) },
                    else_branch = e () => (double[N,4,6,5] v) { v = Neg(r) }> }""")
    result = assert_fold(model, merged=["q", "u"])
    (then,) = [a.g for a in result.graph.node[1].attribute if a.name == "then_branch"]
    assert [node.op_type for node in then.node] == ["Conv"]


def test_figures_of_a_merge_that_does_not_pay() -> None:
    _, report = fold(model_of("u = Conv(x, narrow1)  y = Conv(u, widen)"))
    (verdict,) = branches(report)
    assert verdict.detail == (
        'merging at "y" would take 16 multiply-adds per position and 128 weight bytes instead of 8 and 64'
    )


def branches(report: FoldReport) -> list[Verdict]:
    return [verdict for verdict in report.sites if verdict.kind == "branch"]


def test_switched_off_and_excluded() -> None:
    model = model_of(f"a = Conv<{PAD}>(x, w)  q = Conv(x, p)  y = Add(a, q)")
    assert_fold(model, merged=[], merge=False, ops=["Conv", "Conv", "Add"])
    assert_fold(model, merged=[], apart={"y": "excluded"}, keep=("q",), ops=["Conv", "Conv", "Add"])


def test_a_fold_frees_a_merge_and_a_merge_a_fold() -> None:
    model = model_of(
        f"""a = Conv<{PAD}>(x, w)  b1 = BatchNormalization(a, gamma, beta, mean, var)  t = Add(b1, x)
        n1 = BatchNormalization(t, gamma, mean, beta, var)  y = Conv(n1, p)"""
    )
    result = assert_fold(model, folded=["b1", "n1"], merged=["t", "y"], ops=["Conv"])
    assert len(result.graph.initializer) == 2


def test_the_largest_convolution_keeps_its_name_and_weight_and_the_sum_its_name() -> None:
    model = model_of(
        f"q = Conv(x, p)  [big] a = Conv<{PAD}>(x, w)  [sum] t = Add(q, a)  y = Relu(t)"
    )
    result = assert_fold(model, merged=["q"], ops=["Conv", "Relu"])
    conv = result.graph.node[0]
    assert (conv.name, list(conv.input), list(conv.output)) == ("big", ["x", "w"], ["t"])


def test_no_old_name_gets_another_meaning() -> None:
    model = model_of(
        f"""a = Conv<{PAD}>(x, w)  s = Sigmoid(x)  t = Add(a, s)  q = Conv(x, p)  u = Add(t, q)
        v = Tanh(x)  y = Mul(u, v)"""
    )
    result = assert_fold(model, merged=["q"])
    names = {name for node in result.graph.node for name in node.output}
    assert {"s", "u", "v", "y"} < names
    assert not {"a", "t", "q"} & names


@pytest.mark.parametrize("kind", ["float", "float16", "bfloat16"])
def test_rounded_once(kind: str) -> None:
    """Three branches, each with a normalization: the weight is the float64 one, rounded."""
    opset, ir = (22, 10) if kind == "bfloat16" else (17, 8)
    vectors = ", ".join(f"{kind}[2] {name}{i}" for i in range(3) for name in ("g", "t", "m", "var"))
    model = build(
        f"""g ({kind}[N,2,6,5] x) => ({kind}[N,2,6,5] y) <{kind}[2,2,3,3] w, {kind}[2,2,1,1] p, {vectors}>
        {{ a = Conv<pads=[1,1,1,1]>(x, w)  a1 = BatchNormalization<epsilon=0.0>(a, g0, t0, m0, var0)
          q = Conv(x, p)  q1 = BatchNormalization<epsilon=0.0>(q, g1, t1, m1, var1)
          i1 = BatchNormalization<epsilon=0.0>(x, g2, t2, m2, var2)  s = Add(a1, q1)  y = Add(s, i1) }}""",
        opset=opset, ir=ir,
    )  # fmt: skip
    old = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    scale = [old[f"g{i}"] / np.sqrt(old[f"var{i}"]) for i in range(3)]
    weight = old["w"] * scale[0].reshape(-1, 1, 1, 1)
    weight[:, :, 1:2, 1:2] += old["p"] * scale[1].reshape(-1, 1, 1, 1)
    weight[:, :, 1, 1] += np.diag(scale[2])
    bias = sum((-old[f"m{i}"]) * scale[i] + old[f"t{i}"] for i in range(3))
    result, _ = fold(model)
    conv = result.graph.node[0]
    found = {t.name: t for t in result.graph.initializer}
    for name, exact in zip(conv.input[1:], (weight, bias), strict=True):
        tensor = found[name]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        expected = round_to(exact, dtype)
        assert (
            numpy_helper.to_array(tensor).astype(np.float64).tolist()
            == expected.astype(np.float64).tolist()
        )


def test_weights_that_overflow_stay_apart() -> None:
    model = build(
        """g (float16[N,1,3] x) => (float16[N,1,3] y) <float16[1,1,1] w, float16[1,1,1] v>
        { a = Conv(x, w)  q = Conv(x, v)  y = Add(a, q) }""",
        {"w": 6e4, "v": 6e4},
    )
    assert_fold(model, merged=[], apart={"y": "overflow"}, run=False)


def test_weights_that_are_not_finite_stay_apart() -> None:
    model = build(
        f"""g (float[N,1,6,5] x) => (float[N,1,6,5] y) <float[1,1,3,3] w, float[1,1,1,1] p>
        {{ a = Conv<{PAD}>(x, w)  q = Conv(x, p)  y = Add(a, q) }}""",
        {"w": [np.nan] + [1] * 8},
    )
    assert_fold(model, merged=[], apart={"y": "overflow"})


def test_equal_merged_weights_are_kept_once() -> None:
    """The same block twice, with the same weights: one merged weight."""
    model = build(f"""g (double[N,4,6,5] x) => (double[N,4,6,5] y) <double[4,4,3,3] w, double[4,4,1,1] p>
        {{ a = Conv<{PAD}>(x, w)  q = Conv(x, p)  t = Add(a, q)  r = Relu(t)
          c = Conv<{PAD}>(r, w)  d = Conv(r, p)  u = Add(c, d)  y = Relu(u) }}""")
    result = assert_fold(model, merged=["q", "d"], ops=["Conv", "Relu", "Conv", "Relu"])
    assert len(result.graph.initializer) == 1


def test_quantized_weights_stay_apart() -> None:
    model = build(
        f"""g (float[N,4,6,5] x) => (float[N,4,6,5] y) <int8[4,4,3,3] w, float[4] s, int8[4] z, float[4,4,1,1] p>
        {{ t = DequantizeLinear<axis=0>(w, s, z)  a = Conv<{PAD}>(x, t)  q = Conv(x, p)  y = Add(a, q) }}""",
        {"w": np.arange(144) % 100, "z": [0] * 4},
    )
    assert_fold(model, merged=[], ops=["DequantizeLinear", "Conv", "Conv", "Add"])


def test_bias_that_counts_for_nothing_fits_the_new_shape() -> None:
    model = build("""g (float[N,3] x) => (float[N,2] y) <float[3,5] v, float[5] c, float[5,2] w>
        { u = Gemm<beta=0.0>(x, v, c)  y = Gemm(u, w) }""")
    assert_fold(model, merged=["y"], ops=["Gemm"])


def test_old_addition_that_broadcasts_by_attribute() -> None:
    model = build(
        f"""g (float[N,4,6,5] x) => (float[N,4,6,5] y) <float[4,4,3,3] w, float[4,4,1,1] p>
        {{ a = Conv<{PAD}>(x, w)  q = Conv(x, p)  y = Add<broadcast=1>(a, q) }}""",
        opset=6,
    )
    assert_fold(model, merged=[], ops=["Conv", "Conv", "Add"])
