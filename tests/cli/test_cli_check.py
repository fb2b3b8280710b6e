from __future__ import annotations

import json
import shlex
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


def test_what_failed_can_be_seen_again(run: Run, digits: Path, other: Path) -> None:
    first = json.loads(run("check", digits, other, "--json").stdout)
    saved = other.with_name("other.failing.npz")
    assert {check["failing_feed"] for check in first["checks"]} == {str(saved)}
    said = run("check", digits, other).stderr
    assert f"hint: to see it again: {first['replay']}" in said.replace("\n", " ")
    program, *arguments = shlex.split(first["replay"])
    assert program == "bnfold"
    again = json.loads(run(*arguments, "--json", "--failing-feed", saved.with_name("2.npz")).stdout)
    assert [check["feeds"] for check in again["checks"]] == [1, 1]
    worst = [check["outputs"][0]["difference"] for check in first["checks"]]
    assert [check["outputs"][0]["difference"] for check in again["checks"]] == worst


def test_feed_that_cannot_be_saved_does_not_hide_the_difference(
    run: Run, digits: Path, other: Path
) -> None:
    result = run("check", digits, other, "--failing-feed", digits.parent / "no" / "such.npz")
    assert result.exit_code == 1
    assert "warning: the failing inputs could not be saved" in result.stderr


def test_nodes_of_each_provider_are_reported(run: Run, digits: Path) -> None:
    report = json.loads(run("check", digits, digits, "--json").stdout)
    (nodes,) = {json.dumps(check["nodes"]) for check in report["checks"]}
    assert json.loads(nodes) == {"CPUExecutionProvider": len(onnx.load(digits).graph.node)}
    assert report["replay"] is None


def test_a_provider_that_runs_nothing_is_exit_code_4(run: Run, digits: Path) -> None:
    result = run("check", digits, digits, "--provider", "cpu", "--provider", "azure", "--json")
    assert result.exit_code == 4
    report = json.loads(result.stdout)
    assert report["equivalent"] is None
    assert "are not on AzureExecutionProvider: Conv" in report["error"]["message"]
    assert [check["provider"] for check in report["checks"]] == ["CPUExecutionProvider"] * 2


def test_level_of_the_deployment(run: Run, digits: Path) -> None:
    report = json.loads(run("check", digits, digits, "--level", "extended", "--json").stdout)
    assert [check["level"] for check in report["checks"]] == ["disable_all", "extended"]
    report = json.loads(run("check", digits, digits, "--level", "disable_all", "--json").stdout)
    assert [check["level"] for check in report["checks"]] == ["disable_all"]


def test_localize_names_the_node(run: Run, digits: Path) -> None:
    model = onnx.load(digits)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "conv2.weight")
    values = numpy_helper.to_array(weight).copy()
    values[3] *= np.float32(1.001)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    wrong = digits.with_name("wrong.onnx")
    onnx.save(model, wrong)
    result = run("check", digits, wrong, "--localize", "--oracle")
    assert result.exit_code == 1
    assert result.stderr.count("first difference: '/conv2/Conv_output_0', Conv '/conv2/Conv'") == 1
    assert "BEYOND NOISE" in result.stderr
    assert "in float64" in result.stderr
    report = json.loads(run("check", digits, wrong, "--localize", "--json").stdout)
    for check in report["checks"]:
        assert check["localization"]["first"]["candidate_node"] == "/conv2/Conv"
    same = json.loads(run("check", digits, digits, "--localize", "--json").stdout)
    assert [check["localization"] for check in same["checks"]] == [None, None]


def test_tolerances_by_output(run: Run, digits: Path, other: Path, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text('{"log*": {"rtol": 0, "atol": 0.02}}')
    assert run("check", digits, other, "--tolerances", file).exit_code == 0
    tight = "--rtol", "0", "--atol", "0.001"
    assert run("check", digits, other, "--tolerances", file, *tight).exit_code == 0
    file.write_text('{"logits": {"rtol": 0, "atol": 0.001}}')
    assert run("check", digits, other, "--tolerances", file).exit_code == 1
    file.write_text('{"logit": {"rtol": 0, "atol": 0.001}}')
    result = run("check", digits, other, "--tolerances", file)
    assert result.exit_code == 2
    assert "no output 'logit'" in result.stderr
