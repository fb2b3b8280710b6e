"""Edges of merges: one attribute, length or number away from where the answer changes.

``z = Sub(o, o)`` are zeros that nobody knows, and ``h = Reshape(x, z)`` is x, of unknown shape. The
dimension M is 3, as many as x has axes.
"""

from __future__ import annotations

import onnx
import pytest

from tests.support import assert_fold, build, fold

# name: (graph, opset, branches that go, places where branches stay, sites that go, and that stay)
CASES: dict[str, tuple[str, int, list[str], dict[str, str], list[str], dict[str, str]]] = {
    "bias-of-a-first-convolution-with-more-channels": ('g (float[N,8,6] x) => (float[N,4,6] y) <float[8,8,3] w, float[8] b, float[4,8,1] p, float[4] c> { u = Conv<pads=[1,1]>(x, w, b)  y = Conv(u, p, c) }', 17, ['y'], {}, [], {}),
    "bias-of-a-first-convolution-with-fewer-channels": ('g (float[N,4,6] x) => (float[N,8,6] y) <float[4,4,5] w, float[4] b, float[8,4,1] p> { u = Conv<pads=[2,2]>(x, w, b)  y = Conv(u, p) }', 17, [], {'y': 'no_gain'}, [], {}),
    "left-constants": ('g (double[N,4,5] x) => (double[N,2,5] y) <double[2,4] w, double[2,4] v> { a = MatMul(w, x)  q = MatMul(v, x)  y = Sub(a, q) }', 17, ['q'], {}, [], {}),
    "left-constants-of-rank-2": ('g (double[4,5] x) => (double[2,5] y) <double[2,4] w, double[2,4] v> { a = MatMul(w, x)  q = MatMul(v, x)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "left-constants-and-a-vector": ('g (double[4] x) => (double[2] y) <double[2,4] w, double[2,4] v> { a = MatMul(w, x)  q = MatMul(v, x)  y = Add(a, q) }', 17, [], {}, [], {}),
    "left-constants-and-an-unknown-rank": ('g (double[3,4,5] x, int64[M] o) => (double[?,?,?] y) <double[2,4] w, double[2,4] v> { z = Sub(o, o)  h = Reshape(x, z)  a = MatMul(w, h)  q = MatMul(v, h)  y = Add(a, q) }', 17, [], {}, [], {}),
    "left-constants-transposed": ('g (double[4,5] x) => (double[2,5] y) <double[4,2] w, double[2,4] v, double[2,1] b> { a = Gemm<transA=1>(w, x, b)  q = MatMul(v, x)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "left-constants-with-a-bias-per-row": ('g (double[4,5] x) => (double[2,5] y) <double[4,2] w, double[2,4] v, double[2,1] b, double[2,1] d> { a = Gemm<transA=1>(w, x, b)  q = Gemm(v, x, d)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "left-constants-scaled-behind": ('g (double[4,5] x) => (double[2,5] y) <double[2,4] w, double[2,4] v, double[2,1] b, double k={0.5}> { a = Gemm(w, x, b)  s = Mul(a, k)  q = MatMul(v, x)  y = Add(s, q) }', 17, ['q'], {}, [], {}),
    "transposed-alike": ('g (double[4,3] x) => (double[3,5] y) <double[4,5] w, double[4,5] v> { a = Gemm<transA=1>(x, w)  q = Gemm<transA=1>(x, v)  y = Add(a, q) }', 17, [], {}, [], {}),
    "transposed-and-not": ('g (double[4,4] x) => (double[4,5] y) <double[4,5] w, double[4,5] v> { a = Gemm<transA=1>(x, w)  q = Gemm(x, v)  y = Add(a, q) }', 17, [], {}, [], {}),
    "transposed-then-a-matrix": ('g (double[3,4] x) => (double[4,3] y) <double[3,3] w, double[3,3] v> { u = Gemm<transA=1>(x, w)  y = MatMul(u, v) }', 17, [], {}, [], {}),
    "transposed-and-not-of-matmul": ('g (double[4,4] x) => (double[4,5] y) <double[4,5] w, double[4,5] v> { a = Gemm<transA=1>(x, w)  q = MatMul(x, v)  y = Add(a, q) }', 17, [], {}, [], {}),
    "alpha-of-2-and-beta-of-3": ('g (double[4,3] x) => (double[4,5] y) <double[3,5] w, double[3,5] v, double[5] b, double[5] d> { a = Gemm<alpha=2.0, beta=3.0>(x, w, b)  q = Gemm(x, v, d)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "biases-of-both": ('g (double[4,2] x) => (double[4,5] y) <double[2,5] w, double[2,5] v, double[5] b, double[5] d> { a = Gemm(x, w, b)  q = Gemm(x, v, d)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "bias-of-any-shape": ('g (double[4,5] x, int64[2] o) => (double[4,5] y) <double[5,5] w, double[5,5] v, double k> { z = Sub(o, o)  h = Reshape(x, z)  m = Shape(h)  e = Expand(k, m)  a = Gemm(x, w, e)  q = MatMul(x, v)  y = Add(a, q) }', 17, [], {}, [], {}),
    "shift-takes-as-much-as-it-saves": ('g (double[4,2] x) => (double[4,2] y) <double[2,1] w, double[1,2] v, double k> { u = MatMul(x, w)  s = Add(u, k)  y = MatMul(s, v) }', 17, [], {'y': 'no_gain'}, [], {}),
    "weights-of-no-columns": ('g (double[N,4] x) => (double[N,0] y) <double[4,0] w, double[4,0] v> { a = MatMul(x, w)  q = MatMul(x, v)  y = Add(a, q) }', 17, [], {}, [], {}),
    "product-of-constants": ('g (double[2,5] x) => (double[2,5] y) <double[2,4] c, double[4,5] w, double[4,5] v> { a = MatMul(c, w)  q = MatMul(c, v)  t = Add(a, q)  y = Mul(t, x) }', 17, [], {}, [], {}),
    "matrix-that-overflows": ('g (float[N,2] x) => (float[N,2] y) <float[2,2] w={3e38,1,1,1}, float[2,2] v={3e38,1,1,1}> { a = MatMul(x, w)  q = MatMul(x, v)  y = Add(a, q) }', 17, [], {'y': 'overflow'}, [], {}),
    "shift-of-a-matrix-that-overflows": ('g (float[N,2] x) => (float[N,2] y) <float[2,2] w, float[2,2] v={1,1,1,1}, float[2] k={3e38,3e38}> { u = MatMul(x, w)  s = Add(u, k)  y = MatMul(s, v) }', 17, [], {'y': 'overflow'}, [], {}),
    "shift-of-opset-6": ('g (float[N,4] x) => (float[N,4] y) <float[4,4] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { a = MatMul(x, w)  n = BatchNormalization<is_test=1>(x, gamma, beta, mean, var)  y = Add(a, n) }', 6, [], {'y': 'overflow'}, [], {'n': 'unsupported_opset'}),
    "shift-of-opset-7": ('g (float[N,4] x) => (float[N,4] y) <float[4,4] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { a = MatMul(x, w)  n = BatchNormalization(x, gamma, beta, mean, var)  y = Add(a, n) }', 7, [], {}, ['n'], {}),
    "bias-of-opset-6": ('g (float[1,4] x) => (float[1,4] y) <float[4,4] w, float[1,4] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { a = Gemm(x, w, b)  n = BatchNormalization<is_test=1>(x, gamma, beta, mean, var)  y = Add(a, n) }', 6, [], {}, ['n'], {}),
    "bias-of-opset-7": ('g (float[1,4] x) => (float[1,4] y) <float[4,4] w, float[1,4] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { a = Gemm(x, w, b)  n = BatchNormalization(x, gamma, beta, mean, var)  y = Add(a, n) }', 7, [], {}, ['n'], {}),
    "normalization-of-unknown-rank-and-a-matrix": ('g (float[3,4,2] x, int64[M] o, double q) => (float[?,?,?] y) <float[4,4] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { z = Sub(o, o)  h = Reshape(x, z)  a = MatMul(w, h)  n = BatchNormalization(h, gamma, beta, mean, var)  y = Add(a, n) }', 17, [], {}, [], {'n': 'unknown_shape'}),
    "normalization-of-unknown-rank-and-a-right-matrix": ('g (float[3,4,4] x, int64[M] o) => (float[?,?,?] y) <float[4,4] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { z = Sub(o, o)  h = Reshape(x, z)  a = MatMul(h, w)  n = BatchNormalization(h, gamma, beta, mean, var)  y = Add(a, n) }', 17, [], {'y': 'unknown_shape'}, [], {'n': 'unknown_shape'}),
    "vector-and-a-scale": ('g (double[4] x) => (double[4] y) <double[4,4] w, double[4] k> { a = MatMul(x, w)  q = Mul(x, k)  y = Add(a, q) }', 17, [], {'y': 'unknown_shape'}, [], {'q': 'graph_input'}),
    "scale-along-rows": ('g (double[5,4] x) => (double[5,4] y) <double[4,4] w, double[5,1] k> { a = MatMul(x, w)  q = Mul(x, k)  y = Add(a, q) }', 17, [], {'y': 'not_per_channel'}, [], {'q': 'graph_input'}),
    "normalizations-of-unknown-rank": ('g (float[3,4,2] x, int64[M] o) => (float[?,?,?] y) <float[4] gamma, float[4] beta, float[4] mean, float[4] var> { z = Sub(o, o)  h = Reshape(x, z)  n = BatchNormalization(h, gamma, beta, mean, var)  y = Add(n, h) }', 17, [], {}, [], {'n': 'unknown_shape'}),
    "convolutions-of-an-unknown-rank": ('g (double[3,4,6] x, int64[M] o) => (double[?,4,?] y) <double[4,4,3] w, double[4,4,1] p> { z = Sub(o, o)  h = Reshape(x, z)  a = Conv<pads=[1,1]>(h, w)  q = Conv(h, p)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "pool-of-an-unknown-rank-that-may-be-cut": ('g (double[3,1,6] x, int64[M] o) => (double[?,1,?] y) <double[1,1,2] w> { z = Sub(o, o)  h = Reshape(x, z)  a = Conv<strides=[2]>(h, w)  q = AveragePool<kernel_shape=[2], strides=[2], ceil_mode=1>(h)  y = Add(a, q) }', 17, [], {}, [], {}),
    "same-length-and-explicit": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w, double[2,2,2] p> { a = Conv<auto_pad="SAME_UPPER">(x, w)  q = Conv<pads=[2,0], dilations=[2]>(x, p)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "strides-of-a-known-length": ('g (double[N,4,6] x) => (double[N,4,3] y) <double[4,4,3] w, double[4,4,1] p> { a = Conv<strides=[2], pads=[1,0]>(x, w)  q = Conv<strides=[2]>(x, p)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "strides-of-a-named-length": ('g (double[N,4,H] x) => (double[N,4,?] y) <double[4,4,3] w, double[4,4,1] p> { a = Conv<strides=[2], pads=[1,0]>(x, w)  q = Conv<strides=[2]>(x, p)  y = Add(a, q) }', 17, [], {'y': 'padding_shift'}, [], {}),
    "transposed-of-two-lengths": ('g (double[N,4,2] x) => (double[N,4,2] y) <double[4,4,1] w, double[4,4,1] p> { a = ConvTranspose<strides=[2], pads=[1,1]>(x, w)  q = ConvTranspose<strides=[2], pads=[1,0]>(x, p)  y = Add(a, q) }', 17, [], {'y': 'padding_shift'}, [], {}),
    "taps-of-a-strided-one": ('g (double[N,1,9] x) => (double[N,1,3] y) <double[1,1,2] w, double[1,1,2] v> { u = Conv<strides=[2]>(x, w)  y = Conv(u, v) }', 17, ['u'], {}, [], {}),
    "scaled-then-transposed": ('g (double[N,4,5] x) => (double[N,2,5] y) <double[4,2,3] w, double[4,2,1] p, double k={0.5}> { s = Mul(x, k)  a = ConvTranspose<pads=[1,1]>(s, w)  q = ConvTranspose(x, p)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "one-multiply-add-more": ('g (double[N,1,6] x) => (double[N,1,6] y) <double[1,1,2] w, double[1,1,1] p, double[1] b, double[1] d> { a = Conv<dilations=[3], pads=[1,2]>(x, w, b)  q = Conv(x, p, d)  y = Add(a, q) }', 17, [], {'y': 'no_gain'}, [], {}),
    "what-saves-more-numbers-first": ('g (double[N,1,H] x) => (double[N,1,?] y) <double[1,1,2] w1, double[1,1,2] w2, double[1,1,5] v1, double[1,1,2] v2, double[1] b, double[1] d> { a = Conv<strides=[2], pads=[0,1]>(x, w1, b)  q = Conv<strides=[2], pads=[0,1]>(x, w2, d)  f = Conv<strides=[2], pads=[1,2]>(x, v1)  g2 = Conv<strides=[2]>(x, v2)  s = Add(f, g2)  t = Add(s, a)  y = Add(t, q) }', 17, ['q', 'g2'], {'t': 'padding_shift'}, [], {}),
    "normalization-at-a-middle-tap": ('g (float[N,1,6] x) => (float[N,1,6] y) <float[1,1,2] w, float[1] gamma, float[1] beta, float[1] mean, float[1] var> { a = Conv<dilations=[2], pads=[1,1]>(x, w)  n = BatchNormalization(x, gamma, beta, mean, var)  y = Add(a, n) }', 17, [], {}, ['n'], {}),
    "normalization-between-taps": ('g (float[N,1,6] x) => (float[N,1,6] y) <float[1,1,2] w, float[1] gamma, float[1] beta, float[1] mean, float[1] var> { a = Conv<dilations=[3], pads=[1,2]>(x, w)  n = BatchNormalization(x, gamma, beta, mean, var)  y = Add(a, n) }', 17, [], {'y': 'no_gain'}, [], {'n': 'graph_input'}),
    "normalization-in-front-of-a-pool-of-4": ('g (float[N,1,4] x) => (float[N,1,1] y) <float[1,1,1] w, float[1] gamma, float[1] beta, float[1] mean, float[1] var> { n = BatchNormalization(x, gamma, beta, mean, var)  p = AveragePool<kernel_shape=[4], strides=[4]>(n)  a = Conv<strides=[4]>(x, w)  y = Add(a, p) }', 17, ['p'], {}, ['n'], {}),
    "normalization-in-front-of-a-pool-of-5": ('g (float[N,1,5] x) => (float[N,1,1] y) <float[1,1,1] w, float[1] gamma, float[1] beta, float[1] mean, float[1] var> { n = BatchNormalization(x, gamma, beta, mean, var)  p = AveragePool<kernel_shape=[5], strides=[5]>(n)  a = Conv<strides=[5]>(x, w)  y = Add(a, p) }', 17, [], {'y': 'no_gain'}, [], {'n': 'graph_input'}),
    "negative-in-front-of-a-pool": ('g (double[N,1,2] x) => (double[N,1,1] y) <double[1,1,1] w> { n = Neg(x)  p = AveragePool<kernel_shape=[2], strides=[2]>(n)  a = Conv<strides=[2]>(x, w)  y = Add(a, p) }', 17, [], {'y': 'no_gain'}, [], {}),
    "scale-in-front-of-a-pool": ('g (double[N,1,2] x) => (double[N,1,1] y) <double[1,1,1] w, double k> { n = Mul(x, k)  p = AveragePool<kernel_shape=[2], strides=[2]>(n)  a = Conv<strides=[2]>(x, w)  y = Add(a, p) }', 17, ['p'], {}, [], {}),
    "mul-at-a-middle-tap": ('g (double[N,1,6] x) => (double[N,1,6] y) <double[1,1,2] w, double k> { a = Conv<dilations=[2], pads=[1,1]>(x, w)  n = Mul(x, k)  y = Add(a, n) }', 17, ['n'], {}, [], {}),
    "div-at-a-middle-tap": ('g (double[N,1,6] x) => (double[N,1,6] y) <double[1,1,2] w, double k> { a = Conv<dilations=[2], pads=[1,1]>(x, w)  n = Div(x, k)  y = Add(a, n) }', 17, ['n'], {}, [], {}),
    "add-at-a-middle-tap": ('g (double[N,1,6] x) => (double[N,1,6] y) <double[1,1,2] w, double k> { a = Conv<dilations=[2], pads=[1,1]>(x, w)  n = Add(x, k)  i = Identity(n)  y = Add(a, i) }', 17, [], {'y': 'no_gain'}, [], {}),
    "average-of-opset-7": ('g (float[N,2,6] x) => (float[N,2,6] y) <float[2,2,3] w> { a = Conv<pads=[1,1]>(x, w)  q = AveragePool<kernel_shape=[3], pads=[1,1], count_include_pad=1>(x)  y = Add(a, q) }', 7, ['q'], {}, [], {}),
    "average-with-its-padding-not-set": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w> { a = Conv<pads=[1,1]>(x, w)  q = AveragePool<auto_pad="NOTSET", kernel_shape=[3], pads=[1,1], count_include_pad=1>(x)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "average-of-the-same-length": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w> { a = Conv<pads=[1,1]>(x, w)  q = AveragePool<auto_pad="SAME_UPPER", kernel_shape=[3], count_include_pad=1>(x)  y = Add(a, q) }', 17, [], {}, [], {}),
    "average-of-4-by-threes": ('g (double[N,1,4] x) => (double[N,1,2] y) <double[1,1,2] w> { a = Conv<strides=[3], pads=[0,1]>(x, w)  q = AveragePool<kernel_shape=[2], strides=[3], ceil_mode=1>(x)  y = Add(a, q) }', 17, [], {}, [], {}),
    "average-of-5-by-threes": ('g (double[N,1,5] x) => (double[N,1,2] y) <double[1,1,2] w> { a = Conv<strides=[3]>(x, w)  q = AveragePool<kernel_shape=[2], strides=[3], ceil_mode=1>(x)  y = Add(a, q) }', 17, ['q'], {}, [], {}),
    "bias-that-is-not-finite": ('g (double[N,1,3] x) => (double[N,1,3] y) <double[1,1,1] w, double[1,1,1] p, double[1] b={1.7e308}, double[1] d={1.7e308}> { a = Conv(x, w, b)  q = Conv(x, p, d)  y = Add(a, q) }', 17, [], {'y': 'overflow'}, [], {}),
    "zeros-that-are-computed": ('g (double[N,2,3] x) => (double[N,2,3] y) <double[1,1,1] o={0}> { s = Sigmoid(x)  z = Transpose(o)  y = Add(s, z) }', 17, ['y'], {}, [], {}),
    "operator-of-zeros-that-others-read": ('g (double[N,2,3] x) => (double[N,2,3] y, double[N,2,3] q) <double[2,2,1] w={0,0,0,0}> { s = Sigmoid(x)  q = Conv(x, w)  y = Add(s, q) }', 17, [], {}, [], {}),
    "zero-number-beside-an-unknown-shape": ('g (double[3,4,6] x, int64[M] o) => (double[?,2,?] y) <double[2,4,1] w, double[1] k={0}> { z = Sub(o, o)  h = Reshape(x, z)  a = Conv(h, w)  r = MaxPool<kernel_shape=[2]>(a)  y = Add(r, k) }', 17, ['y'], {}, [], {}),
    "zeros-beside-an-unknown-shape": ('g (double[3,4,6] x, int64[M] o) => (double[?,2,?] y) <double[2,4,1] w, double[1,2,1] k={0,0}> { z = Sub(o, o)  h = Reshape(x, z)  a = Conv(h, w)  r = MaxPool<kernel_shape=[2]>(a)  y = Add(r, k) }', 17, [], {}, [], {}),
    "normalization-taken-away": ('g (float[N,4,3] x) => (float[N,4,3] y) <float[4] gamma, float[4] beta, float[4] mean, float[4] var> { s = Sigmoid(x)  n = BatchNormalization(x, gamma, beta, mean, var)  d = Sub(s, n)  y = Add(d, x) }', 17, ['y'], {}, [], {'n': 'graph_input'}),
    "terms-of-two-sums": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w, double[2,2,1] p1, double[2,2,1] p2, double[2,2,1] p3> { s = Sigmoid(x)  a = Conv<pads=[1,1]>(x, w)  p = Conv(x, p1)  q = Conv(x, p2)  r = Conv(x, p3)  u = Add(p, q)  v = Add(r, s)  t = Add(u, v)  y = Add(t, a) }', 17, ['p', 'q', 'r'], {}, [], {}),
    "terms-of-two-sums-in-another-order": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w, double[2,2,1] p1, double[2,2,1] p2, double[2,2,1] p3> { s = Sigmoid(x)  a = Conv<pads=[1,1]>(x, w)  p = Conv(x, p1)  q = Conv(x, p2)  r = Conv(x, p3)  u = Add(p, q)  v = Add(r, s)  t = Add(v, u)  y = Add(a, t) }', 17, ['r', 'p', 'q'], {}, [], {}),
    "sum-that-gets-another-shape": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w, double[2,2,1] p, double[N,2,6] u> { s = GlobalMaxPool(x)  r = GlobalAveragePool(x)  q = Conv(x, p)  a = Conv<pads=[1,1]>(x, w)  u = Sum(s, r, q)  y = Add(u, a) }', 17, ['q'], {}, [], {}),
    "sum-with-a-residual-that-gets-another-shape": ('g (double[N,2,6] x) => (double[N,2,6] y) <double[2,2,3] w, double[2,2,1] p, double[N,2,6] u, double[N,2,6] v> { s = GlobalMaxPool(x)  r = GlobalAveragePool(x)  t = Sigmoid(r)  q = Conv(x, p)  a = Conv<pads=[1,1]>(x, w)  u = Sum(s, r, q)  v = Add(a, t)  y = Add(u, v) }', 17, ['q'], {}, [], {}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow encountered")  # where the answer is that it does
@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, merged, apart, folded, kept = CASES[name]
    assert_fold(
        build(text, opset=opset),
        folded=folded,
        kept=kept,
        merged=merged,
        apart=apart,
        sizes={"N": 2, "H": 6},
    )


# name: (graph, places where branches stay)
ILLEGAL: dict[str, tuple[str, dict[str, str]]] = {
    "ranks-that-contradict": ("g (float[N,4,5] x) => (float[?,?,?,?] y) <float[4,4,1,1] w, float[4,1] k> { a = Conv(x, w)  q = Mul(x, k)  y = Add(a, q) }", {"y": "unknown_shape"}),
    "average-over-a-window-of-0": ("g (float[N,4,5] x) => (float[N,4,?] y) <float[4,4,1] w> { a = Conv(x, w)  q = AveragePool<kernel_shape=[0]>(x)  y = Add(a, q) }", {}),
    "taps-that-are-0-apart": ("g (float[N,4,5] x) => (float[N,4,?] y) <float[4,4,1] w, float[4,4,3] p> { a = Conv(x, w)  y = Conv<dilations=[0]>(a, p) }", {}),
    "padding-of-less-than-0": ("g (float[N,4,5] x) => (float[N,4,?] y) <float[4,4,1] w, float[4,4,1] p> { a = Conv<pads=[-1,0]>(x, w)  q = Conv<pads=[-1,0]>(x, p)  y = Add(a, q) }", {}),
    "matrices-of-two-lengths": ("g (float[N,K] x) => (float[N,5] y) <float[4,5] w, float[3,5] v> { a = MatMul(x, w)  q = MatMul(x, v)  y = Add(a, q) }", {"y": "not_per_channel"}),
    "matrices-of-two-lengths-one-behind-the-other": ("g (float[N,4] x) => (float[N,5] y) <float[4,6] w, float[4,5] v> { a = MatMul(x, w)  y = MatMul(a, v) }", {"y": "not_per_channel"}),
    "average-over-no-window": ("g (float[N,4,5] x) => (float[N,4,5] y) <float[4,4,1] w> { a = Conv(x, w)  q = AveragePool(x)  y = Add(a, q) }", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name: str) -> None:
    text, apart = ILLEGAL[name]
    _, report = fold(build(text))
    branches = [verdict for verdict in report.sites if verdict.kind == "branch"]
    assert not any(verdict.folded for verdict in branches)
    assert {verdict.name: verdict.reason for verdict in branches} == apart


def test_zero_in_a_body_of_which_nothing_is_inferred() -> None:
    model = build("""<ir_version: 8, opset_import: ["" : 17, "other" : 1]>
    g (float[N,2,6] x) => (float[N,2,6] y) <float[2,2,1] w>
    { y = other.Unknown(x)<body = t () => (float[N,2,6] u)
        { z = Constant<value = float[1,1,1] {0}>()  c = Conv(x, w)  s = Relu(c)  u = Add(s, z) }> }""")
    assert_fold(model, merged=["u"], run=False)


# name of a case: attributes of the node that stays
ATTRIBUTES: dict[str, dict[str, object]] = {
    "bias-of-opset-6": {"broadcast": 1},
    "bias-of-opset-7": {},
    "same-length-and-explicit": {"pads": [2, 1]},
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_afterwards(name: str) -> None:
    text, opset, *_ = CASES[name]
    result, _ = fold(build(text, opset=opset))
    (node,) = result.graph.node
    found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    assert found == ATTRIBUTES[name]


@pytest.mark.parametrize(
    ("body", "direction", "through"),
    [
        ("a = Conv(x, w)  q = Conv(x, p)  y = Add(a, q)", "parallel", ("y",)),
        ("s = Sigmoid(x)  t = Add(s, o)  y = Sub(t, x)", "parallel", ("y", "t")),
        ("s = Sigmoid(x)  n = Conv(s, none)  y = Add(s, n)", "parallel", ("y",)),
        ("a = Conv(x, w)  s = Neg(a)  y = Conv(s, p)", "series", ("s",)),
    ],
    ids=["operators", "zero", "operator-of-zeros", "one-behind-the-other"],
)
def test_direction_and_what_is_passed(body: str, direction: str, through: tuple[str, ...]) -> None:
    constants = "double[2,2,1] w, double[2,2,1] p, double o={0}, double[2,2,1] none={0,0,0,0}"
    model = build(f"g (double[N,2,6] x) => (double[N,2,6] y) <{constants}> {{ {body} }}")
    _, report = fold(model)
    (verdict,) = report.sites
    assert (verdict.direction, verdict.through) == (direction, through)
