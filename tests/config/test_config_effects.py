"""What a file sets changes what is done: with real models, in processes of their own too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

Run = Callable[..., Result]
Write = Callable[[str, str], Path]


@pytest.fixture
def other(digits: Path) -> Path:
    """The model with logits that are 0.01 off."""
    model = onnx.load(digits)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc2.bias")
    moved = numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(numpy_helper.from_array(moved, bias.name))
    path = digits.with_name("other.onnx")
    onnx.save(model, path)
    return path


def test_tolerances_of_an_output(run: Run, write: Write, digits: Path, other: Path) -> None:
    text = '[models."digits*"]\ntolerances = { logits = { rtol = 0, atol = %s } }'
    write("bnfold.toml", text % 0.1)
    result = run("check", digits, other, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert report["checks"][0]["outputs"][0]["max_abs"] > 0.009
    write("bnfold.toml", text % 0.001)
    result = run("check", digits, other)
    assert result.exit_code == 1
    (replay,) = (line for line in result.stderr.splitlines() if "bnfold check" in line)
    assert "--tolerances" not in replay
    write("bnfold.toml", "[models.x]\n[check]\ntolerances = { none = { rtol = 0, atol = 1 } }")
    result = run("check", digits, other)
    assert result.exit_code == 2
    assert "the model has no output 'none'" in result.stderr


def test_models_in_processes_of_their_own(
    run: Run, write: Write, digits: Path, other: Path
) -> None:
    write(
        "bnfold.toml",
        """
        [optimize]
        output-dir = "out"
        jobs = 2
        resume = true
        [models."oth*"]
        keep = ["/bn1*", "/bn2*"]
        tolerances = { logits = { rtol = 0, atol = 1 } }
        """,
    )
    for expected in (None, True):
        result = run("optimize", digits, other, "--json")
        assert result.exit_code == 0, result.stderr
        models = json.loads(result.stdout)["models"]
        assert [model["summary"]["folded"] for model in models] == [3, 1]
        assert [model.get("up_to_date") for model in models] == [expected, expected]
    write("bnfold.toml", "[optimize]\noutput-dir = 'out'\nresume = true\njobs = 2\n")
    models = json.loads(run("optimize", digits, other, "--json").stdout)["models"]
    assert [model.get("up_to_date") for model in models] == [True, None]
    assert [model["summary"]["folded"] for model in models] == [3, 3]
