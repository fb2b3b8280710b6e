"""Edges of merges: one attribute, length or number away from where the answer changes.

``z = Sub(b, b)`` are zeros that nobody knows, and ``h = Reshape(x, z)`` is x, of unknown shape. The
dimension M is as long as x has axes.
"""

from __future__ import annotations

import pytest

from tests.support import assert_fold, build, fold

UNKNOWN = "z = Sub(o, o)  h = Reshape(x, z)"

# name: (graph, opset, branches that go, places where branches stay)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "bias-of-a-first-convolution-with-more-channels": ('g (float[N,8,6] x) => (float[N,4,6] y) <float[8,8,3] w, float[8] b, float[4,8,1] p, float[4] c> { u = Conv<pads=[1,1]>(x, w, b)  y = Conv(u, p, c) }', 17, ['y'], {}),
    "bias-of-a-first-convolution-with-fewer-channels": ('g (float[N,4,6] x) => (float[N,8,6] y) <float[4,4,5] w, float[4] b, float[8,4,1] p> { u = Conv<pads=[2,2]>(x, w, b)  y = Conv(u, p) }', 17, [], {'y': 'no_gain'}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, merged, apart = CASES[name]
    model = build(text, opset=opset)
    assert_fold(model, merged=merged, apart=apart, sizes={"N": 2, "M": 3})
