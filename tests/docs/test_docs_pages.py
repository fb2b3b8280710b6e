"""Every command and snippet of the pages runs; other tests have the pages not named here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import onnxruntime
import pytest

import bnfold
from bnfold.cli import main
from tests.docs.pages import DOCS, ROOT, Reader, blocks, parse

HERE = ["api.md", "mathematics.md", "tutorial.md"]
ELSEWHERE = {  # page -> the tests that run it
    "ci.md": "ci/test_ci_docs.py",
    "configuration.md": "config/test_config_docs.py",
    "doctor.md": "config/test_config_docs.py",
    "fleet.md": "fleet/test_fleet_cluster.py",
    "neighbours.md": "neighbours/test_neighbours_docs.py",
    "report.md": "report/test_report_docs.py",
    "schema.md": "report/test_report_docs.py",
}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("*.py"))
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Reader(tmp_path)


@pytest.mark.parametrize("page", HERE)
def test_page_runs(page: str, reader: Reader) -> None:
    if page == "tutorial.md":
        pytest.importorskip("torch", reason="it has a part for PyTorch")
    reader.read(page)


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_commands_and_options_exist(page: str) -> None:
    for language, text in blocks(page):
        if language in {"bash", "sh"}:
            for command, _ in parse(text):
                if command[0] == "bnfold" and page != "exit-codes.md":
                    assert_is_known(command[1:])


def assert_is_known(arguments: list[str]) -> None:
    """Every option is one of the command."""
    command = main.get_command(None, arguments[0])
    assert command is not None, arguments
    options = [each for each in command.params if isinstance(each, click.Option)]
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    used = {word for word in arguments[1:] if re.match(r"--?[a-z]", word)}
    assert used <= known | {"--help", "-h"}, arguments


def test_pages_with_python_or_exit_codes_are_run() -> None:
    with_code = {
        path.name
        for path in DOCS.glob("*.md")
        if any(language == "python" for language, _ in blocks(path.name))
    }
    assert with_code <= {*HERE, *ELSEWHERE}
    assert all((ROOT / "tests" / home).is_file() for home in ELSEWHERE.values())


# --- exit codes


@pytest.fixture
def codes(reader: Reader) -> list[tuple[list[str], int]]:
    text = "".join(text for language, text in blocks("exit-codes.md") if language == "bash")
    text = text.replace("/tmp", str(reader.folder))  # noqa: S108 - where the page writes
    return [each for each in parse(text) if each[0][0] == "bnfold"]


def test_every_exit_code_has_an_example(codes: list[tuple[list[str], int]], reader: Reader) -> None:
    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    for command, code in codes:
        if not (gpu and "cuda" in command):
            reader.run(command, code)
    assert {code for _, code in codes} == {0, 1, 2, 3, 4}
    assert not (reader.folder / "strict.onnx").exists()
    assert (reader.folder / "strict.failing.npz").is_file()


@pytest.mark.skipif(
    not shutil.which("timeout") or signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    reason="nothing can be interrupted here",
)
def test_an_interruption_and_a_script(reader: Reader) -> None:
    lines = [text for language, text in blocks("exit-codes.md") if language == "bash"]
    interrupted, script = lines[-2:]
    assert in_bash(interrupted, reader).returncode == 130
    (reader.folder / "digits.folded.onnx").write_bytes(Path("models/digits.onnx").read_bytes())
    assert in_bash(script, reader).stdout == "the same\n"


def in_bash(text: str, reader: Reader) -> subprocess.CompletedProcess[str]:
    """Run lines that are more than commands of bnfold."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", text.replace("/tmp", str(reader.folder))],  # noqa: S108, S607 - as on the page
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_table_is_that_of_the_readme() -> None:
    rows = re.compile(r"^\| (\d+) \| (.*?) \|", re.MULTILINE)
    page = dict(rows.findall((DOCS / "exit-codes.md").read_text(encoding="utf-8")))
    readme = dict(rows.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert page.keys() == readme.keys()
    assert all(page[code].startswith(meaning) for code, meaning in readme.items())


def test_the_table_is_that_of_the_errors() -> None:
    page = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    for name in bnfold.__all__:
        error = getattr(bnfold, name)
        if name.endswith("Error") and error is not bnfold.BnfoldError:
            (row,) = re.findall(rf"^\| {error.exit_code} \|.*$", page, re.MULTILINE)
            assert f"`{name}`" in row
