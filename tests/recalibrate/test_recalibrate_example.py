"""The example helps, by as much as the README says; statistics are shown without data too."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from test_recalibrate_numbers import TWO_IN_A_ROW, draw, model_of

import bnfold
from bnfold.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW = r"^\| ([a-z ]+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|$"


def test_the_example_gives_the_numbers_of_the_readme(tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "recalibrate_digits.py"))
    told = {name: tuple(map(float, rest)) for name, *rest in re.findall(ROW, README, re.MULTILINE)}
    assert list(told) == list(example["SHIFTS"])
    for shift, numbers in told.items():
        found = example["compare"](shift, tmp_path)
        assert found == pytest.approx(numbers, abs=0.01), shift
        before, after, folded = found
        assert after > before + 0.05
        assert folded == pytest.approx(after, abs=0.004)


def test_the_options_of_the_readme_exist() -> None:
    section = README.split("## Statistics from data\n")[1].split("\n## ")[0]
    command = main.get_command(None, "recalibrate")
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    table = section.split("| option of `recalibrate`")[1]
    mentioned = set(re.findall(r"`(--[a-z][a-z-]*)", table))
    assert mentioned <= known
    hidden = {"--seed", "--timeout", "--verbose", "--quiet", "--output", "--config", "--no-config"}
    assert {option for option in known if option.startswith("--")} - hidden == mentioned


def with_parameters(path: Path, **values: list[float]) -> Path:
    proto = model_of(TWO_IN_A_ROW)
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            array = np.array(values[tensor.name], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, path)
    return path


def test_statistics_without_data(tmp_path: Path) -> None:
    path = with_parameters(
        tmp_path / "m.onnx",
        g1=[1, 1e-5, 2], m1=[0, 1, -3], v1=[1, 2, 1e-6], g2=[1, -1, 1], v2=[1, 1, 1],
    )  # fmt: skip
    result = CliRunner().invoke(main, ["inspect", str(path), "--statistics", "--json"])
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)["statistics"]
    assert (first["name"], first["graph"], first["channels"]) == ("a", "main", 3)
    assert first["mean"] == [-3, 1]
    assert first["dead_scale"] == [1]
    assert first["dead_variance"] == [2]
    assert first["noisy"] == [2]
    assert first["largest_gain"] == pytest.approx(2 / np.sqrt(1.1e-5), rel=1e-4)
    assert not first["never_updated"]
    assert second["never_updated"]
    plain = CliRunner().invoke(main, ["inspect", str(path), "--json"])
    assert "statistics" not in json.loads(plain.stdout)
    shown = CliRunner().invoke(main, ["inspect", str(path), "--statistics"])
    assert "2 dead, 1 amplify noise" in shown.stderr
    assert "never updated" in shown.stderr


def test_statistics_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = with_parameters(tmp_path / "m.onnx", m1=[0, float("nan"), 1], v1=[1, 1, -2])
    report = bnfold.inspect(path, statistics=True)
    assert report.statistics is not None
    assert report.statistics[0].not_finite == (1, 2)
    assert report.statistics[0].mean == (0, 1)


def test_drift_by_hand(tmp_path: Path) -> None:
    path = with_parameters(tmp_path / "m.onnx", m1=[0, 0, 0], v1=[1, 1, 4], g1=[1, 1, 1])
    rows = draw(500, 3, 8, 8).astype(np.float64)
    rows = (rows - rows.mean((0, 2, 3), keepdims=True)) / rows.std((0, 2, 3), keepdims=True)
    rows[:, 1] += 3
    report = bnfold.recalibrate(
        path, tmp_path / "o.onnx", data=[rows.astype(np.float32)], variance="population"
    )
    drift = next(norm for norm in report.norms if norm.name == "a")
    assert drift.values == 500 * 64
    assert drift.mean_shift == pytest.approx(3, rel=1e-4)
    assert drift.log_variance_ratio == pytest.approx(-np.log(4), rel=1e-4)
    # 3^2 (1 + 1) / 2 for the shift, (4 + 1/4 - 2) / 2 for the variance.
    assert (drift.kl_max, drift.worst_channel) == (pytest.approx(9, rel=1e-4), 1)
    assert drift.kl == pytest.approx((9 + 1.125) / 3, rel=1e-4)
