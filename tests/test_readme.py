"""The README is run: its commands, its Python, its tables."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import bnfold
from bnfold.cli import main

ROOT = Path(__file__).parents[1]
PLACE = "/tmp"  # noqa: S108 - where the README writes; the tests write elsewhere
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def commands(program: str) -> list[str]:
    """Every use of a program in the README, in order, without the comments behind it."""
    lines = (line for block in blocks("bash") for line in block.splitlines())
    parts = (part.strip() for line in lines for part in line.split("&&"))
    return [part.split("  #")[0].strip() for part in parts if part.startswith(program)]


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_root")
def test_the_commands_run_in_order(tmp_path: Path) -> None:
    shown = []
    for command in commands(".venv/bin/bnfold"):
        arguments = shlex.split(command.replace(PLACE, str(tmp_path)))[1:]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, (command, result.stderr)
        shown.append(result.stderr.replace(str(tmp_path), PLACE))
    (script,) = commands(".venv/bin/python")
    arguments = shlex.split(script.replace(PLACE, str(tmp_path)))[1:]
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True
    )
    accuracies = re.findall(r"([\d.]+)%", result.stdout)
    assert accuracies == re.findall(r"\| ([\d.]+) % \|", README)

    (printed,) = blocks("text")
    for expected, line in zip(printed.splitlines(), shown[0].splitlines(), strict=True):
        assert words(expected) == words(line)


def words(line: str) -> list[str]:
    """The words of a line; measured numbers are not repeatable on every machine."""
    return re.sub(r"\d\S*e-\d+|\b\d\.\d\b|-> \S+ kB", "#", line).split()


@pytest.mark.usefixtures("in_root")
def test_the_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(code.replace(PLACE, str(tmp_path)), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out == "3 folded, 0 kept\n"


def test_the_json_has_the_keys_of_a_report(tmp_path: Path) -> None:
    (text,) = blocks("json")
    example = json.loads(text)
    real = bnfold.optimize(ROOT / "models" / "digits.onnx", tmp_path / "x.onnx").to_dict()
    assert keys(example) == keys(real)
    example["summary"].pop("bytes_after")  # the version is part of what is written
    real["summary"].pop("bytes_after")
    assert example["summary"] == real["summary"]
    assert example["sites"][0] == real["sites"][0]


def keys(value: object) -> object:
    """The shape of a JSON value: the keys of objects, the first item of lists."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    if isinstance(value, list) and value:
        return [keys(value[0])]
    return None


def test_the_options_exist() -> None:
    optimize = main.get_command(None, "optimize")
    assert optimize is not None
    known = {option for parameter in optimize.params for option in parameter.opts}
    known |= {option for parameter in optimize.params for option in parameter.secondary_opts}
    mentioned = set(re.findall(r"`(--?[a-z][a-z-]*)", section("The commands")))
    assert mentioned
    assert mentioned <= known


def test_the_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {getattr(bnfold, name).exit_code for name in bnfold.__all__ if name.endswith("Error")}
    assert raised <= listed
    assert listed == {0, 1, 2, 3, 4, 5, 130}


def test_the_reason_codes_are_all_there() -> None:
    listed = re.findall(r"`([a-z_]+)`", section("What it never does").split("for each:")[1])
    assert listed == [reason.value for reason in bnfold.Reason]


def test_the_setup_names_what_is_there() -> None:
    installs = commands(".venv/bin/pip")
    assert len(installs) == 3
    for install in installs:
        arguments = shlex.split(install)
        constraints = arguments[arguments.index("-c") + 1]
        assert (ROOT / constraints).is_file()
        extras = re.findall(r"\[(.*)\]", arguments[-1])[0].split(",")
        assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"--extended-regexp '([^']+)'", script)
    assert pattern is not None
    found = re.findall(pattern[1], README, re.MULTILINE)
    assert len(found) == 1
    assert found[0] in "".join(blocks("bash")).splitlines()
