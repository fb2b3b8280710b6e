"""Several models at a time on this machine, each in a process of its own."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Sequence

from bnfold.fleet.child import Child, threads_each
from bnfold.fleet.outcome import Outcome
from bnfold.fleet.task import FoldTask
from bnfold.progress import Progress, Step

__all__ = ["run_in_processes"]


def run_in_processes(
    tasks: Sequence[FoldTask], jobs: int, progress: Progress | None = None
) -> Generator[tuple[int, Outcome]]:
    """Do tasks in child processes; closed early, they end at once.

    Args:
        tasks: What to do.
        jobs: Number of processes; they share the cores of the machine.
        progress: Called with how far the work is.

    Yields:
        The position of a task and what became of it, as each is done.
    """
    waiting = deque(enumerate(tasks))
    done: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
    jobs = min(jobs, len(tasks))
    children = [Child(threads_each(jobs)) for _ in range(jobs)]

    def work(child: Child) -> None:
        try:
            while waiting:
                position, task = waiting.popleft()
                done.put((position, child.attempt(task)))
        except IndexError:  # another thread took the last one
            pass
        except BaseException as error:  # noqa: BLE001 - for the thread that waits
            done.put(error)

    threads = [threading.Thread(target=work, args=(child,), daemon=True) for child in children]
    tell = progress or (lambda _: None)
    try:
        for thread in threads:
            thread.start()
        for count in range(len(tasks)):
            tell(Step(f"{count} of {len(tasks)} models", count, len(tasks)))
            each = done.get()
            if isinstance(each, BaseException):
                raise each
            yield each
    finally:
        waiting.clear()
        for child in children:
            child.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
