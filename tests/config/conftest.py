from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bnfold.cli import main

ROOT = Path(__file__).parents[2]

Run = Callable[..., Result]
Write = Callable[[str, str], Path]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the current directory, with nothing in the environment."""
    for name in os.environ:
        if name.startswith("BNFOLD_"):
            monkeypatch.delenv(name)
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def write(place: Path) -> Write:
    """Write a text file of the project."""

    def to_file(name: str, text: str) -> Path:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def digits(place: Path) -> Path:
    """The digits model: three batch normalizations, all fold."""
    return Path(shutil.copy(ROOT / "models" / "digits.onnx", place / "digits.onnx"))
