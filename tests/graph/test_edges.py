"""Edges of the rules: one attribute, length or number away from where the answer changes."""

from __future__ import annotations

import pytest

from tests.support import assert_fold, build

P4 = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"
POS = "float[4] gamma={1,2,0.5,3}, float[4] beta, float[4] mean, float[4] var"
LIN = "float[4] gamma={1,2,0.5,3}, float[4] beta={0,0,0,0}, float[4] mean={0,0,0,0}, float[4] var"
V = "float[2,4,1,1] v"


def in_front(node: str, constants: str = "", parameters: str = P4) -> str:
    """A convolution, ``node`` that reads it as c, and a batch normalization y."""
    more = f", {constants}" if constants else ""
    return f"""g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {parameters}{more}>
        {{ c = Conv(x, w)  p = {node}  y = BatchNormalization(p, gamma, beta, mean, var) }}"""


def behind(node: str, constants: str = V, shape: str = "4,5,6") -> str:
    """A batch normalization n, and what reads it."""
    return f"""g (float[N,{shape}] x) => (float[?,?,?,?] y) <{P4}, {constants}>
        {{ n = BatchNormalization(x, gamma, beta, mean, var)  {node} }}"""


# name: (graph, opset, folded, kept)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "transposed-behind-with-strides": (behind("y = ConvTranspose<strides=[2,1]>(n, v)","float[4,2,1,1] v"), 13, [], {'n': 'padding_shift'}),
    "transposed-behind-with-strides-of-1": (behind("y = ConvTranspose<strides=[1,1]>(n, v)","float[4,2,1,1] v"), 13, ['n'], {}),
    "transposed-behind-with-a-kernel-along-one-axis": (behind("y = ConvTranspose(n, v)","float[4,2,1,2] v"), 13, [], {'n': 'padding_shift'}),
    "transposed-behind-with-a-kernel-along-the-first-axis": (behind("y = ConvTranspose(n, v)","float[4,2,2,1] v"), 13, [], {'n': 'padding_shift'}),
    "transposed-behind-padded": (behind("y = ConvTranspose<pads=[1,0,0,0]>(n, v)","float[4,2,1,1] v"), 13, [], {'n': 'padding_shift'}),
    "transposed-behind-same": (behind('y = ConvTranspose<auto_pad="SAME_UPPER", strides=[1,1]>(n, v)',"float[4,2,1,1] v"), 13, ['n'], {}),
    "transposed-behind-of-a-given-shape-valid": (behind('y = ConvTranspose<auto_pad="VALID", output_shape=[5,6]>(n, v)',"float[4,2,1,1] v"), 13, [], {'n': 'padding_shift'}),
    "valid": (behind('y = Conv<auto_pad="VALID">(n, v)',"float[2,4,2,3] v"), 13, ['n'], {}),
    "same-with-kernel-1-of-unknown-length": (behind('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(n, v)',shape="4,H,L"), 13, ['n'], {}),
    "same-of-unknown-length": (behind('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(n, v)',"float[2,4,2,2] v",shape="4,H,L"), 13, [], {'n': 'padding_shift'}),
    "same-that-fits": (behind('y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(n, v)',"float[2,4,2,3] v",shape="4,6,6"), 13, ['n'], {}),
    "same-that-fits-along-one-axis": (behind('y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(n, v)',"float[2,4,2,3] v",shape="4,6,7"), 13, [], {'n': 'padding_shift'}),
    "same-without-strides": (behind('y = Conv<auto_pad="SAME_UPPER">(n, v)',"float[2,4,2,1] v",shape="4,6,6"), 13, [], {'n': 'padding_shift'}),
    "same-where-a-stride-passes-over": (behind('y = Conv<auto_pad="SAME_UPPER", strides=[3,3]>(n, v)',"float[2,4,2,2] v",shape="4,5,5"), 13, ['n'], {}),
    "weight-is-computed": (f'g (float[N,3,5] x, float[4,3,1] q) => (float[N,4,5] y) <{P4}> {{ w = Sigmoid(q)  c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }}', 13, [], {'y': 'dynamic_weight'}),
    "groups-in-front": (f'g (float[N,4,5] x) => (float[N,4,?] y) <float[4,2,2] w, {P4}> {{ c = Conv<group=2>(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }}', 13, ['y'], {}),
    "transposed-groups-in-front": (f'g (float[N,6,5] x) => (float[N,4,?] y) <float[6,2,3] w, {P4}> {{ c = ConvTranspose<group=2>(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }}', 13, ['y'], {}),
    "transposed-groups-behind": (f'g (float[N,4,5] x) => (float[N,6,?] y) <float[4,3,1] w, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  y = ConvTranspose<group=2>(n, w) }}', 13, ['n'], {}),
    "clip-from-0-of-opset-8": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<min=0.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 8, ['y'], {}),
    "clip-to-0-of-opset-8": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<max=0.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 8, ['y'], {}),
    "clip-at-6-of-opset-8": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<min=0.0, max=6.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 8, [], {'y': 'nonlinear'}),
    "clip-at-minus-1-of-opset-8": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<min=-1.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 8, [], {'y': 'nonlinear'}),
    "clip-from-0-of-opset-10": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<min=0.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 10, ['y'], {}),
    "clip-to-0-of-opset-10": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<max=0.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 10, ['y'], {}),
    "clip-at-6-of-opset-10": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<min=0.0, max=6.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 10, [], {'y': 'nonlinear'}),
    "clip-at-minus-1-of-opset-10": (f'g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {LIN}> {{ c = Conv(x, w)  p = Clip<min=-1.0>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 10, [], {'y': 'nonlinear'}),
    "clip-from-0-of-opset-11": (in_front("Clip(c, z)","float z={0}",parameters=LIN), 11, ['y'], {}),
    "clip-to-0-of-opset-12": (in_front('Clip(c, "", z)',"float z={0}",parameters=LIN), 12, ['y'], {}),
    "clip-from-1": (in_front("Clip(c, z)","float z={1}",parameters=LIN), 12, [], {'y': 'nonlinear'}),
    "clip-to-1": (in_front('Clip(c, "", z)',"float z={1}",parameters=LIN), 12, [], {'y': 'nonlinear'}),
    "clip-at-a-computed-bound": (f'g (float[N,3,5] x, float q) => (float[N,4,5] y) <float[4,3,1] w, {LIN}> {{ c = Conv(x, w)  b = Abs(q)  p = Clip(c, b)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'y': 'nonlinear'}),
    "clip-between-largest-numbers": (in_front("Clip<min=-3.4028234663852886e38, max=3.4028234663852886e38>(c)",parameters=LIN), 8, ['y'], {}),
    "max-behind": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float[1,4,1] k, {POS}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta, mean, var)  p = Max(n, m)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "max-behind-of-two-affines": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float[4] beta2, {POS}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta2, mean, var)  p = Max(n, m)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "max-behind-with-zero": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float z={{0}}, {LIN}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Max(z, n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "max-behind-with-zero-and-a-shift": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float z={{0}}, {POS}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Max(z, n)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input'}),
    "max-behind-of-a-sign": ('g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float[4] gamma={1,-2,0.5,3}, float[4] beta, float[4] mean, float[4] var> { n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta, mean, var)  p = Max(n, m)  y = Conv(p, v) }', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "min-behind": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float[1,4,1] k, {POS}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta, mean, var)  p = Min(n, m)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "min-behind-of-two-affines": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float[4] beta2, {POS}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta2, mean, var)  p = Min(n, m)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "min-behind-with-zero": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float z={{0}}, {LIN}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Min(z, n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "min-behind-with-zero-and-a-shift": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float z={{0}}, {POS}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Min(z, n)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input'}),
    "min-behind-of-a-sign": ('g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, float[4] gamma={1,-2,0.5,3}, float[4] beta, float[4] mean, float[4] var> { n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta, mean, var)  p = Min(n, m)  y = Conv(p, v) }', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "where-behind": (f'g (float[N,4,5] x, bool[N,1,5] b) => (float[N,2,5] y) <float[2,4,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  m = BatchNormalization(x, gamma, beta, mean, var)  p = Where(b, n, m)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input', 'm': 'graph_input'}),
    "where-behind-one-branch": (f'g (float[N,4,5] x, bool[N,1,5] b) => (float[N,2,5] y) <float[2,4,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Where(b, n, x)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input'}),
    "where-behind-with-zero": ('g (float[N,4,5] x, bool[N,1,5] b) => (float[N,2,5] y) <float[2,4,1] v, float z={0}, float[4] gamma, float[4] beta={0,0,0,0}, float[4] mean={0,0,0,0}, float[4] var> { n = BatchNormalization(x, gamma, beta, mean, var)  p = Where(b, z, n)  y = Conv(p, v) }', 13, ['n'], {}),
    "depth-of-3": ('g (float[N,3,2,2] x) => (float[N,2,6,6] y) <float[18,3,1,1] w, float[2] g2, float[2] b2, float[2] m2, float[2] var2> { c = Conv(x, w)  p = DepthToSpace<blocksize=3>(c)  y = BatchNormalization(p, g2, b2, m2, var2) }', 13, ['y'], {}),
    "depth-of-3-columns-first": ('g (float[N,3,2,2] x) => (float[N,2,6,6] y) <float[18,3,1,1] w, float[2] g2, float[2] b2, float[2] m2, float[2] var2> { c = Conv(x, w)  p = DepthToSpace<blocksize=3, mode="CRD">(c)  y = BatchNormalization(p, g2, b2, m2, var2) }', 13, ['y'], {}),
    "space-to-depth-in-front-of-different-channels": (f'g (float[N,3,4,4] x) => (float[N,4,2,2] y) <float[1,3,1,1] w, {P4}> {{ c = Conv(x, w)  p = SpaceToDepth<blocksize=2>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'y': 'not_per_channel'}),
    "depth-behind-channels-that-agree": ('g (float[N,4,2,2] x) => (float[N,2,4,4] y) <float[2,1,1,1] v, float[4] gamma={2,2,2,2}, float[4] beta={1,1,1,1}, float[4] mean={0,0,0,0}, float[4] var={1,1,1,1}> { n = BatchNormalization(x, gamma, beta, mean, var)  p = DepthToSpace<blocksize=2>(n)  y = Conv(p, v) }', 13, ['n'], {}),
    "depth-behind-channels-that-differ": (f'g (float[N,4,2,2] x) => (float[N,2,4,4] y) <float[2,1,1,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = DepthToSpace<blocksize=2>(n)  y = Conv(p, v) }}', 13, [], {'n': 'not_per_channel'}),
    "depth-along-positions": ('g (float[N,3,2,2] x) => (float[N,1,4,4] y) <float[4,3,1,1] w, float[4,1] k> { c = Conv(x, w)  p = DepthToSpace<blocksize=2>(c)  y = Mul(p, k) }', 13, [], {'y': 'not_per_channel'}),
    "space-to-depth-behind": (f'g (float[N,4,4,4] x) => (float[N,2,2,2] y) <float[2,16,1,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = SpaceToDepth<blocksize=2>(n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "cast-behind-to-a-narrower-type": ('g (double[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, double[4] gamma, double[4] beta, double[4] mean, double[4] var> { n = BatchNormalization(x, gamma, beta, mean, var)  p = Cast<to=1>(n)  y = Conv(p, v) }', 13, [], {'n': 'overflow'}),
    "cast-behind-to-its-own-type": (f'g (float[N,4,5] x) => (float[N,2,5] y) <float[2,4,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Cast<to=1>(n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "cast-in-front-from-a-wider-type": (f'g (double[N,3,5] x) => (float[N,4,5] y) <double[4,3,1] w, {P4}> {{ c = Conv(x, w)  p = Cast<to=1>(c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, ['y'], {}),
    "cast-in-front-to-integers-and-back": (f'g (float[N,3,5] x) => (float[N,4,5] y) <float[4,3,1] w, {P4}> {{ c = Conv(x, w)  i = Cast<to=6>(c)  p = Cast<to=1>(i)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'y': 'overflow'}),
    "squeeze-behind": (f'g (float[N,4,1,5] x) => (float[N,2,5] y) <float[2,4,1] v, int64[1] a={{2}}, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Squeeze(n, a)  y = Conv(p, v) }}', 13, ['n'], {}),
    "squeeze-behind-of-opset-12": (f'g (float[N,4,1,5] x) => (float[N,2,5] y) <float[2,4,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Squeeze<axes=[-2]>(n)  y = Conv(p, v) }}', 12, ['n'], {}),
    "squeeze-behind-of-all": (f'g (float[3,4,1,5] x) => (float[3,2,5] y) <float[2,4,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Squeeze(n)  y = Conv(p, v) }}', 13, ['n'], {}),
    "expand-behind": (f'g (float[N,4,1,5] x) => (float[N,2,3,5] y) <float[2,4,1,1] v, int64[4] s={{1,1,3,1}}, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Expand(n, s)  y = Conv(p, v) }}', 13, ['n'], {}),
    "sum-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,2,5] y) <float[2,4,1] v, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  p = Sum(z, n, z)  y = Conv(p, v) }', 13, ['n'], {}),
    "sum-behind-of-a-scale": (f'g (float[N,4,5] x, float[N,4,5] z) => (float[N,2,5] y) <float[2,4,1] v, {P4}> {{ n = BatchNormalization(x, gamma, beta, mean, var)  p = Sum(z, n, z)  y = Conv(p, v) }}', 13, [], {'n': 'graph_input'}),
    "difference-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,2,5] y) <float[2,4,1] v, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  p = Sub(z, n)  y = Conv(p, v) }', 13, ['n'], {}),
    "add-and-a-constant-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,4,5] y, float[N,4,5] u) <float[4,4,1] v, float[4,1] k, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  q = Identity(n)  p = Add(q, k)  y = Conv(p, v)  u = Relu(p) }', 13, ['n'], {}),
    "add-and-a-constant-in-front": (f'g (float[N,3,5] x, float[N,4,5] z) => (float[N,4,5] y) <float[4,3,1] w, float[5] k, {P4}> {{ c = Conv(x, w)  q = Relu(c)  p = Add(c, k)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'y': 'fan_out'}),
    "sub-and-a-constant-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,4,5] y, float[N,4,5] u) <float[4,4,1] v, float[4,1] k, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  q = Identity(n)  p = Sub(q, k)  y = Conv(p, v)  u = Relu(p) }', 13, ['n'], {}),
    "sub-and-a-constant-in-front": (f'g (float[N,3,5] x, float[N,4,5] z) => (float[N,4,5] y) <float[4,3,1] w, float[5] k, {P4}> {{ c = Conv(x, w)  q = Relu(c)  p = Sub(c, k)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'y': 'fan_out'}),
    "sub-of-a-constant-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,4,5] y, float[N,4,5] u) <float[4,4,1] v, float[4,1] k, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  q = Identity(n)  p = Sub(k, q)  y = Conv(p, v)  u = Relu(p) }', 13, ['n'], {'p': 'graph_input'}),
    "sub-of-a-constant-in-front": (f'g (float[N,3,5] x, float[N,4,5] z) => (float[N,4,5] y) <float[4,3,1] w, float[5] k, {P4}> {{ c = Conv(x, w)  q = Relu(c)  p = Sub(k, c)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'p': 'fan_out', 'y': 'fan_out'}),
    "mul-and-a-constant-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,4,5] y, float[N,4,5] u) <float[4,4,1] v, float[4,1] k, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  q = Identity(n)  p = Mul(q, k)  y = Conv(p, v)  u = Relu(p) }', 13, ['p'], {'n': 'graph_input'}),
    "mul-and-a-constant-in-front": (f'g (float[N,3,5] x, float[N,4,5] z) => (float[N,4,5] y) <float[4,3,1] w, float[5] k, {P4}> {{ c = Conv(x, w)  q = Relu(c)  p = Mul(c, k)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'p': 'fan_out', 'y': 'fan_out'}),
    "div-and-a-constant-behind": ('g (float[N,4,5] x, float[N,4,5] z) => (float[N,4,5] y, float[N,4,5] u) <float[4,4,1] v, float[4,1] k, float[4] one={1,1,1,1}, float[4] beta, float[4] mean> { n = BatchNormalization<epsilon=0.0>(x, one, beta, mean, one)  q = Identity(n)  p = Div(q, k)  y = Conv(p, v)  u = Relu(p) }', 13, ['p'], {'n': 'graph_input'}),
    "div-and-a-constant-in-front": (f'g (float[N,3,5] x, float[N,4,5] z) => (float[N,4,5] y) <float[4,3,1] w, float[5] k, {P4}> {{ c = Conv(x, w)  q = Relu(c)  p = Div(c, k)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'p': 'fan_out', 'y': 'fan_out'}),
    "variance-below-epsilon": ('g (float[N,3,5] x) => (float[N,4,5] y) <float[4,3,1] w, float[4] gamma, float[4] beta, float[4] mean, float[4] small={0,1e-6,1,1}> { c = Conv(x, w)  y = BatchNormalization<epsilon=0.001>(c, gamma, beta, mean, small) }', 13, ['y'], {}),
    "mean-that-counts-padding-of-opset-7": (in_front("AveragePool<kernel_shape=[2,2], pads=[1,1,0,0], count_include_pad=1>(c)"), 7, [], {'y': 'padding_shift'}),
    "mean-that-counts-no-padding-of-opset-7": (in_front("AveragePool<kernel_shape=[2,2], pads=[1,1,0,0]>(c)"), 7, ['y'], {}),
    "mean-that-counts-same": (in_front('AveragePool<kernel_shape=[2,2], auto_pad="SAME_LOWER", count_include_pad=1>(c)'), 13, [], {'y': 'padding_shift'}),
    "mean-that-counts-the-last-window": (in_front("AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1, count_include_pad=1>(c)"), 13, [], {'y': 'padding_shift'}),
    "resize-channels-too": (f'g (float[N,2,3,3] x) => (float[?,4,?,?] y) <float[2,2,1,1] w, float[4] s={{1,2,1,1}}, {P4}> {{ c = Conv(x, w)  p = Resize<mode="nearest">(c, "", s)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, [], {'y': 'not_per_channel'}),
    "resize-of-named-axes": (in_front("Resize<axes=[2,3]>(c, \"\", s)","float[2] s={2,3}"), 18, ['y'], {}),
    "resize-of-named-axes-with-channels": (in_front("Resize<axes=[3,1], mode=\"nearest\">(c, \"\", s)","float[2] s={2,1}"), 18, ['y'], {}),
    "resize-of-named-axes-with-other-channels": (in_front("Resize<axes=[3,1], mode=\"nearest\">(c, \"\", s)","float[2] s={2,1.2}"), 18, [], {'y': 'not_per_channel'}),
    "resize-to-sizes": (in_front("Resize(c, \"\", \"\", s)","int64[4] s={2,4,7,7}"), 13, ['y'], {}),
    "resize-to-sizes-of-the-batch-too": (f'g (float[2,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {P4}, int64[4] s={{4,4,7,7}}> {{ c = Conv(x, w)  p = Resize<mode="nearest">(c, "", "", s)  y = BatchNormalization(p, gamma, beta, mean, var) }}', 13, ['y'], {}),
    "resize-keeping-its-aspect": (in_front("Resize<axes=[2,1], keep_aspect_ratio_policy=\"not_larger\", mode=\"nearest\">(c, \"\", \"\", s)","int64[2] s={5,4}"), 18, [], {'y': 'not_per_channel'}),
    "upsample-of-opset-7": (in_front("Upsample<scales=[1.0,1.0,2.0,2.0]>(c)"), 7, ['y'], {}),
    "upsample-of-opset-9": (in_front("Upsample(c, s)","float[4] s={1,1,2,2}"), 9, ['y'], {}),
    "resize-of-opset-10": (in_front("Resize(c, s)","float[4] s={1,1,2,2}"), 10, ['y'], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, folded, kept = CASES[name]
    model = build(text, opset=opset)
    assert_fold(model, folded=folded, kept=kept, sizes={"N": 3, "H": 5, "L": 6})
