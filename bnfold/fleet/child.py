"""A process that works on one model after the other, and that may die of one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from bnfold.errors import ProviderError
from bnfold.fleet.outcome import Outcome, attempt
from bnfold.fleet.task import FoldTask
from bnfold.isolation import Worker, can_isolate
from bnfold.progress import Progress

__all__ = ["Child", "threads_each"]


class Child:
    """A child process, started when there is work and again where it died.

    Args:
        threads: Threads that each session of a runtime may use in it.
        scratch: Directory for its temporary files; that of the system if None.
    """

    def __init__(self, threads: int, scratch: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="bnfold-", dir=scratch))
        self._environment = {"TMPDIR": str(self._folder), "OMP_NUM_THREADS": str(threads)}
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def attempt(
        self, task: FoldTask, progress: Progress | None = None, directory: Path | None = None
    ) -> Outcome:
        """Have a task done, and clear up after it if the process dies of it.

        Args:
            task: What to do; ``timeout`` among its options bounds all of it.
            progress: Called with what is being done.
            directory: What relative paths are relative to; the current directory if None.
        """
        tell, timeout = progress or (lambda _: None), task.options.get("timeout")

        def work() -> Outcome:
            if not can_isolate():
                return task.work(tell)
            worker = self._ready()
            try:
                outcomes: tuple[Outcome, ...] = worker.run(task, tell, timeout, directory)
            finally:
                if not worker.is_idle:
                    worker.close()
                    task.clear_up(directory)
            return outcomes[0]

        return attempt(task.model, work)

    def close(self) -> None:
        """End the process, whatever it does, and remove its temporary files."""
        with self._lock:
            self._is_closed = True
            self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ready(self) -> Worker:
        with self._lock:
            if self._is_closed:
                raise ProviderError("its process was ended")
            if self._worker is None or not self._worker.is_ready:
                self._end()
                self._worker = Worker(self._environment)
            return self._worker

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.close()


def threads_each(jobs: int) -> int:
    """Return how many threads each of several processes may use; ``OMP_NUM_THREADS`` bounds it."""
    share = cores() // jobs
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(share, int(asked)) if asked.isdecimal() else share)


def cores() -> int:
    """Return the number of cores that this process may use."""
    with contextlib.suppress(AttributeError, OSError):  # where the system does not tell
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
