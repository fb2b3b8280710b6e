"""What every verb really prints obeys the schema, and says nothing that the schema leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import numpy_helper

from bnfold.report import REASONS, json_schema
from tests.cli.conftest import Run
from tests.report.samples import SAMPLES

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()


def closed(schema: Any) -> Any:
    """The schema with no other keys than those it describes."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and "type" in found:
        found["additionalProperties"] = False
    return found


CLOSED = Draft202012Validator(closed(SCHEMA))


def assert_valid(report: Any, *kinds: str) -> None:
    """The report is one of these kinds, and has no key that its description lacks."""
    Draft202012Validator(SCHEMA).validate(report)
    anyof = [{"$ref": f"#/$defs/{kind}"} for kind in kinds]
    CLOSED.evolve(schema={**CLOSED.schema, "anyOf": anyof}).validate(report)


@pytest.fixture
def other(digits: Path) -> Path:
    """A model that computes something else."""
    model = onnx.load(digits)
    bias = next(t for t in model.graph.initializer if t.name.endswith("fc2.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
    path = digits.with_name("other.onnx")
    onnx.save(model, path)
    return path


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    reasons = SCHEMA["$defs"]["site"]["properties"]["reason"]["enum"]
    assert reasons == [*(reason.value for reason in REASONS), None]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_of_the_tests_are_honest(name: str) -> None:
    kinds = ("fold", "comparison", "recalibration", "benchmark", "failure", "several")
    assert_valid(SAMPLES[name], *kinds)


def test_optimize(run: Run, digits: Path) -> None:
    report = run("optimize", digits, "--json", "--report", digits.with_name("r.json"))
    assert_valid(json.loads(report.stdout), "fold")
    assert json.loads(report.stdout)["statistics"][0]["histograms"]["scale"]["counts"]


@pytest.mark.usefixtures("wrong_fold")
def test_optimize_that_fails(run: Run, digits: Path) -> None:
    report = json.loads(run("optimize", digits, "--json").stdout)
    assert_valid(report, "fold")
    assert report["run"]["exit_code"] == report["error"]["exit_code"] == 3
    assert report["summary"]["folded"] == 3


def test_several(run: Run, digits: Path) -> None:
    broken = digits.with_name("broken.onnx")
    broken.write_bytes(b"no model")
    report = json.loads(run("optimize", digits, broken, "--json").stdout)
    assert_valid(report, "several")
    assert [each.get("error") is None for each in report["models"]] == [True, False]


@pytest.mark.parametrize("options", [[], ["--statistics"], ["--keep", "*bn2*"]])
def test_inspect(run: Run, digits: Path, options: list[str]) -> None:
    assert_valid(json.loads(run("inspect", digits, "--json", *options).stdout), "fold")


def test_check(run: Run, digits: Path, other: Path) -> None:
    file = digits.with_name("r.json")
    result = run("check", digits, other, "--localize", "--oracle", "--report", file)
    assert result.exit_code == 1, result.stderr
    report = json.loads(file.read_text())
    assert_valid(report, "comparison")
    assert report["checks"][0]["localization"]["layers"]
    assert report["operators"]["before"] == report["operators"]["after"]


def test_check_that_fails(run: Run, digits: Path) -> None:
    broken = digits.with_name("broken.onnx")
    broken.write_bytes(b"no model")
    assert_valid(json.loads(run("check", digits, broken, "--json").stdout), "failure", "comparison")


def test_recalibrate(run: Run, digits: Path) -> None:
    data = digits.with_name("x.npy")
    np.save(data, np.random.default_rng(0).random((64, 1, 8, 8), np.float32))
    output = digits.with_name("o.onnx")
    command = ("recalibrate", digits, "-o", output, "--only", "/bn[12]*", "--json")
    result = run(*command, "--data", data)
    assert result.exit_code == 0, result.stderr
    assert_valid(json.loads(result.stdout), "recalibration")
    assert_valid(json.loads(run(*command, "--data", "no.npy").stdout), "failure")


def test_bench(run: Run, digits: Path) -> None:
    report = run("bench", digits, digits, "--seconds", "0.05", "--json", "--batch", 2)
    assert_valid(json.loads(report.stdout), "benchmark")
    failed = run("bench", digits.with_name("no.onnx"), "--json")
    assert_valid(json.loads(failed.stdout), "failure")
