"""Models that failed once are attacked again; and the attack itself is put to the test."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold import absorb
from tests.differential import Different, __main__, attack, saved
from tests.differential.attack import _compare
from tests.differential.opinions import float64_values, runtime_outputs
from tests.generate.builder import Case
from tests.generate.model import random_model
from tests.support import build

BROKEN = """g (double[N,3,5] x) => (double[N,4,5] z)
    <double[4,3,1] w, double[4] gamma, double[4] beta, double[4] mean, double[4] var>
    { a = Relu(x)  c = Conv(a, w)  y = BatchNormalization(c, gamma, beta, mean, var)  b = Sigmoid(y)
      z = Tanh(b) }"""


@pytest.mark.parametrize("name", list(saved.saved()))
def test_saved_case(name: str) -> None:
    case, options = saved.load(name)
    attack(case, **options)


def test_a_case_is_read_as_it_was_written(tmp_path: Path) -> None:
    case = random_model(random.Random(3))  # noqa: S311 - not for secrets
    case.feeds[0][next(iter(case.feeds[0]))].reshape(-1)[:1] = np.nan
    saved.save(tmp_path, "one", case, {"merge": False})
    again, options = saved.load("one", tmp_path)
    assert list(saved.saved(tmp_path)) == ["one"]
    assert options == {"merge": False}
    assert again.model == case.model
    for one, other in zip(case.feeds, again.feeds, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
            assert array.dtype == other[name].dtype


def test_a_wrong_fold_is_found_made_small_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = absorb.conv_output_scale
    monkeypatch.setattr(absorb, "conv_output_scale", lambda s, rank: right(s, rank) * 1.01)
    model = build(BROKEN)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 5))}
    with pytest.raises(Different):
        attack(Case(model, [feeds]))
    monkeypatch.setattr(__main__, "random_model", lambda _: Case(model, [feeds, feeds]))
    arguments = ["differential", "--count", "1", "--save", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert __main__.main() == 1
    assert "1 models, 1 failed" in capsys.readouterr().out
    (name,) = saved.saved(tmp_path)
    case, _ = saved.load(name, tmp_path)
    assert [node.op_type for node in case.model.graph.node] == ["Conv", "BatchNormalization"]
    assert len(case.feeds) == 1


def test_a_name_with_another_meaning_is_found() -> None:
    """Where the outputs agree, tensors inside may not be what they were called before."""
    model = build(
        """g (double[N,4] x) => (double[N,4] y) <double[4] k> { a = Mul(x, k)  y = Neg(a) }"""
    )
    other = build(
        """g (double[N,4] x) => (double[N,4] y) <double[4] k> { a = Neg(x)  y = Mul(a, k) }"""
    )
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 4))}
    with pytest.raises(Different, match="float64 a"):
        _compare(Case(model, [feeds]), other)


POOLS = [
    f"{op}<kernel_shape=[{k},3], strides=[2,{s}], ceil_mode={ceil}, {rest}>"
    for op, k, s, ceil, rest in itertools.product(
        ("MaxPool", "AveragePool"), (2, 3), (1, 2), (0, 1),
        ('auto_pad="SAME_UPPER"', 'auto_pad="VALID"', "pads=[0,1,0,2]", "dilations=[2,1]"),
    )
]  # fmt: skip
MORE_POOLS = [
    "AveragePool<kernel_shape=[3,2], pads=[1,1,2,0], count_include_pad=1, ceil_mode=1>",
    "MaxPool<kernel_shape=[3,2], pads=[1,1,2,0], dilations=[2,3]>",
]
# name: (node, constants)
OTHERS = {
    "groups": (
        "ConvTranspose<group=2, strides=[2,1], pads=[1,0,0,1]>(x, w, b)",
        "float[2,3,2,3] w, float[6] b",
    ),
    "cut": ("Pad(x, p, v, axes)", "int64[4] p={-1,2,1,-2}, float v={0.5}, int64[2] axes={-1,2}"),
    "edge": ('Pad<mode="edge">(x, p)', "int64[8] p={0,0,1,2,0,1,0,1}"),
}


@pytest.mark.parametrize("node", POOLS + MORE_POOLS)
def test_both_opinions_agree_on_pools(node: str) -> None:
    _agree(f"{node}(x)", "")


@pytest.mark.parametrize("name", OTHERS)
def test_both_opinions_agree(name: str) -> None:
    _agree(*OTHERS[name])


def _agree(node: str, constants: str) -> None:
    text = f"g (float[2,2,6,7] x) => (float[2,M,K,L] y) <{constants}> {{ y = {node} }}"
    model = build(text.replace("<>", ""), opset=19)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 2, 6, 7))}
    exact, found = float64_values(model)(feeds)["y"], runtime_outputs(model)(feeds)["y"]
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize(
    ("shape", "more"), [("", ""), ("[3]", "axis=1,"), ("[2,2]", "axis=1, block_size=2,")]
)
def test_both_opinions_agree_on_quantized_weights(kind: str, shape: str, more: str) -> None:
    attributes = f"<{more[:-1]}>" if more else ""
    model = build(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[2,2] x) => (float[2,3] y) <float{shape} s, {kind}[2,3] q, {kind}{shape} z>
        {{ w = DequantizeLinear{attributes}(q, s, z)  y = MatMul(x, w) }}""",
        {
            "q": [[1, -2, 3], [4, 5, -6]],
            "z": np.ones([int(n) for n in shape.strip("[]").split(",") if n]),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 2))}
    exact, found = float64_values(model)(feeds)["y"], runtime_outputs(model)(feeds)["y"]
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
