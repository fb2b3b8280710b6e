"""``docs/ci.md`` is run: by the real runner where that is a package, else its scripts by bash."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import bnfold
from bnfold.cli import main

yaml = pytest.importorskip("yaml", reason="workflows are YAML")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASH = shutil.which("bash") or ""

needs_bash = pytest.mark.skipif(not BASH, reason="workflows are written for bash")


def examples(title: str, language: str) -> list[str]:
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models" / "digits.onnx", tmp_path / "models" / "digits.onnx")
    return tmp_path


def run_script(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a runner does; of what is installed, the extras have to exist."""
    install = re.fullmatch(r"pip install 'bnfold\[(.*)\]'", line)
    if install is not None:
        assert set(install[1].split(",")) <= set(PROJECT["optional-dependencies"])
        line = "true"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_valid(text: str, schema: str, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="it has the schemas of the runners")
    file = tmp_path / "workflow.yml"
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@needs_bash
def test_the_workflow_for_github(folder: Path) -> None:
    pytest.importorskip("jinja2", reason="the report of the example is HTML")
    text = examples("GitHub Actions", "yaml")[0]
    steps = yaml.safe_load(text)["jobs"]["models"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 2
    for script in scripts:
        result = run_script(script, folder)
        assert result.returncode == 0, result.stderr
    assert (folder / "folded" / "digits.onnx").is_file()
    assert "computes the same" in (folder / "summary.md").read_text(encoding="utf-8")
    uploaded = next(step["with"]["path"] for step in steps if "upload" in step.get("uses", ""))
    assert (folder / uploaded).is_file()


@pytest.mark.parametrize("text", examples("GitHub Actions", "yaml"), ids=["commands", "action"])
def test_github_accepts_the_workflows(text: str, tmp_path: Path) -> None:
    assert_valid(text, "vendor.github-workflows", tmp_path)


def test_the_action_has_the_inputs_of_the_workflow() -> None:
    workflow = yaml.safe_load(examples("GitHub Actions", "yaml")[1])
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (given,) = (step["with"] for step in workflow["jobs"]["models"]["steps"] if "with" in step)
    assert set(given) <= set(action["inputs"])
    table = re.findall(r"^\| `([a-z-]+)` \|", PAGE.split("## GitHub Actions")[1], re.MULTILINE)
    assert table[: len(action["inputs"])] == list(action["inputs"])


@needs_bash
def test_the_pipeline_for_gitlab(folder: Path) -> None:
    pytest.importorskip("junitparser", reason="the report of the example is JUnit's")
    (text,) = examples("GitLab", "yaml")
    assert_valid(text, "vendor.gitlab-ci", folder)
    job = yaml.safe_load(text)["models"]
    for line in job["script"]:
        result = run_script(line, folder)
        assert result.returncode == 0, result.stderr
    assert_junit(folder / job["artifacts"]["reports"]["junit"])
    assert all((folder / path).exists() for path in job["artifacts"]["paths"])


@needs_bash
def test_the_pipeline_for_jenkins(folder: Path) -> None:
    pytest.importorskip("junitparser", reason="the report of the example is JUnit's")
    (text,) = examples("Jenkins", "groovy")
    assert text.count("{") == text.count("}")
    lines = [one or other for one, other in re.findall(r"sh (?:'([^']*)'|\"([^\"]*)\")", text)]
    assert len(lines) == text.count(" sh ")
    for line in lines:
        result = run_script(line, folder)
        assert result.returncode == 0, result.stderr
    assert_junit(folder / re.findall(r"junit '(.*)'", text)[0])


def assert_junit(file: Path) -> None:
    suites = ET.parse(file).getroot()  # noqa: S314 - our own
    names = [case.get("name", "").split(" ")[0] for case in suites.iter("testcase")]
    assert names == ["folded", "equivalent", "equivalent"]
    assert not list(suites.iter("failure"))


def test_the_hooks_exist() -> None:
    (text,) = examples("pre-commit", "yaml")
    (repository,) = yaml.safe_load(text)["repos"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {hook["id"] for hook in repository["hooks"]} <= {hook["id"] for hook in hooks}
    assert {f"`{hook['id']}`" for hook in hooks} <= set(re.findall(r"`[^`]*`", PAGE))


def test_the_tests_for_pytest(folder: Path) -> None:
    (command,) = examples("pytest", "bash")
    (settings,) = examples("pytest", "toml")
    (test,) = examples("pytest", "python")
    bnfold.optimize(folder / "models" / "digits.onnx")
    (folder / "pyproject.toml").write_text(settings, encoding="utf-8")
    (folder / "test_models.py").write_text(test, encoding="utf-8")
    arguments = [*shlex.split(command)[1:], "test_models.py", "-W", "error", "--strict-config"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "3 passed, 2 skipped" in result.stdout


def test_the_commands_and_their_options_exist() -> None:
    mentioned: dict[str, Any] = {}
    for command in re.findall(r"`(bnfold [^`]*)`", PAGE):
        verb, *arguments = shlex.split(command)[1:]
        mentioned.setdefault(verb, set()).update(
            argument for argument in arguments if argument.startswith("-")
        )
    assert set(mentioned) == {"inspect", "check", "optimize"}
    for verb, options in mentioned.items():
        command = main.get_command(None, verb)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert options <= known
        assert "--format" in known
