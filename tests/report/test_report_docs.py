"""The pages on reports are run: their commands in order, their Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bnfold.report import json_schema
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
PLACE = "/tmp"  # noqa: S108 - where the pages write; the tests write elsewhere


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_commands(run: Run, tmp_path: Path) -> None:
    for block in blocks("report.md", "bash"):
        for line in block.splitlines():
            program, *arguments = shlex.split(line.replace(PLACE, str(tmp_path)))
            assert program == "bnfold"
            result = run(*arguments)
            assert result.exit_code == 0, (line, result.stderr)


@pytest.mark.parametrize("page", ["report.md", "schema.md"])
def test_the_python(page: str) -> None:
    (code,) = blocks(page, "python")
    exec(code, {})  # noqa: S102 - our own page


def test_the_kinds_are_those_of_the_schema() -> None:
    page = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    kinds = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    known = [each["$ref"].rpartition("/")[2] for each in json_schema()["anyOf"]]
    assert sorted(kinds) == sorted(known)
