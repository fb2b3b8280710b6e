"""The parent's side: a child that is kept for the next job, and what became of it if it died."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from bnfold.errors import BnfoldError, ProviderError
from bnfold.isolation.messages import read_message, write_message

if TYPE_CHECKING:
    from bnfold.progress import Progress

__all__ = ["Job", "Worker", "can_isolate", "run_fresh", "run_isolated"]

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

# The child finds its modules where its parent does; nothing is imported before that is settled.
_START = """
import sys
sys.path[:] = sys.argv[2:]
from bnfold.isolation.worker import main
main(sys.argv[1])
"""
_SMALLER = "ask for smaller inputs with --input or --dim, or use a machine with more memory"
_LOG_TAIL = 4000
_GRACE = 2.0
"""Seconds in which a process that has ended is known to have ended."""


class Job(Protocol[Result_co]):
    """Something to be done in the child: plain data that pickle takes there."""

    def run(self, *, progress: Progress, learned: Callable[[Any], None]) -> None:
        """Do it.

        Args:
            progress: Called with what is being done.
            learned: Called with each result, as soon as there is one.
        """
        ...


def run_isolated(
    job: Job[Result], progress: Progress | None, timeout: float | None = None
) -> tuple[Result, ...]:
    """Run a job in the child process.

    Args:
        job: What to do.
        progress: Called with what is being done.
        timeout: Seconds after which the job is given up, or None.

    Returns:
        The results, in the order in which they were learned.

    Raises:
        BnfoldError: Whatever the job raises; ``learned`` of a ``ProviderError`` has the results
            that were complete by then.
        ProviderError: The process died or took too long.
    """
    if not can_isolate():
        return _run_here(job, progress)
    with _LOCK:
        worker = _ready_worker()
        try:
            return worker.run(job, progress or (lambda _: None), timeout)
        finally:
            if not worker.is_idle:
                worker.close()


def can_isolate() -> bool:
    """True unless this program brings its own interpreter, so that there is none to start."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def run_fresh(job: Job[Result], timeout: float | None = None) -> tuple[Result, ...]:
    """Run a job in a child process of its own, for what an earlier job would spoil.

    Raises:
        BnfoldError: See :func:`run_isolated`.
    """
    worker = Worker()
    try:
        return worker.run(job, lambda _: None, timeout)
    finally:
        worker.close()


def _run_here(job: Job[Result], progress: Progress | None) -> tuple[Result, ...]:
    """Run a job where there is no interpreter to start."""
    results: list[Result] = []
    job.run(progress=progress or (lambda _: None), learned=results.append)
    return tuple(results)


class Worker:
    """One child process.

    Args:
        environment: Variables that differ from those of this process.

    Attributes:
        is_idle: True if it waits for a request; False also where nobody knows what it does.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._parent, self._path = os.getpid(), list(sys.path)
        handle, name = tempfile.mkstemp(
            prefix="bnfold-", suffix=".log", dir=self._environment.get("TMPDIR")
        )
        os.close(handle)
        self._log = Path(name)
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
            [sys.executable, "-c", _START, name, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that what it starts itself can be ended with it
        )
        self._answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.is_idle = True

    @property
    def is_ready(self) -> bool:
        """True if it can take a request, and finds the same modules as its parent."""
        alive = self.is_mine and self._process.poll() is None
        return alive and self.is_idle and self._path == sys.path

    @property
    def is_mine(self) -> bool:
        """True unless this process is itself a fork of the one that started the child."""
        return self._parent == os.getpid()

    def run(
        self,
        job: Job[Result],
        progress: Progress,
        timeout: float | None,
        directory: str | os.PathLike[str] | None = None,
    ) -> tuple[Result, ...]:
        """Have a job done in ``directory``, or the current one; see :func:`run_isolated`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.is_idle = False
        results: list[Result] = []
        doing = "starting"
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # its end is told below
            where = os.fspath(directory or Path.cwd())
            write_message(self._process.stdin, (where, os.environ | self._environment, job))
        while True:
            left = math.inf if deadline is None else deadline - time.monotonic()
            try:
                answer = self._answers.get(timeout=max(min(left, _GRACE), 0.0))
            except queue.Empty:
                if self._process.poll() is not None:  # something that it started holds the pipe
                    raise self._death(doing, tuple(results)) from None
                if left > _GRACE:
                    continue
                raise ProviderError(
                    f"it took longer than {timeout:g} seconds and was given up at: {doing}",
                    hint="give it more time, or less to do",
                    learned=tuple(results),
                ) from None
            if answer is None:
                raise self._death(doing, tuple(results))
            kind, content = cast("tuple[str, object]", answer)
            if kind == "step":
                doing = cast("str", content)
                progress(doing)
            elif kind == "learned":
                results.append(cast("Result", content))
            else:
                self.is_idle = True
                if isinstance(content, ProviderError):
                    content.learned = tuple(results)
                if isinstance(content, BnfoldError):
                    raise content
                if kind == "bug":
                    raise RuntimeError(f"in the process that runs the models:\n{content}")
                return tuple(results)

    def close(self) -> None:
        """End the process, whatever it does."""
        self.is_idle = False
        if self._process.returncode is None and hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()
        self._log.unlink(missing_ok=True)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            with self._process.stdout as answers:
                while (answer := read_message(answers)) is not None:
                    self._answers.put(answer)
        finally:
            self._answers.put(None)

    def _death(self, doing: str, learned: tuple[object, ...]) -> ProviderError:
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            how = "stopped answering"
        elif code >= 0:
            how = f"ended with exit code {code}"
        else:
            how = f"ended with {signal.Signals(-code).name}"
        words = _last_words(self._log)
        hint = "run it on another provider, or with another version of the runtime"
        if code == -getattr(signal, "SIGKILL", 9):
            words, hint = " (it may have run out of memory)", _SMALLER
        return ProviderError(
            f"the process that runs the models {how} at: {doing}{words}",
            hint=hint,
            learned=learned,
        )


def _last_words(log: Path) -> str:
    """Return what native code said before it died, in brackets, or nothing."""
    with contextlib.suppress(OSError):
        text = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        # What follows is the stack of Python, which is always the same.
        said = re.split(r"^(?:Fatal Python error|Thread 0x|Current thread)", text, flags=re.M)[0]
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        if lines:
            return f" ({lines[-1][:300]})"
    return ""


_LOCK = threading.Lock()
_worker: Worker | None = None


def _ready_worker() -> Worker:
    global _worker  # noqa: PLW0603 - one child for the process, as there is one lock
    if _worker is not None and not _worker.is_ready:
        _end()
        _worker = None
    _worker = _worker or Worker()
    return _worker


@atexit.register
def _end() -> None:
    if _worker is not None and _worker.is_mine:
        _worker.close()
