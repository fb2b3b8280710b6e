"""``--report``: found wanting before the work, whole or not at all, there also where runs fail."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result

from bnfold import pipeline
from bnfold.recalibrate import assess
from bnfold.report.render import FORMS
from tests.cli.conftest import Run


def files(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def refused(result: Result, digits: Path, code: int = 2) -> str:
    """Nothing was done; what was said."""
    assert result.exit_code == code, result.stderr
    assert files(digits.parent) == {"digits.onnx"}
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert second.startswith("hint: ")
    return str(result.stderr)


def test_all_forms_at_once(run: Run, digits: Path) -> None:
    paths = [digits.with_name(f"a b{suffix}") for suffix in FORMS]
    options = [part for path in paths for part in ("--report", path)]
    result = run("optimize", digits, *options)
    assert result.exit_code == 0, result.stderr
    assert "statistics" not in result.stderr
    made = {f"a b{suffix}" for suffix in FORMS}
    assert files(digits.parent) == {"digits.onnx", "digits.folded.onnx", *made}
    for path in paths:
        assert "/bn1/" in path.read_text(encoding="utf-8").replace("<wbr>", "")
    arguments = ["optimize", str(digits), *map(str, options)]
    run_of_it = json.loads(digits.with_name("a b.json").read_text())["run"]
    assert shlex.split(run_of_it["command"]) == ["bnfold", *arguments]
    assert (run_of_it["verb"], run_of_it["exit_code"]) == ("optimize", 0)
    assert run_of_it["environment"]["bnfold"]


@pytest.mark.parametrize("name", ["r.pdf", "r", ".html", "no/r.html", "."])
def test_unusable(run: Run, digits: Path, name: str) -> None:
    result = run("optimize", digits, "--report", digits.parent / name)
    assert "--report" in refused(result, digits)


def test_a_directory_is_no_file(run: Run, digits: Path) -> None:
    folder = digits.with_name("r.html")
    folder.mkdir()
    result = run("optimize", digits, "--report", folder)
    folder.rmdir()
    assert "is a directory" in refused(result, digits)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no place where even root may not write")
def test_a_place_that_cannot_be_written(run: Run, digits: Path) -> None:
    result = run("optimize", digits, "--report", "/proc/r.html")
    assert "cannot write the report" in refused(result, digits)


@pytest.mark.parametrize(("suffix", "package"), [(".html", "jinja2"), (".xml", "junitparser")])
def test_a_missing_package(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run("optimize", digits, "--report", digits.with_name(f"r{suffix}"))
    said = refused(result, digits, code=4)
    assert f"'{package}'" in said
    assert "hint: pip install 'bnfold[report]'" in said


def test_markdown_and_json_need_no_package(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("jinja2", "junitparser"):
        monkeypatch.setitem(sys.modules, package, None)
    options = ("--report", digits.with_name("r.md"), "--report", digits.with_name("r.json"))
    assert run("inspect", digits, *options).exit_code == 0


def test_the_report_of_kept_sites(run: Run, digits: Path) -> None:
    model = onnx.load(digits)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    model.graph.output.add().name = norm.input[0]
    onnx.save(model, digits)
    paths = {suffix: digits.with_name(f"r{suffix}") for suffix in FORMS}
    options = [part for path in paths.values() for part in ("--report", path)]
    result = run("optimize", digits, "--require-folded", *options)
    assert result.exit_code == 1, result.stderr
    assert "--require-folded: 1 site kept" in paths[".xml"].read_text()
    assert "--require-folded: 1 site kept" in paths[".md"].read_text()
    assert "Not met" in paths[".html"].read_text()
    assert json.loads(paths[".json"].read_text())["run"]["exit_code"] == 1


@pytest.mark.usefixtures("wrong_fold")
def test_the_report_of_a_fold_that_is_wrong(run: Run, digits: Path) -> None:
    paths = {suffix: digits.with_name(f"r{suffix}") for suffix in FORMS}
    options = [part for path in paths.values() for part in ("--report", path)]
    assert run("optimize", digits, *options).exit_code == 3
    assert "Not equivalent" in paths[".html"].read_text()
    assert "bn1/<wbr>BatchNormalization" in paths[".html"].read_text()
    assert "<failure" in paths[".xml"].read_text()
    assert "❌ **different**" in paths[".md"].read_text(encoding="utf-8")


def test_the_report_of_a_missing_provider(run: Run, digits: Path) -> None:
    path = digits.with_name("r.json")
    result = run("optimize", digits, "--provider", "TensorrtExecutionProvider", "--report", path)
    assert result.exit_code == 4
    report = json.loads(path.read_text())
    assert report["error"]["exit_code"] == 4
    assert report["summary"]["folded"] == 3


def test_the_report_of_an_own_bug(run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(sys.modules["bnfold.check"], "check", broken)
    path = digits.with_name("r.json")
    result = run("check", digits, digits, "--report", path)
    assert result.exit_code == 5
    assert json.loads(path.read_text())["error"]["message"] == "ZeroDivisionError: by nothing"


def test_the_other_verbs(run: Run, digits: Path) -> None:
    np.save(digits.with_name("x.npy"), np.random.default_rng(0).random((64, 1, 8, 8), np.float32))
    for command, said in {
        ("inspect", digits): "Sites",
        ("check", digits, digits): "Operators",
        ("recalibrate", digits, "-o", digits.with_name("o.onnx"), "--data",
         digits.with_name("x.npy")): "Drift",
        ("bench", digits, "--seconds", "0.05", "--no-footprint", "--batch", 1): "Latency",
    }.items():  # fmt: skip
        page = digits.with_name(f"{command[0]}.html")
        result = run(*command, "--report", page)
        assert result.exit_code == 0, result.stderr
        assert f">{said}" in page.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_finished_leaves_the_old_one(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = digits.with_name("r.md")
    page.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = run("inspect", digits, "--report", page)
    assert result.exit_code == 2
    assert "cannot write the report: No space left on device" in result.stderr
    assert page.read_text() == "old"
    assert files(digits.parent) == {"digits.onnx", "r.md"}


def test_an_interrupt_leaves_the_old_one(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = digits.with_name("r.html")
    page.write_text("old")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "fold_model", interrupted)
    assert run("inspect", digits, "--report", page).exit_code == 130
    assert page.read_text() == "old"
    assert files(digits.parent) == {"digits.onnx", "r.html"}


def test_a_link_is_written_through(run: Run, digits: Path) -> None:
    real, link = digits.with_name("real.md"), digits.with_name("link.md")
    real.touch()
    link.symlink_to(real)
    assert run("inspect", digits, "--report", link, "--report", link).exit_code == 0
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8").startswith("## ")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("name", ["a b", "it's", "$(ls)", "-", "ü", "a\nb\tc", "a\\b\n'"])
def test_the_command_is_quoted_for_a_shell(run: Run, digits: Path, name: str) -> None:
    model = digits.rename(digits.with_name(f"{name}.onnx"))
    result = run("inspect", model, "--json")
    command = json.loads(result.stdout)["run"]["command"].removeprefix("bnfold ")
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"],  # noqa: S607
        capture_output=True,
        check=True,
    )
    assert echoed.stdout.decode().split("\0")[:-1] == ["inspect", str(model), "--json"]


def test_beside_the_work_and_in_upper_case(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits.parent)
    assert run("inspect", "digits.onnx", "--report", "R.HTML").exit_code == 0
    assert Path("R.HTML").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_statistics_are_looked_at_for_reports_only(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_at(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(assess, "statistics_of", looked_at)
    assert run("optimize", digits, "--json").exit_code == 0
    assert run("inspect", digits).exit_code == 0
