"""Completion in real shells: the script is sourced, keys are typed, and the line is looked at."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pytest

PROMPT = "ready> "
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -D -u; unsetopt prompt_sp; "),
}
HOME, TAB, ENTER = "\x01", "\t", "\r"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with models and other files, and a `bnfold` that is on the path."""
    for name in ("résumé net.onnx", "other.onnx", "notes.txt", "loader.py", "mix's (1).onnx"):
        (tmp_path / name).touch()
    (tmp_path / "with=:colon.onnx").touch()
    (tmp_path / "other\n.onnx").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/other\xff.onnx")).touch()
    (tmp_path / "deep folder").mkdir()
    (tmp_path / "deep folder" / "inner.onnx").touch()
    program = tmp_path / "bin" / "bnfold"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnfold "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    plain = {"TERM": "dumb", "LC_ALL": "C.UTF-8", "HOME": str(place), "INPUTRC": "/dev/null"}
    return {**os.environ, **plain, "PATH": path}


def completed(shell: str, place: Path, lines: Iterable[str]) -> list[list[str]]:
    """Type lines into a shell, and return the words that each has become."""
    pty = pytest.importorskip("pty")
    command, prepare = SHELLS[shell]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{shell} is not installed")
    parent, child = pty.openpty()
    with subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, cwd=place, env=environment(place),
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(child)
        try:
            source = f"eval \"$(bnfold completion {shell})\"; PS1='rea''dy> '\n"
            os.write(parent, (prepare + source).encode())
            read_until(parent, PROMPT)
            return [words(parent, line) for line in lines]
        finally:
            process.kill()
            os.close(parent)


def words(terminal: int, typed: str) -> list[str]:
    """Type a line and have its words printed, not run."""
    os.write(terminal, f"{typed}{HOME}printf '[%s]\\n' {ENTER}echo do''ne{ENTER}".encode())
    lines = (line.strip() for line in read_until(terminal, "\ndone").splitlines())
    return [line[1:-1] for line in lines if line.startswith("[") and line.endswith("]")]


def read_until(terminal: int, end: str) -> str:
    """Return what a terminal shows, up to an end."""
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 4096)
            text = seen.decode(errors="replace")
            if end in text:
                return text
    raise AssertionError(f"the shell did not answer: {seen!r}")


LINES = {
    "opt\t": ["optimize"],
    "check --ora\t": ["check", "--oracle"],
    "check --level ext\t": ["check", "--level", "extended"],
    "check --level=ext\t": ["check", "--level=extended"],
    "optimize --provider cu\t": ["optimize", "--provider", "cuda"],
    "inspect oth\t": ["inspect", "other.onnx"],
    "inspect not\t": ["inspect", "not"],  # no model
    "inspect rés\t": ["inspect", "résumé net.onnx"],
    "inspect mix\t": ["inspect", "mix's (1).onnx"],
    "inspect dee\tin\t": ["inspect", "deep folder/inner.onnx"],
    "check --tolerances not\t": ["check", "--tolerances", "notes.txt"],
    "check --data-loader loa\t": ["check", "--data-loader", "loader.py"],
    "completion f\t": ["completion", "fish"],
    "inspect 'dee\tin\t": ["inspect", "deep folder/inner.onnx"],
    'inspect "rés\t': ["inspect", "résumé net.onnx"],
    "inspect ./oth\t": ["inspect", "./other.onnx"],
    "check --dim N=1 a:b oth\t": ["check", "--dim", "N=1", "a:b", "other.onnx"],
    "check --level=bas\tother.onnx oth\t": ["check", "--level=basic", "other.onnx", "other.onnx"],
    "inspect with=:co\t": ["inspect", "with=:colon.onnx"],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_lines_are_completed(shell: str, place: Path) -> None:
    found = completed(shell, place, [f"bnfold {line}" for line in LINES])
    assert dict(zip(LINES, found, strict=True)) == {
        line: ["bnfold", *expected] for line, expected in LINES.items()
    }


CLICK = tuple(int(part) for part in version("click").split(".")[:2])
OPEN_QUOTE = "bnfold inspect 'deep folder/"
SOURCE_FISH = "bnfold completion fish | source"
FISH = {
    "bnfold opt": ["optimize"],
    "bnfold check --level ext": ["extended"],
    "bnfold check --level=ext": ["--level=extended"],
    "bnfold optimize --provider cu": ["cuda"],
    "bnfold inspect ": [
        "bin/",
        "deep folder/",
        "mix's (1).onnx",
        "other.onnx",
        "résumé net.onnx",
        "with=:colon.onnx",
    ],
    OPEN_QUOTE: ["deep folder/inner.onnx"],
    "bnfold check --tolerances not": ["notes.txt"],
    "bnfold check --tolerances=not": ["--tolerances=notes.txt"],
}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_offers(place: Path) -> None:
    each = "for line in $argv; echo; echo $line; complete -C $line; end"
    result = subprocess.run(
        [str(shutil.which("fish")), "--no-config", "-c", f"{SOURCE_FISH}; {each}", *FISH],
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
        env=environment(place),
    )
    assert result.stderr == ""
    blocks = (block.splitlines() for block in result.stdout.strip().split("\n\n"))
    found = {line: sorted(each.partition("\t")[0] for each in offered) for line, *offered in blocks}
    if CLICK < (8, 3):  # which understands a quote that is still open
        assert found.pop(OPEN_QUOTE) == []
        found[OPEN_QUOTE] = FISH[OPEN_QUOTE]
    assert found == FISH


@pytest.mark.parametrize("line", ["", "opt", "optimize --provider c", "check ./", "inspect --"])
def test_completing_imports_nothing_heavy(place: Path, line: str) -> None:
    heavy = ("onnx", "numpy", "rich", "onnxruntime", "tomllib", "importlib.metadata")
    code = (
        "import sys\n"
        "from bnfold.cli import main\n"
        "try:\n"
        "    main(prog_name='bnfold')\n"
        "finally:\n"
        f"    print('loaded:', sorted(set({heavy!r}) & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
        env={**os.environ, "COMP_WORDS": f"bnfold {line}", "_BNFOLD_COMPLETE": "bash_complete"},
    )
    *offered, loaded = result.stdout.splitlines()
    assert offered
    assert loaded == "loaded: []"
