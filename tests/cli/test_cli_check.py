from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]


@pytest.fixture
def other(digits: Path) -> Path:
    """The same model, one bias a little off."""
    model = onnx.load(digits)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc2.bias")
    moved = numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(numpy_helper.from_array(moved, bias.name))
    path = digits.with_name("other.onnx")
    onnx.save(model, path)
    return path


def test_a_model_computes_the_same_as_itself(run: Run, digits: Path) -> None:
    result = run("check", digits, digits)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "compute the same" in result.stderr
    assert "equivalent" in result.stderr


def test_a_difference_is_exit_code_1(run: Run, digits: Path, other: Path) -> None:
    result = run("check", digits, other)
    assert result.exit_code == 1
    assert "do NOT compute the same" in result.stderr
    assert "DIFFERENT" in result.stderr


def test_tolerances_replace_the_rule(run: Run, digits: Path, other: Path) -> None:
    assert run("check", digits, other, "--rtol", "0", "--atol", "0.02").exit_code == 0
    assert run("check", digits, other, "--rtol", "0", "--atol", "0.001").exit_code == 1


def test_json(run: Run, digits: Path, other: Path) -> None:
    data = ROOT / "models" / "digits_heldout.npz"
    result = run("check", digits, other, "--data", data, "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["schema_version"] == 1
    assert (report["reference"], report["candidate"]) == (str(digits), str(other))
    assert report["equivalent"] is False
    (output,) = report["checks"][0]["outputs"]
    assert output["name"] == "logits"
    assert output["difference"] > output["allowed"]


def test_a_model_with_another_interface_is_different(run: Run, digits: Path) -> None:
    model = onnx.load(digits)
    model.graph.output[0].name = "/Relu_2_output_0"
    other = digits.with_name("other.onnx")
    onnx.save(model, other)
    result = run("check", digits, other)
    assert result.exit_code == 1
    assert "logits" in result.stderr


def test_missing_candidate(run: Run, digits: Path) -> None:
    result = run("check", digits, digits.with_name("missing.onnx"))
    assert result.exit_code == 2
    assert "missing.onnx" in result.stderr
