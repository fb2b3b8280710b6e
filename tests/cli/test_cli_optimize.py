from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest
from click.testing import Result

from bnfold import pipeline

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_writes_beside_the_model_by_default(run: Run, digits: Path) -> None:
    before = digits.read_bytes()
    result = run("optimize", digits)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert names(digits.parent) == {"digits.onnx", "digits.folded.onnx"}
    assert digits.read_bytes() == before
    assert "BatchNormalization" not in ops(digits.with_name("digits.folded.onnx"))
    assert "folded 3 of 3" in result.stderr
    assert "nodes 13 -> 10" in result.stderr
    assert "equivalent" in result.stderr


def test_writes_where_it_is_told(run: Run, digits: Path) -> None:
    target = digits.with_name("other.onnx")
    assert run("optimize", digits, "-o", target).exit_code == 0
    assert names(digits.parent) == {"digits.onnx", "other.onnx"}


def test_output_dir_is_made_and_names_stay(run: Run, digits: Path) -> None:
    second = Path(shutil.copy(digits, digits.with_name("second.onnx")))
    directory = digits.parent / "out" / "deep"
    result = run("optimize", digits, second, "--output-dir", directory, "--json")
    assert result.exit_code == 0, result.stderr
    assert names(directory) == {"digits.onnx", "second.onnx"}
    report = json.loads(result.stdout)
    assert report["schema_version"] == 1
    assert [model["output"] for model in report["models"]] == [
        str(directory / "digits.onnx"),
        str(directory / "second.onnx"),
    ]


def test_in_place(run: Run, digits: Path) -> None:
    assert run("optimize", digits, "--in-place").exit_code == 0
    assert names(digits.parent) == {"digits.onnx"}
    assert "BatchNormalization" not in ops(digits)
    folded = digits.read_bytes()
    again = run("optimize", digits, "--in-place")
    assert again.exit_code == 0
    assert "left as it was" in again.stderr
    assert digits.read_bytes() == folded


def test_in_place_keeps_external_data_with_the_model(run: Run, digits: Path) -> None:
    model = digits.with_name("external.onnx")
    onnx.save(
        onnx.load(digits), model, save_as_external_data=True, location="weights", size_threshold=0
    )
    assert run("optimize", model, "--in-place").exit_code == 0
    assert run("check", digits, model).exit_code == 0
    assert not [name for name in names(digits.parent) if name.startswith(".")]


def test_nothing_to_fold_is_copied_byte_for_byte(run: Run, digits: Path) -> None:
    run("optimize", digits, "-o", digits.with_name("once.onnx"))
    once = digits.with_name("once.onnx").read_bytes()
    result = run("optimize", digits.with_name("once.onnx"), "-o", digits.with_name("twice.onnx"))
    assert result.exit_code == 0
    assert "no batch normalization" in result.stderr
    assert digits.with_name("twice.onnx").read_bytes() == once


def test_json_is_one_object_and_stderr_has_no_table(run: Run, digits: Path) -> None:
    target = digits.with_name("out.onnx")
    result = run("optimize", digits, "-o", target, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["model"] == str(digits)
    assert report["output"] == str(target)
    assert report["summary"] == {
        "sites": 3,
        "folded": 3,
        "kept": 0,
        "merged": 0,
        "nodes_before": 13,
        "nodes_after": 10,
        "bytes_before": digits.stat().st_size,
        "bytes_after": target.stat().st_size,
    }
    assert [site["name"] for site in report["sites"]] == [
        f"/bn{number}/BatchNormalization" for number in (1, 2, 3)
    ]
    assert {site["verdict"] for site in report["sites"]} == {"folded"}
    assert [check["level"] for check in report["checks"]] == ["disable_all", "default"]
    assert all(check["equivalent"] for check in report["checks"])


def test_quiet_says_nothing(run: Run, digits: Path) -> None:
    result = run("optimize", digits, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_report_file_is_what_json_prints(run: Run, digits: Path) -> None:
    file, again = digits.with_name("a.json"), digits.with_name("b.JSON")
    result = run("optimize", digits, "--json", "--report", file, "--report", again)
    assert result.exit_code == 0
    assert json.loads(file.read_text()) == json.loads(result.stdout)
    assert again.read_text() == file.read_text()


def test_keep_leaves_sites_alone(run: Run, digits: Path) -> None:
    result = run("optimize", digits, "--keep", "/bn1/*", "--keep", "*bn3*", "--require-folded")
    assert result.exit_code == 0, result.stderr
    assert "folded 1 of 3" in result.stderr
    assert "excluded" in result.stderr
    assert ops(digits.with_name("digits.folded.onnx")).count("BatchNormalization") == 2


OVERRIDABLE = """
<ir_version: 8, opset_import: ["" : 17]>
model (float[N, 1, 4, 4] x, float[2, 1, 1, 1] w) => (float[N, 2, 4, 4] y)
<float[2, 1, 1, 1] w = {1.5, -2.0}, float[2] gamma = {1.0, 2.0}, float[2] beta = {0.5, -0.5},
 float[2] mean = {0.1, 0.2}, float[2] var = {1.0, 4.0}>
{
    c = Conv (x, w)
    y = BatchNormalization (c, gamma, beta, mean, var)
}
"""


def test_overridable_weights_are_kept_with_a_hint_and_folded_when_frozen(
    run: Run, tmp_path: Path
) -> None:
    model, target = tmp_path / "m.onnx", tmp_path / "m.folded.onnx"
    onnx.save(onnx.parser.parse_model(OVERRIDABLE), model)
    result = run("optimize", model)
    assert result.exit_code == 0
    assert target.read_bytes() == model.read_bytes()
    hints = [line for line in result.stderr.splitlines() if line.startswith("hint: ")]
    assert len(hints) == 1
    assert "--freeze-initializers" in hints[0]

    required = run("optimize", model, "--require-folded", "--json")
    assert required.exit_code == 1
    assert json.loads(required.stdout)["sites"][0]["reason"] == "overridable_initializer"
    assert "error: " in required.stderr

    frozen = run("optimize", model, "--freeze-initializers", "--require-folded")
    assert frozen.exit_code == 0, frozen.stderr
    assert ops(target) == ["Conv"]
    assert [value.name for value in onnx.load(target).graph.input] == ["x"]


def test_no_check_makes_none(run: Run, digits: Path) -> None:
    result = run("optimize", digits, "--no-check", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["checks"] == []


def test_the_check_is_of_the_data_given(run: Run, digits: Path) -> None:
    data = ROOT / "models" / "digits_heldout.npz"
    result = run("optimize", digits, "--data", data, "--seed", 3, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["checks"][0]["feeds"] > 1


@pytest.mark.parametrize("shape", ["4x1x8x8", "images:4,1,8,8"])
def test_shapes_and_dimensions_of_the_check(run: Run, digits: Path, shape: str) -> None:
    assert run("optimize", digits, "--input", shape).exit_code == 0
    assert run("optimize", digits, "--dim", "N=5").exit_code == 0


@pytest.mark.usefixtures("wrong_fold")
def test_not_equivalent_writes_nothing_but_the_evidence(run: Run, digits: Path) -> None:
    result = run("optimize", digits, "--report", digits.with_name("report.json"))
    assert result.exit_code == 3
    assert names(digits.parent) == {"digits.onnx", "digits.folded.failing.npz", "report.json"}
    assert "DIFFERENT" in result.stderr
    assert "nothing was written" in result.stderr
    assert "digits.folded.failing.npz" in result.stderr.splitlines()[-1]
    report = json.loads(digits.with_name("report.json").read_text())
    assert report["error"]["kind"] == "NotEquivalentError"
    assert report["error"]["exit_code"] == 3
    assert report["output"] is None
    assert not report["checks"][0]["equivalent"]


@pytest.mark.usefixtures("wrong_fold")
def test_not_equivalent_in_place_leaves_the_model(run: Run, digits: Path) -> None:
    before = digits.read_bytes()
    assert run("optimize", digits, "--in-place", "--json").exit_code == 3
    assert digits.read_bytes() == before


@pytest.mark.usefixtures("wrong_fold")
def test_tolerances_replace_the_rule(run: Run, digits: Path) -> None:
    assert run("optimize", digits, "--rtol", "0.1", "--atol", "1").exit_code == 0


def test_one_failure_does_not_stop_the_others(run: Run, digits: Path) -> None:
    missing = digits.with_name("missing.onnx")
    result = run("optimize", missing, digits, "--json")
    assert result.exit_code == 2
    first, second = json.loads(result.stdout)["models"]
    assert first["model"] == str(missing)
    assert first["error"]["exit_code"] == 2
    assert second["summary"]["folded"] == 3
    assert digits.with_name("digits.folded.onnx").exists()


def test_a_bug_in_one_model_is_reported_as_one(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(pipeline, "fold_model", broken)
    result = run("optimize", digits, "--json")
    assert result.exit_code == 5
    assert "ZeroDivisionError: oops" in result.stderr
    assert "this is a bug in bnfold" in result.stderr
    assert "please report it" in result.stderr
    assert json.loads(result.stdout)["error"]["exit_code"] == 5
    assert names(digits.parent) == {"digits.onnx"}


def test_missing_runtime_is_exit_code_4(
    run: Run,
    digits: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("modules")
    (elsewhere / "onnxruntime.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(elsewhere)
    result = run("optimize", digits)
    assert result.exit_code == 4
    assert "error: " in result.stderr
    assert "pip install" in result.stderr
    assert names(digits.parent) == {"digits.onnx"}
