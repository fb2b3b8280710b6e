"""A shift in front of zero padding, carried by a channel of ones."""

from __future__ import annotations

import pytest

from tests.support import assert_fold, build, fold

NORM = "double[4] gamma, double[4] beta, double[4] mean, double[4] var"
CONSTANTS = f"double[4,3,3,3] w, double[4] b, double[2,4,3,3] v, double[2] c, {NORM}, double[2,2,3,3] g, double[4,1,1] k, double six={{6}}, double zero={{0}}, double half={{0.5}}"
NEXT = "n = BatchNormalization(r, gamma, beta, mean, var)"

FOLDED = {
    "relu": f"a = Conv(x, w)  r = Relu(a)  {NEXT}  y = Conv<pads=[1,1,1,1]>(n, v)",
    "biases": f"a = Conv(x, w, b)  r = Relu(a)  {NEXT}  y = Conv<pads=[1,1,1,1]>(n, v, c)",
    "maximum-that-pads": f"a = Conv(x, w)  s = Relu(a)  r = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(s)  {NEXT}  y = Conv<pads=[2,0,1,1], strides=[2,1]>(n, v)",
    "relu6": f"a = Conv(x, w)  r = Clip(a, zero, six)  {NEXT}  y = Conv<pads=[1,1,1,1], dilations=[2,2]>(n, v)",
    "same-padding": f'a = Conv(x, w)  r = LeakyRelu(a)  {NEXT}  y = Conv<auto_pad="SAME_UPPER">(n, v)',
    "several-nodes": f"a = Conv(x, w)  s = Abs(a)  r = Relu(s)  {NEXT}  m = Mul(n, k)  y = Conv<pads=[1,1,1,1]>(m, v)",
}
KEPT = {
    "sigmoid": f"a = Conv(x, w)  r = Sigmoid(a)  {NEXT}  y = Conv<pads=[1,1,1,1]>(n, v)",
    "clip-below-one": f"a = Conv(x, w)  r = Clip(a, zero, half)  {NEXT}  y = Conv<pads=[1,1,1,1]>(n, v)",
    "average": f"a = Conv(x, w)  s = Relu(a)  r = AveragePool<kernel_shape=[2,2]>(s)  {NEXT}  y = Conv<pads=[1,1,1,1]>(n, v)",
    "groups-behind": f"a = Conv(x, w)  r = Relu(a)  {NEXT}  y = Conv<pads=[1,1,1,1], group=2>(n, g)",
    "read-by-another": f"a = Conv(x, w)  r = Relu(a)  {NEXT}  p = Conv<pads=[1,1,1,1]>(n, v)  q = Conv<pads=[1,1,1,1]>(r, v)  y = Mul(p, q)",
    "two-partners": f"a = Conv(x, w)  r = Relu(a)  {NEXT}  p = Conv<pads=[1,1,1,1]>(n, v)  q = Conv(n, v)  s = GlobalMaxPool(q)  y = Mul(p, s)",
}  # fmt: skip


def model_of(body: str):  # type: ignore[no-untyped-def]
    model = build(f"g (double[N,3,8,7] x) => (double[N,2,P,Q] y) <{CONSTANTS}> {{ {body} }}")
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name: str) -> None:
    model = model_of(FOLDED[name])
    sites = ["n", "m"] if "Mul" in FOLDED[name] else ["n"]
    result = assert_fold(model, folded=sites, ones_channel=True)
    first, last = result.graph.node[0], result.graph.node[-1]
    shapes = {tensor.name: list(tensor.dims) for tensor in result.graph.initializer}
    assert shapes[first.input[1]][0] == 5
    assert shapes[last.input[1]][1] == 5
    assert "a" not in {name for node in result.graph.node for name in node.output}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    _, report = fold(model_of(KEPT[name]))
    assert_fold(model_of(KEPT[name]), kept={"n": str(report.kept[0].reason)}, ones_channel=True)


@pytest.mark.parametrize("name", FOLDED)
def test_only_on_request(name: str) -> None:
    result, _ = fold(model_of(FOLDED[name]))
    assert "BatchNormalization" in [node.op_type for node in result.graph.node]
