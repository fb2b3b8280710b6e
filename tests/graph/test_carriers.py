"""One case for each carrier: what passes it, and what does not.

``{body}`` stands between a Conv (backward) or in front of a consumer (forward). The data is float64
so that a fold which is right agrees to eleven digits.
"""

from __future__ import annotations

import pytest
from onnx import ModelProto

from tests.support import assert_fold, build, fold

BN = "BatchNormalization"

POSITIVE = {"gamma": [1.0, 2.0, 0.5, 3.0], "beta": [0.0] * 4, "mean": [0.0] * 4}
POSITIVE_SHIFT = {"gamma": [1.0, 2.0, 0.5, 3.0]}
NEGATIVE = {"gamma": [1.0, -2.0, 0.5, 3.0], "beta": [0.0] * 4, "mean": [0.0] * 4}
LINEAR = {"beta": [0.0] * 4, "mean": [0.0] * 4}
NEUTRAL_SCALE = {"gamma": [1.0] * 4, "var": [1.0] * 4, "epsilon": 0.0}
UNIFORM = {"gamma": [2.0] * 4, "beta": [0.5] * 4, "mean": [1.0] * 4, "var": [1.5] * 4}
LOWER = {"beta": [1.0, 2.0, 3.0, 4.0], "mean": [0.0] * 4}

# Conv to 4 channels of 6 x 6 -> c; body: c -> p; BN over p -> y
BACKWARD: dict[str, tuple[str, dict[str, object], str | None]] = {
    "transpose": ("p = Transpose<perm=[0,1,3,2]>(c)", {}, None),
    "transpose-away-and-back": ("t = Transpose<perm=[2,1,3,0]>(c)  p = Transpose<perm=[3,1,0,2]>(t)", {}, None),
    "transpose-channel-elsewhere": ("a = AveragePool<kernel_shape=[3,3]>(c)  p = Transpose<perm=[0,2,1,3]>(a)", {}, "not_per_channel"),
    "squeeze-unsqueeze": ("u = Unsqueeze(c, one)  p = Squeeze(u, one)", {}, None),
    "reshape-and-back": ("r = Reshape(c, flat)  p = Reshape(r, image)", {}, None),
    "reshape-regroups-positions": ("p = Reshape(c, mixed)", {}, None),
    "flatten-merges-an-unknown-batch": ("f = Flatten<axis=2>(c)  s = Shape(c)  p = Reshape(f, s)", {}, "unknown_shape"),
    "channel-shuffle": (
        "r = Reshape(c, grouped)  t = Transpose<perm=[0,2,1,3,4]>(r)  p = Reshape(t, image)", {}, None),
    "expand": ("p = Expand(c, ones)", {}, None),
    "concat-with-itself": ("a, b = Split<axis=1>(c, halves)  p = Concat<axis=1>(b, a)", {}, None),
    "concat-two-convs": ("d = Conv(x, w2)  s = Slice(c, zero, two, one)  e = Slice(d, zero, two, one)  p = Concat<axis=1>(s, e)", {}, None),
    "concat-along-width": ("d = Conv(x, w2)  p = Concat<axis=3>(c, d)", {}, None),
    "concat-with-a-constant": ("s = Slice(c, zero, two, one)  p = Concat<axis=1>(s, plane)", {}, None),
    "concat-with-an-input": ("s = Slice(c, zero, two, one)  e = Slice(z, zero, two, one)  p = Concat<axis=1>(s, e)", {}, "graph_input"),
    "slice-channels": ("d = Concat<axis=1>(c, c)  p = Slice(d, two, six, one)", {}, "fan_out"),
    "slice-positions": ("p = Slice(c, one, five, three)", {}, None),
    "gather-permutes": ("p = Gather<axis=1>(c, permutation)", {}, None),
    "gather-repeats": ("p = Gather<axis=1>(c, repetition)", {}, "fan_out"),
    "pad-reflect": ("p = Pad<mode=\"reflect\">(c, pads)", {}, None),
    "pad-edge": ("p = Pad<mode=\"edge\">(c, pads)", {}, None),
    "pad-zero-linear": ("p = Pad(c, pads)", LINEAR, None),
    "pad-zero-shifted": ("p = Pad(c, pads)", {}, "padding_shift"),
    "pad-value-becomes-another": ("p = Pad(c, pads, half)", UNIFORM, None),
    "average-pool": ("p = AveragePool<kernel_shape=[2,2]>(c)", {}, None),
    "average-pool-padded": ("p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(c)", {}, None),
    "average-pool-counts-padding": (
        "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(c)", {}, "padding_shift"),
    "average-pool-counts-padding-linear": (
        "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(c)", LINEAR, None),
    "global-average-pool": ("p = GlobalAveragePool(c)", {}, None),
    "max-pool": ("p = MaxPool<kernel_shape=[2,2]>(c)", POSITIVE_SHIFT, None),
    "max-pool-negative": ("p = MaxPool<kernel_shape=[2,2]>(c)", NEGATIVE, "sign"),
    "max-pool-with-indices": ("p, i = MaxPool<kernel_shape=[2,2]>(c)", POSITIVE_SHIFT, "nonlinear"),
    "global-max-pool": ("p = GlobalMaxPool(c)", POSITIVE_SHIFT, None),
    "reduce-mean": ("p = ReduceMean<axes=[2,3]>(c)", {}, None),
    "reduce-mean-drops-axes": ("p = ReduceMean<axes=[2,3], keepdims=0>(c)", {}, None),
    "reduce-max": ("p = ReduceMax<axes=[-1]>(c)", POSITIVE_SHIFT, None),
    "reduce-sum-linear": ("p = ReduceSum(c, three)", LINEAR, None),
    "reduce-sum-shifted": ("p = ReduceSum(c, three)", {}, "nonlinear"),
    "resize": ("p = Resize<mode=\"linear\">(c, , scales)", {}, None),
    "resize-extrapolates": (
        "p = Resize<mode=\"linear\", coordinate_transformation_mode=\"tf_crop_and_resize\">(c, roi, scales)",
        {}, "padding_shift"),
    "relu-linear": ("p = Relu(c)", POSITIVE, None),
    "relu-shifted": ("p = Relu(c)", POSITIVE_SHIFT, "nonlinear"),
    "relu-negative": ("p = Relu(c)", NEGATIVE, "sign"),
    "leaky-relu": ("p = LeakyRelu(c)", POSITIVE, None),
    "prelu": ("p = PRelu(c, slope)", POSITIVE, None),
    "abs": ("p = Abs(c)", POSITIVE, None),
    "sigmoid": ("p = Sigmoid(c)", POSITIVE, "nonlinear"),
    "add-two-convs": ("d = Conv(x, w2)  p = Add(c, d)", {}, None),
    "sub-two-convs": ("d = Conv(x, w2)  p = Sub(d, c)", {}, None),
    "sum-three": ("d = Conv(x, w2)  e = Conv(x, w3)  p = Sum(c, d, e)", {}, None),
    "add-an-input": ("p = Add(c, z)", {}, "graph_input"),
    "add-itself-linear": ("p = Add(c, c)", LINEAR, None),
    "add-itself-shifted": ("p = Add(c, c)", {}, None),
    "add-broadcast-gate": ("d = Conv(x, w2)  g = GlobalAveragePool(d)  p = Add(c, g)", {}, None),
    "squeeze-and-excite": ("d = Conv(x, w2)  g = Sigmoid(d)  p = Mul(c, g)", LINEAR, None),
    "squeeze-and-excite-shifted": ("d = Conv(x, w2)  g = Sigmoid(d)  p = Mul(c, g)", {}, "nonlinear"),
    "square-linear": ("p = Mul(c, c)", LINEAR, "nonlinear"),
    "div-numerator": ("d = Exp(z)  p = Div(c, d)", LINEAR, None),
    "div-denominator": ("p = Div(z, c)", LINEAR, "graph_input"),
    "where": ("d = Conv(x, w2)  m = Less(d, half)  p = Where(m, c, plane4)", {}, None),
    "max-of-two": ("d = Conv(x, w2)  p = Max(c, d)", POSITIVE_SHIFT, None),
    "max-of-two-negative": ("d = Conv(x, w2)  p = Max(c, d)", NEGATIVE, "sign"),
    "min-of-two": ("d = Conv(x, w2)  p = Min(c, d)", POSITIVE_SHIFT, None),
    "neg": ("p = Neg(c)", {}, None),
    "add-full-constant": ("p = Add(c, image_constant)", {}, None),
    "add-full-constant-behind-relu": ("r = Relu(c)  p = Add(r, image_constant)", POSITIVE, None),
    "mul-full-constant-linear": ("p = Mul(c, image_constant)", LINEAR, None),
    "mul-full-constant": ("p = Mul(c, image_constant)", {}, "not_per_channel"),
    "vector-along-width": ("p = Mul(c, width)", {}, "not_per_channel"),
    "pixel-shuffle": ("d = Conv(x, w16)  p = DepthToSpace<blocksize=2, mode=\"CRD\">(d)", {}, None),
    "depth-to-space": ("d = Conv(x, w16)  p = DepthToSpace<blocksize=2>(d)", {}, None),
    "space-to-depth-mixes": ("d = Conv(x, w1)  p = SpaceToDepth<blocksize=2>(d)", {}, "not_per_channel"),
    "softmax": ("p = Softmax(c)", {}, "nonlinear"),
}  # fmt: skip

CONSTANTS = """int64[1] one = {1}, int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}, int64[1] five = {5}, int64[1] six = {6},
int64[2] halves = {1,3}, int64[3] flat = {0,4,-1}, int64[4] image = {-1,4,6,6}, int64[4] ones = {1,4,6,6}, int64[4] mixed = {0,4,12,3},
int64[5] grouped = {0,2,2,6,6}, int64[4] permutation = {2,0,3,1}, int64[4] repetition = {0,0,1,2}, int64[8] pads = {0,0,1,2,0,0,2,1},
double half = {0.5}, float[4] scales = {1,1,2,1.5}, double[8] roi = {0,0,0,0,1,1,1,1}, double[4,1,1] slope, double[6] width,
double[1,2,6,6] plane, double[1,4,6,6] plane4, double[1,4,6,6] image_constant,
double[4,3,3,3] w, double[4,3,3,3] w2, double[4,3,3,3] w3, double[16,3,3,3] w16, double[1,3,3,3] w1"""
NORM = "double[4] gamma, double[4] beta, double[4] mean, double[4] var"


@pytest.mark.parametrize("name", BACKWARD)
def test_backward(name: str) -> None:
    body, values, reason = BACKWARD[name]
    epsilon = values.get("epsilon", 1e-5)
    rank = 2 if name == "reduce-mean-drops-axes" else 4
    shape = ",".join(["n", "d", "h", "v"][:rank])
    batch = "1" if name in ("concat-with-a-constant",) else "N"
    model = build(
        f"""g (double[{batch},3,8,8] x, double[{batch},4,6,6] z) => (double[{shape}] y) <{CONSTANTS}, {NORM}>
        {{ c = Conv(x, w)  {body}
           y = BatchNormalization<epsilon={epsilon}>(p, gamma, beta, mean, var) }}""",
        values,
    )
    keep_used(model)
    _, report = fold(model)
    folded = [v.name for v in report.folded]
    kept = {v.name: str(v.reason) for v in report.kept}
    assert kept.get("y") == reason
    assert ("y" in folded) is (reason is None)
    assert_fold(model, folded=folded, kept=kept)


# BN over x (4 channels of 6 x 6) -> n; body: n -> y
FORWARD: dict[str, tuple[str, dict[str, object], str | None]] = {
    "transpose-conv": ("t = Transpose<perm=[0,1,3,2]>(n)  y = Conv(t, w)", {}, None),
    "max-pool-conv": ("t = MaxPool<kernel_shape=[2,2]>(n)  y = Conv(t, w)", POSITIVE_SHIFT, None),
    "max-pool-negative": ("t = MaxPool<kernel_shape=[2,2]>(n)  y = Conv(t, w)", NEGATIVE, "sign"),
    "relu-conv-linear": ("t = Relu(n)  y = Conv<pads=[1,1,1,1]>(t, w)", POSITIVE, None),
    "average-pool-conv": ("t = AveragePool<kernel_shape=[2,2]>(n)  y = Conv(t, w)", {}, None),
    "reduce-mean-gemm": ("t = ReduceMean<axes=[2,3], keepdims=0>(n)  y = Gemm(t, m)", {}, None),
    "concat-with-an-input": ("t = Concat<axis=1>(z, n)  y = Conv(t, w8)", {}, None),
    "split-two-convs": ("a, b = Split<axis=1>(n, halves)  c = Conv(a, w1)  d = Conv(b, w3)  y = Add(c, d)", {}, None),
    "split-one-is-relu": ("a, b = Split<axis=1>(n, halves)  c = Conv(a, w1)  d = Conv(b, w3)  e = Relu(a)  f = ReduceMean(e)  g = Add(c, d)  y = Add(g, f)", {}, "graph_input"),
    "slice-conv": ("t = Slice(n, one, four, one)  y = Conv(t, w3)", {}, None),
    "gather-repeats-conv": ("t = Gather<axis=1>(n, repetition)  y = Conv(t, w)", {}, None),
    "gather-one-channel": ("t = Gather<axis=1>(n, last)  u = Unsqueeze(t, one)  y = Conv(u, w1)", {}, None),
    "pad-reflect-conv": ("t = Pad<mode=\"reflect\">(n, pads)  y = Conv(t, w)", {}, None),
    "pad-zero-conv": ("t = Pad(n, pads)  y = Conv(t, w)", {}, "padding_shift"),
    "pad-zero-conv-linear": ("t = Pad(n, pads)  y = Conv(t, w)", LINEAR, None),
    "pad-channels-conv": ("t = Pad(n, channel_pads)  y = Conv(t, w8)", {}, None),
    "resize-conv": ("t = Resize<mode=\"nearest\">(n, , scales)  y = Conv(t, w)", {}, None),
    "space-to-depth-conv": ("t = SpaceToDepth<blocksize=2>(n)  y = Conv(t, w16)", {}, None),
    "depth-to-space-mixes": ("t = DepthToSpace<blocksize=2>(n)  y = Conv(t, w1)", {}, "not_per_channel"),
    "add-shift-only": ("t = Add(n, z)  y = Conv(t, w)", NEUTRAL_SCALE, None),
    "add-scaled": ("t = Add(n, z)  y = Conv(t, w)", {}, "graph_input"),
    "add-itself": ("t = Add(n, n)  y = Conv(t, w)", {}, None),
    "mul-linear": ("t = Mul(n, z)  y = Conv<pads=[1,1,1,1]>(t, w)", LINEAR, None),
    "mul-shifted": ("t = Mul(n, z)  y = Conv(t, w)", {}, "graph_input"),
    "square-linear": ("t = Mul(n, n)  y = Conv(t, w)", LINEAR, None),
    "add-constant-conv": ("t = Add(n, image_constant)  y = Conv(t, w)", NEUTRAL_SCALE, None),
    "reshape-matmul": ("t = Reshape(n, rows)  y = MatMul(t, m144)", {}, None),
    "channels-last-matmul": ("t = Transpose<perm=[0,2,3,1]>(n)  y = MatMul(t, m)", LINEAR, None),
    "instance-norm": ("y = InstanceNormalization(n, gamma, beta)", {}, "per_sample_norm"),
    "layer-norm": ("y = LayerNormalization(n, width)", {}, "per_sample_norm"),
    "shape-is-no-use": ("s = Shape(n)  c = Conv(n, w)  t = Expand(half, s)  u = ReduceMean(t)  y = Add(c, u)", {}, None),
    "is-an-output": ("y = Identity(n)", {}, "graph_input"),
}  # fmt: skip

FORWARD_CONSTANTS = """int64[1] one = {1}, int64[1] four = {4}, int64 last = {3}, int64[2] halves = {1,3}, int64[4] repetition = {0,0,1,2},
int64[8] pads = {0,0,1,2,0,0,2,1}, int64[8] channel_pads = {0,1,0,0,0,3,0,0}, int64[2] rows = {0,144}, double half = {0.5}, float[4] scales = {1,1,2,1.5},
double[1,4,6,6] image_constant, double[6] width, double[4,5] m, double[144,5] m144,
double[5,4,3,3] w, double[5,8,3,3] w8, double[5,1,3,3] w1, double[5,3,3,3] w3, double[5,16,2,2] w16"""


@pytest.mark.parametrize("name", FORWARD)
def test_forward(name: str) -> None:
    body, values, reason = FORWARD[name]
    epsilon = values.get("epsilon", 1e-5)
    rank = 2 if "gemm" in name or name == "reshape-matmul" else 4
    shape = ",".join(["n", "d", "h", "v"][:rank])
    model = build(
        f"""g (double[N,4,6,6] x, double[N,4,6,6] z) => (double[{shape}] y) <{FORWARD_CONSTANTS}, {NORM}>
        {{ n = BatchNormalization<epsilon={epsilon}>(x, gamma, beta, mean, var)  {body} }}""",
        values,
    )
    keep_used(model)
    assert_fold(model, folded=[] if reason else ["n"], kept={"n": reason} if reason else {})


def keep_used(model: ModelProto) -> None:
    """Drop the constants of the common list that this case does not need."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
