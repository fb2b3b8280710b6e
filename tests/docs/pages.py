"""Runs a page of ``docs/`` as its reader would: from top to bottom, in one directory.

* ``python``: run; where the first line is ``# name.py``, written to that file.
* ``bash``: ``bnfold`` and ``python FILE`` run, with the exit code of the comment behind them, or 0.
  What sets up an environment is not run, and ``bnfold doctor``, which has tests of its own.
* ``text``: what the block before it printed; measured numbers and their columns may differ.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner

from bnfold.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PLACE = "/tmp"  # noqa: S108 - where the pages write; the tests write elsewhere
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def blocks(page: str) -> list[tuple[str, str]]:
    """Every block of code, in order: its language and its text."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```([\w-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[tuple[list[str], int]]:
    """Every command of the ``bash`` blocks of a page, with the exit code that it has to have."""
    for language, text in blocks(page):
        if language == "bash":
            yield from parse(text)


def parse(text: str) -> Iterator[tuple[list[str], int]]:
    """Commands of a block: their words, and the exit code."""
    for line in text.splitlines():
        command, _, comment = line.partition("  #")
        code = re.search(r"exit code (\d+)", comment)
        if words := shlex.split(command, comments=True):
            yield words, int(code[1]) if code else 0


@dataclass
class Reader:
    """Somebody who tries everything on a page.

    Attributes:
        folder: Where the models lie, and where files are written.
        names: What the Python of the page has defined so far.
        printed: What the last block has printed.
    """

    folder: Path
    names: dict[str, object] = field(default_factory=dict)
    printed: str = ""

    def read(self, page: str) -> None:
        """Run a page; the current directory has to be ``folder``."""
        for language, text in blocks(page):
            here = text.replace(PLACE, str(self.folder))
            if language == "python":
                self._python(here)
            elif language == "bash":
                self.printed = "".join(self.run(*command) for command in parse(here))
            elif language == "text":
                expected = [words(line) for line in text.splitlines()]
                found = [words(line) for line in self.printed.splitlines()]
                assert [line for line in expected if line not in found] == []

    def _python(self, text: str) -> None:
        first = re.match(r"# (\w+\.py)\n", text)
        if first is not None:
            (self.folder / first[1]).write_text(text, encoding="utf-8")
            return
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(text, self.names)  # noqa: S102 - our own page
        self.printed = out.getvalue()

    def run(self, command: list[str], code: int) -> str:
        program, *arguments = command
        if arguments == ["doctor"]:
            return ""
        if program == "bnfold":
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == code, (command, result.stderr)
            return result.stderr.replace(str(self.folder), PLACE)
        if program == "python":
            ran = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, check=False
            )
            assert ran.returncode == code, (command, ran.stderr)
            return ran.stdout
        assert program in {"python3", ".", "pip"}, command
        if program == "pip":
            (extras,) = re.findall(r"\[(.*)\]", arguments[-1])
            assert set(extras.split(",")) <= set(EXTRAS)
        return ""


def words(line: str) -> list[str]:
    """The words of a line; measured numbers are not repeatable on every machine."""
    return re.sub(r"\d\S*e-\d+|\b\d\.\d\b|-> \S+ kB", "#", line).split()
