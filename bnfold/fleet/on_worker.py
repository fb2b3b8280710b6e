"""The side of a cluster's worker: models run in its children, one in each thread's."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

from bnfold._version import __version__
from bnfold.errors import ModelError, ProviderError
from bnfold.fleet.child import Child, threads_each
from bnfold.fleet.outcome import Outcome
from bnfold.fleet.places import is_url
from bnfold.fleet.task import FoldTask

__all__ = ["run_payload", "stop_run"]

_STOPPED_RUNS = 100

_lock = threading.Lock()
_idle: list[Child] = []
_busy: defaultdict[str, set[Child]] = defaultdict(set)
_stopped: deque[str] = deque(maxlen=_STOPPED_RUNS)


def run_payload(payload: bytes, run: str, directory: str) -> bytes:
    """Do a task that was sent; return the pickled `Outcome`.

    Args:
        payload: The version of the sender, the path of the model and the pickled task.
        run: Name of the run that the task belongs to.
        directory: What relative paths are relative to, if this machine has it.
    """
    version, model, task = pickle.loads(payload)  # noqa: S301 - from our own other half
    if version != __version__:
        message = f"{model}: a worker has bnfold {__version__}, the sender {version}"
        hint = f"install the same everywhere: pip install 'bnfold=={version}'"
        return pickle.dumps(Outcome(model, error=ProviderError(message, hint=hint)))
    place = Path(directory) if Path(directory).is_dir() else Path.cwd()
    return pickle.dumps(_run(pickle.loads(task), run, place))  # noqa: S301


def stop_run(run: str) -> None:
    """End the processes that work for a run, and those that work for none."""
    with _lock:
        _stopped.append(run)
        children = [*_busy.pop(run, ()), *_idle]
        _idle.clear()
    for child in children:
        child.close()


def _run(task: FoldTask, run: str, directory: Path) -> Outcome:
    if not (is_url(task.model) or (directory / task.model).exists()):
        message = f"{task.model}: no such file on the worker '{_address()}'"
        hint = "the workers have to see it: use a shared folder, or a URL"
        return Outcome(task.model, error=ModelError(message, hint=hint))
    task.clear_up(directory)  # of a worker that was lost
    with _borrowed(run) as child:
        return child.attempt(task, directory=directory)


@contextlib.contextmanager
def _borrowed(run: str) -> Iterator[Child]:
    """Lend a child that nobody else uses."""
    with _lock:
        if run in _stopped:
            raise ProviderError("the run was stopped")
        child = _idle.pop() if _idle else _new_child()
        _busy[run].add(child)
    try:
        yield child
    finally:
        with _lock:
            if run in _stopped:
                child.close()
            else:
                _busy[run].discard(child)
                _idle.append(child)


def _new_child() -> Child:
    from distributed import get_worker  # noqa: PLC0415 - there is one here

    worker = get_worker()
    return Child(threads_each(worker.state.nthreads), Path(worker.local_directory))


def _address() -> str:
    from distributed import get_worker  # noqa: PLC0415

    return str(get_worker().address)
