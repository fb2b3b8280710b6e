"""Edges of pools, resizing, reductions and padding: where what they let pass changes.

And of an affine that reaches a node as a parameter.
"""

from __future__ import annotations

import pytest

from tests.graph.edge_graphs import ALIKE, LIN, P4, V, behind, in_front
from tests.support import assert_fold, build, fold


def computed_axes(nodes: str, weight: str = V) -> str:
    """Axes a that are 2 and 3, whatever z is, and ``nodes``."""
    return f"""g (float[N,4,5,6] x, int64[2] z) => (float[?,?,?,?] y)
        <int64[2] zero={{0,0}}, int64[2] last={{2,3}}, {weight}, {P4}>
        {{ o = Mul(z, zero)  a = Add(o, last)  {nodes} }}"""


def scales_of(read: str) -> str:
    """A batch normalization n that is 2 everywhere, and a resizing of ``read`` with that."""
    return f"""g (float[1,2] x) => (float[?,3] y)
        <int64[1] two={{2}}, float[4,3] v, float[2] zero={{0,0}}, float[2] beta={{2,2}}, float[2] var>
        {{ n = BatchNormalization(x, zero, beta, zero, var)  s = Reshape(n, two)
           p = Resize<mode="nearest">({read}, "", s)  y = MatMul(p, v) }}"""


def padded_with(value: float, kind: str) -> str:
    """A Pad with ``value`` as an attribute, and a normalization that makes 2 (value - 2) + 1."""
    return f"""g ({kind}[N,3,5] x) => ({kind}[N,4,7] y)
        <{kind}[4,3,1] w, {kind}[4] two={{2,2,2,2}}, {kind}[4] one={{1,1,1,1}}>
        {{ c = Conv(x, w)  p = Pad<pads=[0,0,1,0,0,1], value={value}>(c)
           y = BatchNormalization<epsilon=0.0>(p, two, one, two, one) }}"""


# name: (graph, opset, folded, kept)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    # channels that keep their length of 4, and yet move
    "upsample-of-opset-7-by-1.2": (in_front("Upsample<scales=[1.0,1.2,1.0,1.0]>(c)"), 7, [], {"y": "not_per_channel"}),
    "upsample-of-opset-9-by-1.2": (in_front("Upsample(c, s)", "float[4] s={1,1.2,1,1}"), 9, [], {"y": "not_per_channel"}),
    "resize-of-opset-10-by-1.2": (in_front("Resize(c, s)", "float[4] s={1,1.2,1,1}"), 10, [], {"y": "not_per_channel"}),
    "resize-of-opset-11": (in_front("Resize(c, roi, s)", "float[8] roi, float[4] s={1,1,2,2}"), 11, ["y"], {}),
    "mean-of-an-affine-across-batch-and-channels": ("g (float[4,5,6] x) => (float[3,20] y) <float[4,1,1] k, int64[4] s={2,2,5,6}, int64[2] t={4,20}, float[3,4] w> { m = Mul(x, k)  r = Reshape(m, s)  p = AveragePool<kernel_shape=[2,2]>(r)  q = Reshape(p, t)  y = MatMul(w, q) }", 13, ["m"], {}),
    "maximum-of-an-affine-along-positions": ("g (float[N,3,5,6] x) => (float[N,4,5,5] y) <float[4,3,1,1] w, float[5] k> { c = Conv(x, w)  p = MaxPool<kernel_shape=[1,2]>(c)  y = Mul(p, k) }", 13, [], {"y": "not_per_channel"}),
    "dropout-behind-as-its-ratio": (behind("q = ReduceMean<keepdims=0>(n)  p = Dropout(x, q)  y = Conv(p, v)", V, "float[4] gamma={0,0,0,0}, float[4] beta={0.5,0.5,0.5,0.5}, float[4] mean={0,0,0,0}, float[4] var"), 13, [], {"n": "graph_input"}),
    "resize-behind-as-its-scales": (scales_of("x"), 13, [], {"n": "graph_input"}),
    "resize-behind-as-itself-and-its-scales": (scales_of("n"), 13, [], {"n": "graph_input"}),
    "mean-over-computed-axes-in-front": (computed_axes("c = Conv(x, w)  p = ReduceMean(c, a)  y = BatchNormalization(p, gamma, beta, mean, var)", "float[4,4,1,1] w"), 18, [], {"y": "unknown_shape"}),
    "mean-over-computed-axes-behind": (computed_axes("n = BatchNormalization(x, gamma, beta, mean, var)  p = ReduceMean(n, a)  y = Conv(p, v)"), 18, [], {"n": "unknown_shape"}),
    "sum-behind": (behind("p = ReduceSum<keepdims=1>(n, a)  y = Conv(p, v)", f"int64[2] a={{2,3}}, {V}"), 13, [], {"n": "graph_input"}),
    "sum-behind-of-a-scale": (behind("p = ReduceSum(n, a)  y = Conv(p, v)", f"int64[2] a={{2,3}}, {V}", LIN), 13, ["n"], {}),
    "pad-of-a-last-channel-in-front": ("g (float[N,3,5] x) => (float[N,5,5] y) <float[4,3,1] w, int64[6] s={0,0,0,0,1,0}, float[5] g5, float[5] b5, float[5] m5, float[5] var5> { c = Conv(x, w)  p = Pad(c, s)  y = BatchNormalization(p, g5, b5, m5, var5) }", 13, ["y"], {}),
    "pad-to-two-channels-in-front": ("g (float[N,3,5] x) => (float[N,2,5] y) <float[1,3,1] w, int64[6] s={0,1,0,0,0,0}, float[2] g2, float[2] b2, float[2] m2, float[2] var2> { c = Conv(x, w)  p = Pad(c, s)  y = BatchNormalization(p, g2, b2, m2, var2) }", 13, ["y"], {}),
    "pad-behind-with-a-computed-value": (behind("q = ReduceMean<keepdims=0>(x)  p = Pad(n, s, q)  y = Conv(p, v)", f"int64[8] s={{0,0,1,0,0,0,0,1}}, {V}"), 13, [], {"n": "dynamic_weight"}),
    "pad-behind-as-its-value": (behind("q = ReduceMean<keepdims=0>(n)  p = Pad(x, s, q)  y = Conv(p, v)", f"int64[8] s={{0,0,1,0,0,0,0,1}}, {V}", ALIKE), 13, [], {"n": "graph_input"}),
    "pad-behind-as-itself-and-its-value": (behind('q = ReduceMean<keepdims=0>(n)  p = Pad<mode="edge">(n, s, q)  y = Conv(p, v)', f"int64[8] s={{0,0,1,0,0,0,0,1}}, {V}", ALIKE), 13, [], {"n": "graph_input"}),
    "pad-value-of-opset-10-rounded": (padded_with(0.1, "float"), 10, ["y"], {}),
    "pad-value-of-opset-10-in-double": (padded_with(0.5, "double"), 10, ["y"], {}),
    "pad-value-of-opset-10-that-no-float32-is": (padded_with(0.1, "double"), 10, [], {"y": "overflow"}),
}  # fmt: skip


# what no runtime takes: (graph, opset)
ILLEGAL = {
    "upsample-of-opset-13-by-1.2": (in_front("Upsample(c, s)", "float[4] s={1,1.2,1,1}, float[N,4,5,6] p"), 13),
    "mean-of-opset-18-over-axes-of-an-attribute": (in_front("ReduceMean<axes=[2,3]>(c)"), 18),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name: str) -> None:
    text, opset = ILLEGAL[name]
    _, report = fold(build(text, opset=opset))
    assert [verdict.reason for verdict in report.sites] == ["not_per_channel"]


@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, folded, kept = CASES[name]
    assert_fold(build(text, opset=opset), folded=folded, kept=kept, sizes={"N": 3})


def test_pad_that_keeps_its_value_is_not_written() -> None:
    text = in_front("Pad(c, s)", "int64[8] s={0,0,1,0,0,0,0,1}", LIN)
    result = assert_fold(build(text), folded=["y"], ops=["Conv", "Pad"])
    assert len(result.graph.node[1].input) == 2


def test_pad_value_beyond_float16() -> None:
    text = padded_with(50000.0, "float16").replace("={2,2,2,2}", "").replace("={1,1,1,1}", "")
    model = build(text, {"two": [2] * 4, "one": [1] * 4}, opset=10)
    assert_fold(model, kept={"y": "overflow"}, sizes={"N": 3})


def untyped(node: str, constants: str, shape: str = "?,4,?,?") -> str:
    """As ``in_front``, where neither type nor shape is inferred."""
    return f"""<ir_version: 8, opset_import: ["" : 13, "other" : 1]>
        g (float[N,3,5,6] x) => (float[{shape}] y)
        <float[4,3,1,1] w, {constants}>
        {{ q = other.Unknown(x)  c = Conv(q, w)  p = {node}
           y = BatchNormalization(p, gamma, beta, mean, var) }}"""


PADS = f"int64[8] s={{0,0,1,0,0,0,0,1}}, {ALIKE}"


def test_pad_of_unknown_type_takes_that_of_its_value() -> None:
    model = build(untyped("Pad(c, s, f)", f"float f={{0.5}}, {PADS}"))
    assert_fold(model, folded=["y"], run=False)


def test_pad_of_unknown_type_without_a_value() -> None:
    assert_fold(build(untyped("Pad(c, s)", PADS)), kept={"y": "overflow"}, run=False)


def test_mean_of_unknown_rank() -> None:
    text = untyped("ReduceMean<axes=[2,3]>(q)", P4)
    assert_fold(build(text), kept={"y": "unknown_shape"}, run=False)


def test_mean_whose_result_is_declared_of_another_rank() -> None:
    text = untyped("ReduceMean<axes=[2], keepdims=0>(c)", f"{P4}, float[N,4] p", "?,4")
    assert_fold(build(text), kept={"y": "unknown_shape"}, run=False)


def test_mean_over_the_channels_that_are_normalized() -> None:
    text = untyped("ReduceMean<axes=[1]>(c)", P4)
    assert_fold(build(text), kept={"y": "not_per_channel"}, run=False)


def test_mean_over_axes_that_are_no_integers() -> None:
    _, report = fold(build(behind("y = ReduceMean(x, n)"), opset=18))
    assert [verdict.reason for verdict in report.sites] == ["unknown_shape"]


def test_upsample_of_opset_6_has_other_attributes() -> None:
    text = in_front("Upsample<height_scale=2.0, width_scale=2.0>(c)").replace(
        "BatchNormalization(", "BatchNormalization<is_test=1>("
    )
    assert_fold(build(text, opset=6), kept={"y": "not_per_channel"}, run=False)
