"""Edges of the rules that join, cut and move channels: attributes, lengths and ranks left open.

What inference cannot tell is made so in the graph: ``z = Sub(b, b)`` are zeros that nobody knows,
and ``h = Reshape(x, z)`` is x, of unknown shape. The dimension M is 3, whatever N is.
"""

from __future__ import annotations

import pytest

from tests.graph.edge_graphs import N4, P4, POS, Y4, W, assert_left_alone
from tests.graph.edge_graphs import V1 as V
from tests.support import assert_fold, build

TWOS = "float[8] gamma={1,-2,1,-2,1,-2,1,-2}, float[8] beta={3,4,3,4,3,4,3,4}, float[8] mean={0,0,0,0,0,0,0,0}, float[8] var={1,2,1,2,1,2,1,2}"
FOURS = "float[8] gamma={1,1,1,1,-2,-2,-2,-2}, float[8] beta={3,3,3,3,4,4,4,4}, float[8] mean={0,0,0,0,0,0,0,0}, float[8] var={1,1,1,1,2,2,2,2}"
ALIKE = "float[4] gamma={2,2,2,2}, float[4] beta={3,3,3,3}, float[4] mean={1,1,1,1}, float[4] var={4,4,4,4}"

HIDDEN = "z = Sub(b, b)  h = Reshape(x, z)"
HIDDEN_CONV = f"{HIDDEN}  c = Conv(h, w)  m = MaxPool<kernel_shape=[1]>(c)"
HIDDEN_NORM = f"{HIDDEN_CONV}  s = Sigmoid(m)  n = BatchNormalization(s, gamma, beta, mean, var)"

# name: (graph, opset, folded, kept)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "concat-of-one-behind-along-unknown-positions": (f'g (float[N,4,L] x) => (float[N,2,L] y) <{V}, {P4}> {{ {N4}  j = Concat<axis=2>(n)  y = Conv(j, v) }}', 13, ['n'], {}),
    "split-in-front-without-axis": (f'g (float[4,3,5] x) => (float[2,4,5] y, float[2,4,5] u) <{W}, {P4}> {{ c = Conv(x, w)  p, u = Split(c)  {Y4} }}', 13, [], {'y': 'not_per_channel'}),
    "split-behind-without-axis": (f'g (float[4,4,5] x) => (float[2,2,5] y, float[2,2,5] u) <{V}, {P4}> {{ {N4}  p, q = Split(n)  y = Conv(p, v)  u = Conv(q, v) }}', 13, ['n'], {}),
    "split-into-one-of-unknown-length": (f'g (float[N,3,L] x) => (float[N,4,L] y) <{W}, {P4}> {{ c = Conv(x, w)  p = Split<axis=2>(c)  {Y4} }}', 13, ['y'], {}),
    "split-of-channels-that-are-joined-along-positions": (f'g (float[N,3,5] x) => (float[N,2,10] y) <{W}, float[2] g2, float[2] b2, float[2] m2, float[2] v2={{1,2}}> {{ c = Conv(x, w)  p, q = Split<axis=1>(c)  j = Concat<axis=2>(p, q)  y = BatchNormalization(j, g2, b2, m2, v2) }}', 13, ['y'], {}),
    "slice-behind-of-unknown-shape": (f'g (float[M,3,5] x, int64[M] b) => (float[?,2,?] y) <{W}, float[2,2,1] v, int64[1] one={{1}}, int64[1] three={{3}}, {P4}> {{ {HIDDEN_NORM}  p = Slice(n, one, three, one)  y = Conv(p, v) }}', 13, [], {'n': 'unknown_shape'}),
    "gather-behind-without-axis": (f'g (float[2,4,5] x) => (float[1,2,5] y) <{V}, int64 i={{1}}, int64[1] a={{0}}, {P4}> {{ {N4}  p = Gather(n, i)  q = Unsqueeze(p, a)  y = Conv(q, v) }}', 13, ['n'], {}),
    "depth-of-1": (f'g (float[N,3,2,2] x) => (float[N,4,2,2] y) <float[4,3,1,1] w, {P4}> {{ c = Conv(x, w)  p = DepthToSpace<blocksize=1>(c)  {Y4} }}', 13, ['y'], {}),
    "depth-of-unknown-channels": (f'g (float[N,16,2,2] x, int64[4] b) => (float[N,4,4,4] y) <{P4}> {{ {HIDDEN}  p = DepthToSpace<blocksize=2>(h)  {Y4} }}', 13, [], {'y': 'unknown_shape'}),
    "depth-behind-channels-that-agree-by-twos": (f'g (float[N,8,2,2] x) => (float[N,3,4,4] y) <float[3,2,1,1] v, {TWOS}> {{ {N4}  p = DepthToSpace<blocksize=2>(n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "depth-behind-channels-that-agree-by-twos-columns-first": (f'g (float[N,8,2,2] x) => (float[N,3,4,4] y) <float[3,2,1,1] v, {TWOS}> {{ {N4}  p = DepthToSpace<blocksize=2, mode="CRD">(n)  y = Conv(p, v) }}', 13, [], {'n': 'not_per_channel'}),
    "depth-behind-channels-that-agree-by-fours-columns-first": (f'g (float[N,8,2,2] x) => (float[N,3,4,4] y) <float[3,2,1,1] v, {FOURS}> {{ {N4}  p = DepthToSpace<blocksize=2, mode="CRD">(n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "space-to-depth-in-front-of-channels-that-agree": (f'g (float[N,3,4,4] x) => (float[N,8,2,2] y) <float[2,3,1,1] w, {TWOS}> {{ c = Conv(x, w)  p = SpaceToDepth<blocksize=2>(c)  {Y4} }}', 13, ['y'], {}),
    "space-to-depth-in-front-along-positions": ('g (float[N,3,4,4] x) => (float[N,8,2,2] y) <float[2,3,1,1] w, float[2,1] k> { c = Conv(x, w)  p = SpaceToDepth<blocksize=2>(c)  y = Mul(p, k) }', 13, [], {'y': 'not_per_channel'}),
    "depth-of-a-constant-of-which-one-sample-is-normalized": ('g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,8,2,2] k, int64[1] zero={0}, int64[1] one={1}, int64[1] two={2}, float[2] g2, float[2] b2, float[2] m2, float[2] v2={1,2}> { p = DepthToSpace<blocksize=2>(k)  q = Slice(p, zero, one, zero)  n = BatchNormalization(q, g2, b2, m2, v2)  r = Slice(p, one, two, zero)  m = Mul(x, n)  y = Mul(m, r) }', 13, ['n'], {}),
    "space-to-depth-of-a-constant-of-which-one-sample-is-normalized": (f'g (float[1,8,2,2] x) => (float[1,8,2,2] y) <float[2,2,4,4] k, int64[1] zero={{0}}, int64[1] one={{1}}, int64[1] two={{2}}, {TWOS}> {{ p = SpaceToDepth<blocksize=2>(k)  q = Slice(p, zero, one, zero)  n = BatchNormalization(q, gamma, beta, mean, var)  r = Slice(p, one, two, zero)  m = Mul(x, n)  y = Mul(m, r) }}', 13, ['n'], {}),
    "dropout-of-opset-12": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float r={{0.5}}, bool t={{0}}, {P4}> {{ c = Conv(x, w)  p = Dropout(c, r, t)  {Y4} }}', 12, ['y'], {}),
    "dropout-of-opset-12-that-trains": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, float r={{0}}, bool t={{1}}, {P4}> {{ c = Conv(x, w)  p = Dropout(c, r, t)  {Y4} }}', 12, [], {'y': 'nonlinear'}),
    "dropout-that-may-train": (f'g (float[N,3,5] x, bool t) => (float[N,4,5] y) <{W}, float r={{0}}, {P4}> {{ c = Conv(x, w)  p = Dropout(c, r, t)  {Y4} }}', 13, [], {'y': 'nonlinear'}),
    "cast-in-front-from-a-wider-type-to-half": ('g (float[N,3] x) => (float16[N,4] y) <float[3,4] w, float16[4] k> { c = MatMul(x, w)  p = Cast<to=10>(c)  y = Mul(p, k) }', 13, ['y'], {}),
    "cast-in-front-from-one-half-to-the-other": ('g (float[N,3] x) => (float16[N,4] y) <bfloat16[3,4] w, float16[4] k> { b = Cast<to=16>(x)  c = MatMul(b, w)  p = Cast<to=10>(c)  y = Mul(p, k) }', 13, [], {'y': 'overflow'}),
    "squeeze-in-front-of-unknown-shape": (f'g (float[M,3,1] x, int64[M] b) => (float[?,4] y) <{W}, int64[1] a={{-1}}, {POS}> {{ {HIDDEN_CONV}  p = Squeeze(m, a)  {Y4} }}', 13, ['y'], {}),
    "squeeze-in-front-of-unknown-rank": (f'g (float[M,4,1] x, int64[M] b) => (float[?,4] y) <int64[1] a={{2}}, {P4}> {{ {HIDDEN}  p = Squeeze(h, a)  {Y4} }}', 13, [], {'y': 'unknown_shape'}),
    "squeeze-behind-of-unknown-shape": (f'g (float[M,3,1] x, int64[M] b) => (float[?,2] y) <{W}, float[4,2] v, int64[1] a={{2}}, {P4}> {{ {HIDDEN_NORM}  p = Squeeze(n, a)  y = MatMul(p, v) }}', 13, ['n'], {}),
    "unsqueeze-in-front-along-computed-axes": (f'g (float[N,3] x, int64[1] b) => (float[?,4,?] y) <float[3,4] w, int64[1] two={{2}}, {P4}> {{ z = Sub(b, b)  a = Add(z, two)  c = MatMul(x, w)  p = Unsqueeze(c, a)  {Y4} }}', 13, [], {'y': 'unknown_shape'}),
    "unsqueeze-behind-along-computed-axes": (f'g (float[N,4] x, int64[1] b) => (float[?,2,?] y) <{V}, int64[1] two={{2}}, {P4}> {{ {N4}  z = Sub(b, b)  a = Add(z, two)  p = Unsqueeze(n, a)  y = Conv(p, v) }}', 13, [], {'n': 'unknown_shape'}),
    "reshape-in-front-to-an-unknown-shape": (f'g (float[M,3,5] x, int64[M] b) => (float[?,4,?] y) <{W}, {P4}> {{ z = Sub(b, b)  c = Conv(x, w)  p = Reshape(c, z)  {Y4} }}', 13, [], {'y': 'unknown_shape'}),
    "reshape-in-front-to-an-unknown-shape-of-channels-that-agree": (f'g (float[M,3,5] x, int64[M] b) => (float[?,4,?] y) <{W}, {ALIKE}> {{ z = Sub(b, b)  c = Conv(x, w)  p = Reshape(c, z)  {Y4} }}', 13, ['y'], {}),
    "reshape-in-front-of-an-unknown-shape": (f'g (float[M,4,5] x, int64[M] b) => (float[3,4,5] y) <int64[3] s={{3,4,5}}, {P4}> {{ {HIDDEN}  p = Reshape(h, s)  {Y4} }}', 13, [], {'y': 'unknown_shape'}),
    "expand-behind-to-an-unknown-rank": (f'g (float[N,4,5] x, int64[M] b) => (float[?,2,?] y) <{V}, int64 one={{1}}, {P4}> {{ {N4}  z = Sub(b, b)  s = Add(z, one)  p = Expand(n, s)  y = Conv(p, v) }}', 13, [], {'n': 'unknown_shape'}),
}  # fmt: skip

# opsets that no runtime has: name: (graph, opset, folded, kept)
OLD: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "concat-in-front-without-axis": (f'g (float[N,3,5] x) => (float[N,4,5] y) <float[2,3,1] w, float[2,3,1] v, {P4}> {{ c = Conv(x, w)  d = Conv(x, v)  p = Concat(c, d)  y = BatchNormalization<is_test=1, consumed_inputs=[0,0,0,0,0]>(p, gamma, beta, mean, var) }}', 3, ['y'], {}),
    "concat-behind-without-axis": (f'g (float[N,4,5] x, float[N,2,5] z) => (float[N,2,5] y) <float[2,6,1] v, {P4}> {{ n = BatchNormalization<is_test=1, consumed_inputs=[0,0,0,0,0]>(x, gamma, beta, mean, var)  j = Concat(z, n)  y = Conv(j, v) }}', 3, ['n'], {}),
    "dropout-of-opset-6": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ c = Conv(x, w)  p = Dropout<is_test=1>(c)  y = BatchNormalization<is_test=1>(p, gamma, beta, mean, var) }}', 6, ['y'], {}),
    "dropout-of-opset-6-that-trains": (f'g (float[N,3,5] x) => (float[N,4,5] y) <{W}, {P4}> {{ c = Conv(x, w)  p = Dropout<ratio=0.0>(c)  y = BatchNormalization<is_test=1>(p, gamma, beta, mean, var) }}', 6, [], {'y': 'nonlinear'}),
}  # fmt: skip

# what no runtime takes: name: (graph, why the batch normalization stays)
INVALID = {
    "split-by-itself": (f'g (float[N,4,6] x) => (float[N,2,3] y, float[N,2,3] u) <{V}, {P4}> {{ s = Sigmoid(x)  n = BatchNormalization(s, gamma, beta, mean, var)  p, q = Split<axis=2>(n, n)  y = Conv(p, v)  u = Conv(q, v) }}', 'nonlinear'),
    "gather-by-itself": (f'g (float[N,4] x) => (float[N,4,2] y) <float[4,2] v, {P4}> {{ s = Sigmoid(x)  n = BatchNormalization(s, gamma, beta, mean, var)  p = Gather(n, n)  y = MatMul(p, v) }}', 'nonlinear'),
    "depth-without-a-block": (f'g (float[N,3,2,2] x) => (float[N,4,2,2] y) <float[4,3,1,1] w, {P4}> {{ c = Conv(x, w)  p = DepthToSpace(c)  {Y4} }}', 'unknown_shape'),
    "squeeze-of-channels": (f'g (float[M,3,1] x, int64[M] b) => (float[?,2] y) <{W}, float[4,2] v, int64[1] a={{1}}, {P4}> {{ {HIDDEN_NORM}  p = Squeeze(n, a)  y = MatMul(p, v) }}', 'unknown_shape'),
    "unsqueeze-to-channels": (f'g (float[M,3,1] x, int64[M] b) => (float[?,4,?,?] y) <{W}, int64[1] a={{1}}, {POS}> {{ {HIDDEN_CONV}  p = Unsqueeze(m, a)  {Y4} }}', 'unknown_shape'),
    "cast-of-nothing": (f'g (float[N,4] x) => (float[N,4] y) <{P4}> {{ p = Cast<to=1>("")  {Y4} }}', 'overflow'),
    "expand-of-nothing": (f'g (float[N,4] x) => (float[N,4] y) <int64[2] s={{1,4}}, {P4}> {{ p = Expand("", s)  {Y4} }}', 'unknown_shape'),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES | OLD)
def test_edge(name: str) -> None:
    text, opset, folded, kept = (CASES | OLD)[name]
    model = build(text, opset=opset)
    assert_fold(model, folded=folded, kept=kept, sizes={"N": 3, "L": 6}, run=name not in OLD)


@pytest.mark.parametrize("name", INVALID)
def test_invalid_graph_is_left_alone(name: str) -> None:
    text, reason = INVALID[name]
    assert_left_alone(text, 13, reason)
