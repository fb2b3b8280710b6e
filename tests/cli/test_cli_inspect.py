from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Run = Callable[..., Result]


def test_says_what_would_fold_and_writes_nothing(run: Run, digits: Path) -> None:
    result = run("inspect", digits)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "would fold 3 of 3" in result.stderr
    assert "nodes 13 -> 10" in result.stderr
    assert "written" not in result.stderr
    assert [path.name for path in digits.parent.iterdir()] == ["digits.onnx"]


def test_json(run: Run, digits: Path) -> None:
    result = run("inspect", digits, "--keep", "/bn2/*", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["output"] is None
    assert report["checks"] == []
    assert [site["verdict"] for site in report["sites"]] == ["folded", "kept", "folded"]
    assert report["sites"][1]["reason"] == "excluded"
    assert report["summary"]["bytes_after"] is None


def test_several_models(run: Run, digits: Path) -> None:
    run("optimize", digits)
    folded = digits.with_name("digits.folded.onnx")
    result = run("inspect", digits, folded, "--json")
    assert result.exit_code == 0
    counts = [model["summary"]["sites"] for model in json.loads(result.stdout)["models"]]
    assert counts == [3, 0]
