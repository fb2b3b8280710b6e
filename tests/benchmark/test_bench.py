"""The benchmark: what it reports, and that it does not take noise for a difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import bnfold
from bnfold.benchmark.interval import ratio_interval, summarize
from bnfold.cli import main
from bnfold.errors import InputError, ModelError, ProviderError

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
Save = Callable[[str, str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, graph: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        header = '<ir_version: 8, opset_import: ["" : 17]>'
        onnx.save(onnx.parser.parse_model(f"{header}\n{graph}"), path)
        return path

    return write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


LIGHT = "g (float[N,64] x) => (float[N,64] y) { y = Relu (x) }"
HEAVY = """g (float[N,64] x) => (float[N,64] y) {
    a = Softmax (x) b = Softmax (a) c = Softmax (b) d = Softmax (c) y = Softmax (d)
}"""


def test_a_clear_difference_is_seen(save: Save) -> None:
    light, heavy = save("light", LIGHT), save("heavy", HEAVY)
    report = bnfold.bench([heavy, light], batches=[512], seconds=0.4, footprint=False)
    first, second = report.speeds
    assert (first.model, first.ratio, first.verdict) == (str(heavy), None, None)
    assert first.setting.shapes == {"x": (512, 64)}
    assert second.verdict == "faster"
    assert second.ratio is not None
    assert second.interval is not None
    assert second.interval[0] <= second.ratio <= second.interval[1] < 1
    assert second.throughput == pytest.approx(512e3 / second.latency.median)
    assert first.latency.runs == second.latency.runs >= 20
    (again,) = (
        s for s in bnfold.bench([light, heavy], batches=[512], seconds=0.4).speeds if s.ratio
    )
    assert again.verdict == "slower"


def test_footprint_is_that_of_the_model(save: Save) -> None:
    def weights(columns: int) -> Path:
        return save(
            f"w{columns}",
            f"g (float[1,4000] x) => (float[1,{columns}] y) {{"
            f"s = Constant <value_ints = [4000, {columns}]> ()"
            "w = ConstantOfShape (s)"
            "y = MatMul (x, w) }",
        )

    report = bnfold.bench([weights(8), weights(4000)], level="disable_all", seconds=0.1)
    small, large = report.footprints
    assert large.memory_bytes - small.memory_bytes > 0.8 * 4 * 4000**2
    assert small.load_ms > 0
    assert report.environment["onnxruntime"]


def test_settings_are_multiplied(save: Save) -> None:
    report = bnfold.bench(
        save("light", LIGHT), batches=[1, 4], threads=[1, 2], seconds=0.05, footprint=False
    )
    found = [(speed.setting.batch, speed.setting.threads) for speed in report.speeds]
    assert found == [(1, 1), (1, 2), (4, 1), (4, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Bursts that last for many rounds and hit both, with noise of each run's own.
    burst = np.repeat(rng.choice([1.0, 1.7], 20), 15)
    one, other = (np.split(burst * np.exp(rng.normal(0, 0.1, 300)), 6) for _ in range(2))
    ratio, (low, high) = ratio_interval(one, other, 0)
    assert low <= 1 <= high
    assert low <= ratio <= high
    ratio, (low, high) = ratio_interval([part * 0.9 for part in one], other, 0)
    assert high < 1
    assert ratio == pytest.approx(0.9, rel=0.05)


@pytest.mark.parametrize("of_loading", [0.0, 0.01, 0.1], ids="effect {}".format)
def test_interval_covers_as_often_as_it_says(of_loading: float) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        effects = np.exp(rng.normal(0, of_loading, (6, 1)))
        one, other = np.exp(rng.normal(0, 0.05, (2, 6, 40)))
        low, high = ratio_interval(list(one * effects), list(other), trial)[1]
        hits += low <= 1 <= high
    assert hits >= 55


def test_one_loading_has_an_interval_too() -> None:
    one, other = np.exp(np.random.default_rng(0).normal(0, 0.05, (2, 1, 200)))
    ratio, (low, high) = ratio_interval(list(1.5 * one), list(other), 0)
    assert 1 < low < ratio < high < 2


def test_summary() -> None:
    latency = summarize([np.arange(1.0, 51.0), np.arange(51.0, 102.0)])
    assert (latency.low, latency.median, latency.high, latency.runs) == (6, 51, 96, 101)


def test_json(save: Save) -> None:
    light = save("light", LIGHT)
    result = run(light, light, "--seconds", "0.05", "--json", "--dim", "N=2")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["schema_version"] == 1
    assert report["models"] == [str(light)] * 2
    first, second = report["speeds"]
    assert first["ratio"] is None
    assert first["shapes"] == {"x": [2, 64]}
    assert second["verdict"] in {"faster", "slower", "no difference measured"}
    assert set(first["latency_ms"]) == {"median", "p5", "p95", "runs"}
    assert len(report["footprints"]) == 2


def test_table(save: Save) -> None:
    light = save("light", LIGHT)
    result = run(light, save("heavy", HEAVY), "--seconds", "0.05", "--no-footprint", "--batch", 64)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "CPU, level default, x 64x64" in result.stderr
    assert "99 % interval" in result.stderr
    assert "memory" not in result.stderr


def test_models_with_other_inputs_are_refused(save: Save) -> None:
    other = save("other", "g (float[N,64] z) => (float[N,64] y) { y = Relu (z) }")
    with pytest.raises(InputError, match="cannot take the place"):
        bnfold.bench([save("light", LIGHT), other])
    assert run(save("light", LIGHT), other).exit_code == 2


def test_fixed_batch(save: Save) -> None:
    fixed = save("fixed", "g (float[3,64] x) => (float[3,64] y) { y = Relu (x) }")
    with pytest.raises(InputError, match="leaves its first dimension open"):
        bnfold.bench(fixed, batches=[4])
    (speed,) = bnfold.bench(fixed, seconds=0.05, footprint=False).speeds
    assert speed.setting.batch == 3


def test_model_that_does_not_run_at_this_size(save: Save) -> None:
    tight = save(
        "tight",
        "g (float[N,64] x) => (float[N,64] y) {"
        "s = Constant <value_ints = [1, 64]> () y = Reshape (x, s) }",
    )
    with pytest.raises(ModelError, match=r"tight\.onnx: it does not run"):
        bnfold.bench([save("light", LIGHT), tight], batches=[4])


def test_missing_file_and_provider(save: Save, tmp_path: Path) -> None:
    assert run(tmp_path / "none.onnx").exit_code == 2
    with pytest.raises(ProviderError):
        bnfold.bench(DIGITS, providers=["azure"])
    assert run().exit_code == 2
