"""``--simplify``: what onnxsim may change, and what it may not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx.parser import parse_model

import bnfold
from bnfold.cli import main

# A Conv whose weights are an expression over constants.
TEXT = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "me", metadata_props: ["mine": "yes"]>
model (float[N, 1, 4, 4] x{inputs}) => (float[N, 2, 4, 4] y)
<float[2, 1, 1, 1] w = {{1.5, -2.0}}, float[2] gamma = {{1.0, 2.0}}, float[2] beta = {{0.5, -0.5}},
 float[2] mean = {{0.1, 0.2}}, float[2] var = {{1.0, 4.0}}>
{{
    w2 = Sin (w)
    w3 = Mul (w2, w)
    c = Conv (x, w3)
    y = BatchNormalization (c, gamma, beta, mean, var)
}}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(parse_model(TEXT.format(inputs="")), path)
    return path


def test_simplify_makes_way_and_says_so(model: Path) -> None:
    pytest.importorskip("onnxsim")
    report = bnfold.optimize(model, simplify=True)
    assert len(report.folded) == 1
    assert report.equivalent is True
    assert report.nodes_before == 4
    assert "made 2 nodes of 4" in report.hints[0]
    written = onnx.load(report.output or "")
    assert [node.op_type for node in written.graph.node] == ["Conv"]
    assert written.producer_name == "me"
    original = onnx.load(model)
    assert written.graph.input == original.graph.input
    assert written.graph.output == original.graph.output
    theirs = {entry.key for entry in written.metadata_props if "onnxsim" in entry.key}
    assert not theirs
    assert "mine" in {entry.key for entry in written.metadata_props}


def test_an_initializer_that_a_caller_may_replace_stays_replaceable(tmp_path: Path) -> None:
    pytest.importorskip("onnxsim")
    path = tmp_path / "m.onnx"
    onnx.save(parse_model(TEXT.format(inputs=", float[2, 1, 1, 1] w")), path)
    report = bnfold.optimize(path, simplify=True)
    written = onnx.load(report.output or "")
    assert [value.name for value in written.graph.input] == ["x", "w"]
    assert "Sin" in [node.op_type for node in written.graph.node]
    frozen = bnfold.optimize(path, simplify=True, freeze_initializers=True)
    written = onnx.load(frozen.output or "")
    assert [value.name for value in written.graph.input] == ["x"]
    assert len(frozen.folded) == 1


def test_json_stays_clean(model: Path) -> None:
    pytest.importorskip("onnxsim")
    result = CliRunner().invoke(main, ["optimize", str(model), "--simplify", "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["summary"]["folded"] == 1
    assert "onnxsim" in result.stderr


def test_without_onnxsim(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    result = CliRunner().invoke(main, ["optimize", str(model), "--simplify"])
    assert result.exit_code == 4
    assert result.stderr.splitlines() == [
        f"error: {model}: --simplify needs onnxsim, which is not installed",
        'hint: pip install "bnfold[simplify]"',
    ]
    assert [path.name for path in model.parent.iterdir()] == ["m.onnx"]


def test_onnxsim_that_fails_is_an_input_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxsim = pytest.importorskip("onnxsim")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(onnxsim, "simplify", broken)
    with pytest.raises(bnfold.InputError, match="no luck"):
        bnfold.optimize(model, simplify=True)
