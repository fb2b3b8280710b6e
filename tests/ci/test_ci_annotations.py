"""``--format github``: what the runner reads on stdout, and the summary of the job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from bnfold.cli import main
from bnfold.cli.annotations import annotations_of, append_summary

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^::(\w+) ([^:]*)::(.*)$")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def parse(line: str) -> tuple[str, dict[str, str], str]:
    """Read a workflow command as GitHub's runner does."""
    found = COMMAND.fullmatch(line)
    assert found is not None, line
    name, properties, message = found.groups()
    pairs = (entry.split("=", 1) for entry in properties.split(","))
    values = {key: unescaped(value, "%3A:", "%2C,") for key, value in pairs}
    return name, values, unescaped(message)


def unescaped(text: str, *more: str) -> str:
    for code in ("%0D\r", "%0A\n", *more, "%25%"):
        text = text.replace(code[:3], code[3:])
    return text


def commands(result: Result) -> list[tuple[str, dict[str, str], str]]:
    return [parse(line) for line in result.stdout.splitlines()]


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    shutil.copy(ROOT / "models" / "digits.onnx", tmp_path / "digits.onnx")
    return Path("digits.onnx")


@pytest.fixture
def wrong(digits: Path) -> Path:
    """The same model with another bias."""
    model = onnx.load(digits)
    bias = next(each for each in model.graph.initializer if each.name == "fc2.bias")
    values = numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, "wrong.onnx")
    return Path("wrong.onnx")


def test_different_models_are_an_error(digits: Path, wrong: Path) -> None:
    result = run("check", digits, wrong, "--format", "github")
    assert result.exit_code == 1
    name, properties, message = commands(result)[0]
    assert name == "error"
    assert properties == {"file": "wrong.onnx", "title": "bnfold check"}
    assert "output 'logits'" in message
    assert "DIFFERENT" in result.stderr


def test_a_model_that_is_not_folded(digits: Path) -> None:
    result = run("inspect", digits, "--up-to-date", "--format", "github")
    assert result.exit_code == 1
    (found,) = commands(result)
    assert found[0] == "error"
    assert found[1]["file"] == "digits.onnx"
    assert found[2].startswith("digits.onnx: not folded, 3 sites would go")


def test_nothing_to_say(digits: Path) -> None:
    assert run("inspect", digits, "--format", "github").stdout == ""
    result = run("optimize", digits, "--in-place", "--format", "github")
    assert (result.exit_code, result.stdout) == (0, "")
    assert run("inspect", digits, "--up-to-date").exit_code == 0


def test_kept_sites_are_errors_if_all_are_to_fold(digits: Path) -> None:
    model = onnx.load(digits)
    model.graph.output.add(name="/conv1/Conv_output_0")
    model.graph.output[-1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, digits)
    kept = run("optimize", digits, "-o", "x.onnx", "--no-check", "--format", "github")
    assert kept.exit_code == 0
    assert [name for name, _, _ in commands(kept)] == ["notice"]
    assert "graph_output" in commands(kept)[0][2]
    required = run(
        "optimize", digits, "-o", "y.onnx", "--no-check", "--require-folded", "--format", "github"
    )
    assert required.exit_code == 1
    assert [name for name, _, _ in commands(required)] == ["error", "notice"]


def test_unreadable_models_are_errors_of_their_own(digits: Path) -> None:
    Path("broken.onnx").write_bytes(b"\x08\x07broken")
    result = run("inspect", digits, "broken.onnx", "missing.onnx", "--format", "github")
    assert result.exit_code == 2
    assert [(name, values["file"]) for name, values, _ in commands(result)] == [
        ("error", "broken.onnx"),
        ("error", "missing.onnx"),
    ]


@pytest.mark.parametrize("name", ["a,b:c%d.onnx", "a%0A::error::x.onnx", "ü ::stop.onnx"])
def test_odd_names_stay_names(digits: Path, name: str) -> None:
    shutil.copy(digits, name)
    (found,) = commands(run("inspect", name, "--up-to-date", "--format", "github"))
    assert found[0] == "error"
    assert found[1]["file"] == name
    assert found[2].startswith(f"{name}: not folded")


def test_a_line_break_in_a_name_does_not_make_a_command(digits: Path) -> None:
    shutil.copy(digits, "a\n::error::owned.onnx")
    result = run("inspect", "a\n::error::owned.onnx", "--up-to-date", "--format", "github")
    assert len(commands(result)) == 1
    assert not any(line.startswith("::") for line in result.stderr.splitlines())


def test_files_are_named_from_the_root_of_the_repository(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path.parent))
    for name in (digits, tmp_path / digits):
        (found,) = commands(run("inspect", name, "--up-to-date", "--format", "github"))
        assert found[1]["file"] == f"{tmp_path.name}/digits.onnx"


def failed(name: str, messages: int = 1) -> dict[str, Any]:
    error = {"kind": "ModelError", "message": f"{name}: bad", "hint": None, "exit_code": 2}
    warnings = [f"warning {number}" for number in range(messages)]
    return {"model": name, "error": error, "checks": [], "warnings": warnings}


def test_of_more_models_than_are_shown_the_last_one_counts_the_others() -> None:
    models = [failed(f"{number}.onnx") for number in range(25)]
    report = {"bnfold": "1", "models": models}
    lines = [parse(line) for line in annotations_of(report)]
    errors = [each for each in lines if each[0] == "error"]
    warnings = [each for each in lines if each[0] == "warning"]
    assert len(errors) == len(warnings) == 10
    assert errors[8][1]["file"] == "8.onnx"
    assert errors[9][2] == "16 more models; the summary of the job lists them"


def test_a_model_has_one_annotation_of_each_kind() -> None:
    lines = [parse(line) for line in annotations_of({"bnfold": "1", **failed("a.onnx", 30)})]
    assert [each[0] for each in lines] == ["error", "warning"]
    text = lines[1][2].splitlines()
    assert len(text) == 11
    assert text[-1] == "and 20 more"


def test_json_and_annotations_exclude_each_other(digits: Path) -> None:
    result = run("inspect", digits, "--json", "--format", "github")
    assert result.exit_code == 2
    assert "--report FILE.json" in result.stderr
    assert result.stdout == ""


def test_the_summary_is_appended(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run("inspect", digits)
    assert summary.read_text(encoding="utf-8") == "before"
    run("inspect", digits, "--format", "github")
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## ")
    assert "would fold 3 of 3" in text


def test_a_summary_that_cannot_be_written_is_a_warning(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "missing/summary.md")
    result = run("inspect", digits, "--format", "github")
    assert result.exit_code == 0
    assert "warning: missing/summary.md: cannot write the summary of the job" in result.stderr


def test_a_summary_is_never_longer_than_github_takes(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    for _ in range(4):
        append_summary(summary, "ü line of the summary\n" * 20_000)
        assert summary.stat().st_size <= 1024 * 1024
    text = summary.read_text(encoding="utf-8")
    assert text.count("The rest is longer than a summary may be.\n") == 1
    assert set(text.splitlines()) == {
        "ü line of the summary", "", "The rest is longer than a summary may be."
    }  # fmt: skip


def test_nothing_on_stderr_is_a_command(tmp_path: Path) -> None:
    """The runner takes ``::name`` where a line begins, and ``##[name`` anywhere."""
    model = onnx.load(ROOT / "models" / "digits.onnx")
    for node, name in zip(
        model.graph.node, ("::set-output name=a::b", "##[set-output name=a;]b"), strict=False
    ):
        node.name = name
    model.graph.node[1].name = "::stop-commands::x"
    for name in ("##[add-mask]x.onnx", "::warning::y.onnx"):
        onnx.save(model, tmp_path / name)
    command = [sys.executable, "-m", "bnfold", "inspect", "##[add-mask]x.onnx", "::warning::y.onnx"]
    options = ["##[debug]missing.onnx", "-v", "--up-to-date", "--format", "github"]
    result = subprocess.run(
        [*command, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "would fold 3 of 3" in result.stderr
    assert "##[" not in result.stderr
    assert not re.search(r"^\s*::", result.stderr, re.MULTILINE)
    assert [line.split(" ")[0] for line in result.stdout.splitlines()] == ["::error"] * 3


def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    shutil.copy(ROOT / "models" / "digits.onnx", tmp_path / "モデル.onnx")
    command = [sys.executable, "-m", "bnfold", "inspect", ".", "--up-to-date", "--format", "github"]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1
    assert parse(result.stdout.decode().rstrip())[1]["file"] == "モデル.onnx"


def test_a_reader_that_has_gone_is_no_error(digits: Path) -> None:
    command = [sys.executable, "-m", "bnfold", "inspect", str(digits), "--up-to-date"]
    with subprocess.Popen(
        [*command, "--format", "github"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
