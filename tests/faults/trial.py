"""One fault at one point of a write, and what it may have left behind.

A writer is called in a forked process, which is killed, interrupted or denied the disk at a point
that the trial names: so each trial is a real one, and the same every time.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import bnfold
from tests.faults.writers import Call, Writer

__all__ = ["FAULTS", "Bench", "attack", "points"]

PACKAGE = str(Path(bnfold.__file__).parent)
UNFINISHED = re.compile(r"(.*/)?\.bnfold-[0-9a-f]+\.(tmp|pt2)")
CALLS = ("open", "write", "copy_file_range", "posix_fallocate", "fsync", "link", "replace", "chmod")

Fault = Callable[[int], Callable[[], int]]


class Bench:
    """A folder in which a writer is tried again and again.

    Args:
        writer: What is written.
        place: An empty folder.
    """

    def __init__(self, writer: Writer, place: Path) -> None:
        self.writer = writer
        self._template = place / "template"
        self._folder = place / "folder"
        self._template.mkdir()
        writer.prepare(self._template)
        self._call = writer.ready(self._template)
        self.before = self._content(self._template)
        assert self.run(None, 0) == 0
        self.after = self._content(self._folder)
        self._tidy = {frozenset(_files(self._template)), frozenset(_files(self._folder))}
        assert self.before != self.after

    def length(self, fault: str) -> int:
        """Return how many points there are for a fault."""
        if fault == "file-too-large":
            self.run(None, 0)
            return max(map(len, _files(self._folder).values()))
        read, write = os.pipe()
        assert self.run(FAULTS[fault], sys.maxsize, count=write) == 0
        os.close(write)
        with os.fdopen(read) as pipe:
            return int(pipe.read())

    def run(
        self, fault: Fault | None, point: int, *, again: bool = False, count: int | None = None
    ) -> int:
        """Write once; return the exit code, or the number of the signal below zero.

        Args:
            fault: What happens, or None.
            point: When.
            again: Do so in what the run before has left.
            count: Descriptor for the number of points that there were.
        """
        if not again:
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.copytree(self._template, self._folder)
        process = os.fork()
        if not process:
            _child(self._call, self._folder, fault, point, count)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def judge(self, *, tidy: bool) -> str | None:
        """Say what is wrong with what a run has left, or return None.

        Args:
            tidy: Whether nothing unfinished may be left.
        """
        try:
            content = self._content(self._folder)
        except Exception as error:  # noqa: BLE001 - whatever a broken file leads to
            return f"the target is broken: {type(error).__name__}: {error}"
        if content not in (self.before, self.after):
            return "the target is neither the old nor the new one"
        target = self.writer.target
        mine = re.compile(rf"{re.escape(target)}((\.[0-9a-f]{{8,64}})?\.data)?")
        old, new = _files(self._template), _files(self._folder)
        for name, data in old.items():
            if not mine.fullmatch(name) and new.get(name) != data:
                return f"{name} was changed"
        known = {name for tree in self._tidy for name in tree}
        for name in new.keys() - old.keys():
            if not (UNFINISHED.fullmatch(name) or mine.fullmatch(name) or name in known):
                return f"{name} was left, and nobody knows what it is"
        if tidy and content == self.before and frozenset(new) != frozenset(old):
            return f"left behind: {sorted(new.keys() ^ old.keys())}"
        if tidy and any(UNFINISHED.fullmatch(name) for name in new):
            return f"left behind: {sorted(new.keys() - old.keys())}"
        return None

    def is_new(self) -> bool:
        """Whether the target is the new one."""
        return self._content(self._folder) == self.after

    def _content(self, folder: Path) -> object:
        path = folder / self.writer.target
        return self.writer.read(path) if path.exists() else None


def points(length: int, count: int) -> list[int]:
    """Return points spread evenly over a length, both ends included."""
    return sorted({round(at * (length - 1) / max(count - 1, 1)) for at in range(count)})


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _child(call: Call, folder: Path, fault: Fault | None, point: int, count: int | None) -> None:
    """Be the process that writes."""
    code = 9
    try:
        os.chdir(folder)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        passed = fault(point) if fault else None
        call()
        sys.settrace(None)
        if count is not None and passed is not None:
            os.write(count, str(passed()).encode())
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 9
    except BaseException:  # noqa: BLE001 - what was left behind is judged, not how it ended
        code = 9
    finally:
        os._exit(code)


# --- faults, each at a point that is counted in lines of bnfold, or in calls of the system


def _at_line(point: int, deed: Callable[[], None]) -> Callable[[], int]:
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            if passed == point:
                deed()
            passed += 1
        return trace

    sys.settrace(trace)
    return lambda: passed


def _at_call(point: int, number: int) -> Callable[[], int]:
    """Let every call that changes the disk fail, from one of them on."""
    passed = 0

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            if real is not _REAL["open"] or args[1] & os.O_CREAT:
                passed += 1
                if passed > point:
                    raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, failing(_REAL[name]))
    return lambda: passed


_REAL = {name: getattr(os, name) for name in CALLS}


def _limited(nbytes: int) -> Callable[[], int]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))
    return lambda: nbytes


def _send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


FAULTS: dict[str, Fault] = {
    "killed": lambda point: _at_line(point, _send(signal.SIGKILL)),
    "interrupted": lambda point: _at_line(point, _send(signal.SIGINT)),
    "disk-full": lambda point: _at_call(point, errno.ENOSPC),
    "read-error": lambda point: _at_call(point, errno.EIO),
    "file-too-large": _limited,
}
"""What happens, given a point: a line for signals, a call, or a number of bytes."""


def attack(bench: Bench, fault: str, point: int) -> str | None:
    """Try one fault at one point; say what is wrong afterwards, or return None."""
    code = bench.run(FAULTS[fault], point)
    wrong = bench.judge(tidy=fault != "killed")
    if wrong is None and code == 0 and not bench.is_new():
        wrong = "it said that it was done, and was not"
    if wrong is None and (bench.run(None, 0, again=True) != 0 or not bench.is_new()):
        wrong = "the next run is disturbed by what was left"
    return wrong
