"""One run of a verb on a hostile file, in a forked process, and what it did wrong.

The fork costs milliseconds where a fresh interpreter costs a second, and is as much a process of
its own: a crash in native code, memory and time are those of one file. It is forked from a process
that does nothing else: PyTorch does not survive the fork of one in which its threads have run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import multiprocessing
import os
import re
import resource
import select
import signal
import stat
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["MEMORY", "SECONDS", "Result", "broken_promise", "run", "snapshot"]

SECONDS = 5.0
"""Processor time that a verb may take on a hostile file."""

MEMORY = 300 << 20
"""Bytes that it may take beyond the size of the file."""

_DEADLINE = 120.0
_VERBS = ("bnfold.cli.inspect", "bnfold.cli.optimize", "bnfold.fleet.work", "bnfold.pipeline")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod"}
_FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "socket.connect", "pty.spawn"}
_OWN = tuple(
    os.path.realpath(each) + os.sep
    for each in (sys.prefix, sys.base_prefix, Path(__file__).parents[2], "/proc", "/sys", "/usr")
)
_DEVICES = {os.devnull, "/dev/urandom"}


@dataclass(frozen=True)
class Result:
    """What became of a run.

    Attributes:
        exit_code: Of the process; below zero the number of the signal that ended it.
        seconds: Processor time, its children included.
        grown: Bytes by which its memory grew.
        stdout: What it printed.
        stderr: What it said.
        touched: What it opened or changed outside of its folder.
    """

    exit_code: int
    seconds: float
    grown: int
    stdout: str
    stderr: str
    touched: tuple[str, ...]


def run(arguments: Sequence[str | Path], folder: Path) -> Result:
    """Call ``bnfold`` in a process of its own, ``folder`` its current directory."""
    return _forks().submit(_run, [os.fspath(each) for each in arguments], folder).result()


@cache
def _forks() -> ProcessPoolExecutor:
    """Return the process that forks."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare)


def _prepare() -> None:
    """Import what every fork needs, and PyTorch, which takes seconds, if it is there."""
    for name in _VERBS:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("torch")


def _run(arguments: list[str], folder: Path) -> Result:
    resident = _resident()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            _child(arguments, folder, [f.fileno() for f in files])
        _wait(process)
        _, status, usage = os.wait4(process, 0)
        texts = []
        for file in files:
            file.seek(0)
            texts.append(file.read(1 << 20).decode(errors="replace"))
    peak = usage.ru_maxrss << 10
    seconds = usage.ru_utime + usage.ru_stime
    touched = tuple(dict.fromkeys(texts[2].splitlines()))
    code = os.waitstatus_to_exitcode(status)
    return Result(code, seconds, peak - resident, texts[0], texts[1], touched)


def broken_promise(
    result: Result, size: int, *, codes: Sequence[int] = (0, 2), seconds: float = SECONDS
) -> str | None:
    """Say which promise a run broke, or return None.

    Args:
        result: What became of it.
        size: Bytes of the hostile files.
        codes: The exit codes that are right.
        seconds: Processor time that it may have taken.
    """
    last = result.stderr.strip().splitlines()[-1:]
    if result.exit_code < 0:
        return f"killed by {signal.Signals(-result.exit_code).name}: {last}"
    if "Traceback" in result.stderr:
        return f"a traceback: {result.stderr.strip().splitlines()[-3:]}"
    if result.exit_code not in codes:
        return f"exit code {result.exit_code}: {last}"
    if result.exit_code == 2 and not _is_clear(result.stderr):
        return f"not a clear error: {result.stderr[:500]!r}"
    if result.seconds > seconds:
        return f"took {result.seconds:.1f} s: {last}"
    if result.grown > MEMORY + size:
        return f"took {result.grown >> 20} MB for a file of {size >> 20} MB: {last}"
    if result.touched:
        return f"touched {', '.join(result.touched)}"
    return None


def snapshot(folder: Path) -> dict[str, str]:
    """What lies in a folder: content of files, targets of links, kinds of the rest."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(mode):
            found[str(path)] = str(path.readlink())
        else:
            found[str(path)] = oct(stat.S_IFMT(mode))
    return found


def _is_clear(stderr: str) -> bool:
    """One line that says what is wrong, and at most one that says what to do."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning: ")]
    return bool(re.fullmatch(r"error: [^\n]{1,2000}(\nhint: [^\n]{1,500})?", "\n".join(lines)))


@cache
def _resident() -> int:
    """Memory of a fork that does nothing."""
    process = os.fork()
    if not process:
        os._exit(0)
    return os.wait4(process, 0)[2].ru_maxrss << 10


def _wait(process: int) -> None:
    """Wait for its end, or end it."""
    descriptor = os.pidfd_open(process)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(_DEADLINE * 1000):
            os.killpg(process, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _child(arguments: list[str], folder: Path, files: list[int]) -> None:
    """Be the process of the verb; never returns."""
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.dont_write_bytecode = True
        tempfile.tempdir = str(folder)
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # set when PyTorch was imported
        limit = int(4 * SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.addaudithook(_watch(os.path.realpath(folder) + os.sep, files[2]))
        try:
            importlib.import_module("bnfold.cli").main(arguments, prog_name="bnfold")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 98
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _watch(folder: str, log: int) -> Any:
    """Note what is opened or changed elsewhere, and programs that are started."""

    def note(event: str, where: object) -> None:
        os.write(log, f"{event} {where}\n".encode(errors="replace"))

    def is_here(path: object) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes) else ""
        return (
            os.path.realpath(text).startswith(folder) or os.path.realpath(text) + os.sep == folder
        )

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, str | bytes) or "\0" in os.fsdecode(path) or is_here(path):
                return
            real = os.path.realpath(os.fsdecode(path))
            if flags & _WRITES and real != os.devnull:
                note("writes", real)
            elif not (real.startswith(_OWN) or real in _DEVICES):
                note("reads", real)
        elif event in _CHANGES and not is_here(arguments[0]):
            note(event, arguments[0])
        elif event in _FORBIDDEN:
            note(event, arguments[:1])

    return hook
