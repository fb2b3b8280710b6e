"""``action.yml``: what the runner accepts, and its scripts with hostile inputs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="actions are YAML")

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step.get("name"): step for step in ACTION["runs"]["steps"]}
DEFAULTS = {name: str(value.get("default", "")) for name, value in ACTION["inputs"].items()}

BASH = shutil.which("bash") or ""

pytestmark = pytest.mark.skipif(not BASH, reason="the scripts of the action are for bash")


def run_step(name: str, folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as the runner does: inputs are nothing but environment."""
    step = STEPS[name]
    values = {**DEFAULTS, **inputs}
    environment = {key: evaluated(str(value), values) for key, value in step["env"].items()}
    script = folder / "step.sh"
    script.write_text(step["run"], encoding="utf-8")
    return subprocess.run(
        [BASH, "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def evaluated(expression: str, inputs: dict[str, str]) -> str:
    assert expression.startswith("${{ ")
    name = expression.removeprefix("${{ ").removesuffix(" }}")
    return str(ROOT) if name == "github.action_path" else inputs[name.removeprefix("inputs.")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("models/a b.onnx", "models/deep/c.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "models" / "digits.onnx", tmp_path / name)
    return tmp_path


def test_github_accepts_it() -> None:
    pytest.importorskip("check_jsonschema", reason="it has the schema of actions")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    arguments = ["vendor.github-actions", str(ROOT / "action.yml")]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_no_input_is_part_of_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_every_input_is_used_and_described() -> None:
    text = str(ACTION["runs"]) + str(ACTION["outputs"])
    for name, entry in ACTION["inputs"].items():
        assert f"inputs.{name}" in text
        assert entry["description"]
        assert entry.get("required") or "default" in entry


def test_globs_name_models_with_spaces(folder: Path) -> None:
    result = run_step(
        "Run bnfold", folder, models="models/**/*.onnx\n", args="--up-to-date\n--quiet\n"
    )
    assert result.returncode == 1
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == [
        "::error file=models/a b.onnx",
        "::error file=models/deep/c.onnx",
    ]
    assert (folder / "output").read_text(encoding="utf-8") == "exit-code=1\n"
    assert "not folded" in (folder / "summary.md").read_text(encoding="utf-8")


def test_a_check_and_its_report(folder: Path) -> None:
    models = "models/a b.onnx\nmodels/deep/c.onnx\n"
    result = run_step("Run bnfold", folder, command="check", models=models, report="r e.json")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert (folder / "r e.json").is_file()
    assert (folder / "output").read_text(encoding="utf-8") == "exit-code=0\n"


def test_arguments_keep_their_spaces_and_stars(folder: Path) -> None:
    (folder / "bn1").touch()  # what a shell would put in the place of a glob
    for glob, code in (("/bn*", 0), ("/bn 1*", 1)):
        result = run_step(
            "Run bnfold", folder, models="models/deep", args=f"--up-to-date\n--keep\n{glob}"
        )
        assert result.returncode == code, result.stderr


@pytest.mark.parametrize("name", ["models", "args", "command", "report"])
def test_nothing_in_an_input_is_run(folder: Path, name: str) -> None:
    hostile = "$(touch owned)`touch owned`;touch owned;';touch owned;'\";touch owned;\""
    inputs: dict[str, Any] = {"models": "models/deep/c.onnx", name: hostile}
    result = run_step("Run bnfold", folder, **inputs)
    assert result.returncode == 2, result.stderr
    assert not (folder / "owned").exists()


def test_modules_of_the_repository_are_not_run(folder: Path) -> None:
    for name in ("bnfold", "onnx", "pip"):
        (folder / f"{name}.py").write_text("raise SystemExit('owned')\n", encoding="utf-8")
    result = run_step("Run bnfold", folder, models="models/deep", args="--quiet")
    assert result.returncode == 0, result.stderr


def test_bad_inputs_are_told(folder: Path) -> None:
    result = run_step("Run bnfold", folder, command="bench", models="models")
    assert result.returncode == 2
    assert result.stderr == "error: 'bench' is none of optimize, inspect, check\n"
    result = run_step("Run bnfold", folder, models="nothing/*.onnx")
    assert result.returncode == 2
    assert result.stderr == "error: no model is named 'nothing/*.onnx'\n"


@pytest.mark.parametrize(
    ("version", "requirement"), [("", f"{ROOT}[cpu,report]"), ("1.2", "bnfold[cpu,report]==1.2")]
)
def test_what_is_installed(tmp_path: Path, version: str, requirement: str) -> None:
    """With a python that says what it is asked to do."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    step = STEPS["Install bnfold"]
    values = {**DEFAULTS, "version": version}
    result = subprocess.run(
        [BASH, "-eo", "pipefail", "-c", step["run"]],
        env={
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            **{key: evaluated(str(value), values) for key, value in step["env"].items()},
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == ["-P", "-m", "pip", "install", requirement]
