"""The program as a process: what it imports, how it ends, what it prints where."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

import bnfold
from bnfold.cli import main, program

Run = Callable[..., Result]

HEAVY = ("onnx", "onnx_ir", "onnxruntime", "torch", "numpy", "rich", "ml_dtypes")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["-h"], ["--version"], ["optimize", "-o"]]
    + [[verb, "--help"] for verb in main.list_commands(click.Context(main))],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from bnfold.cli import main\n"
        "try:\n"
        f"    main({arguments!r}, prog_name='bnfold')\n"
        "finally:\n"
        f"    print('loaded:', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    result = python("-c", code)
    assert result.stdout.endswith("loaded: []\n"), result.stdout


def test_runs_as_a_module(digits: Path) -> None:
    result = python("-m", "bnfold", "optimize", str(digits), "--no-check")
    assert result.returncode == 0
    assert result.stdout == ""
    assert "folded 3 of 3" in result.stderr


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"bnfold {bnfold.__version__}\n")


def test_no_colours_off_a_terminal(digits: Path) -> None:
    result = python("-m", "bnfold", "inspect", str(digits), TERM="xterm-256color")
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("arguments", [["inspect"], ["optimize"], ["inspect", "missing.onnx"]])
@pytest.mark.parametrize("no_color", [True, False])
def test_colours_on_a_terminal_obey_no_color(
    digits: Path, arguments: list[str], *, no_color: bool
) -> None:
    pty = pytest.importorskip("pty")
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bnfold", *arguments, str(digits)],
        stdout=subprocess.DEVNULL,
        stderr=child,
        env=environment,
        cwd=digits.parent,
    ) as process:
        os.close(child)
        seen = b""
        while True:
            try:
                block = os.read(parent, 4096)
            except OSError:
                break
            if not block:
                break
            seen += block
    os.close(parent)
    assert process.returncode in {0, 2}
    assert (b"\x1b[3" in seen) is not no_color


def test_a_reader_that_leaves_is_no_error(digits: Path) -> None:
    command = [sys.executable, "-m", "bnfold", "inspect", str(digits), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_interrupt_is_exit_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bnfold.pipeline.inspect", interrupted)
    result = run("inspect", "x.onnx")
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_termination_leaves_no_file_behind(
    number: signal.Signals, run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(*_: object, **__: object) -> None:
        assert len(list(digits.parent.iterdir())) == 2  # the staged model is there
        os.kill(os.getpid(), number)

    monkeypatch.setattr(importlib.import_module("bnfold.check"), "check", terminated)
    result = run("optimize", digits)
    assert result.exit_code == 130
    assert list(digits.parent.iterdir()) == [digits]
    assert signal.getsignal(number) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.import_module("bnfold.check"),
        "check",
        lambda *_, **__: os.kill(os.getpid(), signal.SIGHUP) or (),
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("optimize", digits).exit_code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_own_bug_is_exit_code_5_with_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("bnfold.cli.batch.Batch.publish", broken)
    result = run("inspect", "missing.onnx")
    assert result.exit_code == program.INTERNAL_ERROR
    assert "Traceback" in result.stderr
    assert "RuntimeError: oops" in result.stderr
    assert "error: this is a bug in bnfold" in result.stderr
