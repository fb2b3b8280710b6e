"""``--no-merge`` and ``--ones-channel``, and what reports say of branches."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run
from tests.support import build

BLOCK = """g (float[N,4,6,5] x) => (float[N,4,6,5] y)
    <float[4,4,3,3] w, float[4,4,1,1] p, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { [large] a = Conv<pads=[1,1,1,1]>(x, w)  [small] q = Conv(x, p)
      [norm] n = BatchNormalization(x, gamma, beta, mean, var)
      s = Add(a, q)  [sum] y = Add(s, n) }"""
APART = """g (float[N,4,6,5] x) => (float[N,4,6,5] y) <float[1,4,1,1] w, float[4,1,1,1] p>
    { u = Conv(x, w)  [last] y = Conv(u, p) }"""
PADDED = """g (float[N,3,6,5] x) => (float[N,2,6,5] y)
    <float[4,3,1,1] w, float[2,4,3,3] p, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { a = Conv(x, w)  r = Relu(a)  n = BatchNormalization(r, gamma, beta, mean, var)
      y = Conv<pads=[1,1,1,1]>(n, p) }"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(build(BLOCK), path)
    return path


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_branches_are_merged_and_reported(run: Run, model: Path) -> None:
    result = run("optimize", model, "--no-check", "--json")
    assert result.exit_code == 0
    assert operators(model.with_name("model.folded.onnx")) == ["Conv"]
    report = json.loads(result.stdout)
    sites = {site["name"]: site for site in report["sites"]}
    assert sites["small"]["kind"] == "branch"
    assert sites["small"]["into"] == sites["norm"]["into"] == ["large"]
    assert sites["small"]["direction"] == sites["norm"]["direction"] == "parallel"
    assert "sum" in sites["small"]["through"]
    assert report["summary"]["merged"] == 1


def test_the_table_counts_branches_apart(run: Run, model: Path) -> None:
    result = run("optimize", model, "--no-check")
    assert "folded 1 of 1, merged 1 branch" in result.stderr
    assert "would fold 1 of 1, would merge 1 branch" in run("inspect", model).stderr


def test_no_merge(run: Run, model: Path) -> None:
    result = run("optimize", model, "--no-check", "--no-merge", "--json")
    assert json.loads(result.stdout)["summary"]["merged"] == 0
    expected = ["Conv", "Conv", "BatchNormalization", "Add", "Add"]
    assert operators(model.with_name("model.folded.onnx")) == expected


def test_branches_that_stay_are_no_sites_that_must_fold(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save(build(APART), path)
    result = run("optimize", path, "--no-check", "--require-folded", "--json")
    assert result.exit_code == 0
    (site,) = json.loads(result.stdout)["sites"]
    assert (site["name"], site["verdict"], site["reason"]) == ("last", "kept", "no_gain")
    assert "instead of 8 and 32" in site["detail"]


def test_ones_channel(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "padded.onnx"
    onnx.save(build(PADDED), path)
    target = path.with_name("padded.folded.onnx")
    assert run("optimize", path, "--no-check").exit_code == 0
    assert "BatchNormalization" in operators(target)
    assert run("optimize", path, "--no-check", "--ones-channel").exit_code == 0
    assert operators(target) == ["Conv", "Relu", "Conv"]
