from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bnfold.cli import main
from tests.fleet.zoo import SIMPLIFIER

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def simplifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a simplifier that harms its process on request in the place of onnxsim."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "onnxsim.py").write_text(SIMPLIFIER)
    monkeypatch.syspath_prepend(folder)
