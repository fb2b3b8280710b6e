"""Models on a Dask cluster: results as they come, workers that are lost, a model that kills them.

Every model runs in a child of its worker, so that it can crash without the worker. A worker that is
lost all the same leaves its models to others: that is the scheduler's doing. It gives a model up
after several lost workers; then others that only ran beside it may have been given up too. So each
of those is tried once more, alone, when everything else is done.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import secrets
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold._version import __version__
from bnfold.errors import BnfoldError, MissingPackageError, ProviderError
from bnfold.fleet.outcome import Outcome
from bnfold.fleet.task import FoldTask
from bnfold.progress import Progress, Step

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["run_on_cluster"]

CONNECT_TIMEOUT = 15.0
PATIENCE = 120.0
"""Seconds to wait for a worker where there is none."""

_LOOK = 1.0
_MEMORY = "it may need more memory than a worker has: give the workers more, or fewer threads"


def run_on_cluster(
    tasks: Sequence[FoldTask],
    scheduler: str,
    progress: Progress | None = None,
    patience: float = PATIENCE,
) -> Generator[tuple[int, Outcome]]:
    """Do tasks on the workers of a cluster; closed early, they end.

    Args:
        tasks: What to do. Paths are those of the workers.
        scheduler: Address of the scheduler such as ``tcp://host:8786``, or its ``.json`` file.
        progress: Called with how far the work is.
        patience: Seconds to wait while there is no worker at all.

    Yields:
        The position of a task and what became of it, as each is done.

    Raises:
        ProviderError: No scheduler answers, or a worker has another version of bnfold.
        MissingPackageError: Dask is not installed.
    """
    with _connected(scheduler) as client:
        _require_version(client, scheduler)
        run = _Run(client, scheduler, tasks, patience)
        tell = progress or (lambda _: None)
        tell(Step(f"0 of {len(tasks)} models", 0, len(tasks)))
        try:
            for done, each in enumerate(run.outcomes(), start=1):
                yield each
                tell(Step(f"{done} of {len(tasks)} models", done, len(tasks)))
        finally:
            run.end()


class _Run:
    """The tasks of one call on one cluster."""

    def __init__(
        self, client: Client, scheduler: str, tasks: Sequence[FoldTask], patience: float
    ) -> None:
        self._client, self._scheduler = client, scheduler
        self._tasks = tasks
        self._patience = patience
        self._name = secrets.token_hex(6)
        self._futures: dict[int, Future] = {}
        self._left: set[int] = set()  # whose worker may not have cleared up
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._last_seen = time.monotonic()

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Yield what becomes of all tasks."""
        self._submit(range(len(self._tasks)), "")
        suspects = []
        for position, outcome in self._collect():
            if outcome is None:
                suspects.append(position)
            else:
                yield position, outcome
        for position in sorted(suspects):
            self._submit([position], "-alone")
            for _, outcome in self._collect():
                yield position, outcome or self._deadly(position)

    def end(self) -> None:
        """Stop what is still running, and the processes that wait for more."""
        name = self._name

        def stop() -> None:
            from bnfold.fleet.on_worker import stop_run  # noqa: PLC0415 - imported on the worker

            stop_run(name)

        with contextlib.suppress(Exception):  # a cluster that is gone has stopped as well
            self._client.cancel(list(self._futures.values()), force=True)
            self._client.run(stop, on_error="ignore")
        for position in self._left | self._futures.keys():
            self._tasks[position].clear_up()

    def _submit(self, positions: Sequence[int], suffix: str) -> None:
        directory = str(Path.cwd())
        name = self._name

        # A function of a function travels by value: the scheduler needs no bnfold.
        def work(payload: bytes) -> bytes:
            from bnfold.fleet.on_worker import run_payload  # noqa: PLC0415 - on the worker

            return run_payload(payload, name, directory)

        payloads = [
            pickle.dumps((__version__, self._tasks[each].model, pickle.dumps(self._tasks[each])))
            for each in positions
        ]
        keys = [f"bnfold-{name}-{each}{suffix}" for each in positions]
        futures = self._client.map(work, payloads, key=keys, pure=False)
        for position, future in zip(positions, futures, strict=True):
            self._futures[position] = future
            future.add_done_callback(lambda _, position=position: self._ended.put(position))

    def _collect(self) -> Iterator[tuple[int, Outcome | None]]:
        """Yield what became of the tasks that were submitted; None where workers died of it."""
        while self._futures:
            try:
                position = self._ended.get(timeout=_LOOK)
            except queue.Empty:
                if self._is_deserted():
                    yield from self._abandon()
                continue
            future = self._futures.pop(position)
            yield position, self._outcome(position, future)
            future.release()

    def _outcome(self, position: int, future: Future) -> Outcome | None:
        from distributed.scheduler import KilledWorker  # noqa: PLC0415 - an optional package

        model = self._tasks[position].model
        try:
            outcome: Outcome = pickle.loads(future.result())  # noqa: S301 - from our own half
        except KilledWorker:
            self._left.add(position)
            return None
        except ModuleNotFoundError as error:
            return Outcome(model, error=_not_there(f"a worker of {self._scheduler}", error))
        except Exception as error:  # noqa: BLE001 - whatever happens to one must not lose the others
            self._left.add(position)
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            message = f"{model}: the cluster {self._scheduler} did not do it: {what}"
            hint = "look into the logs of its scheduler and workers; --resume does the rest"
            return Outcome(model, error=ProviderError(message, hint=hint))
        return outcome

    def _deadly(self, position: int) -> Outcome:
        model = self._tasks[position].model
        message = f"{model}: workers of the cluster died again and again while they worked on it"
        return Outcome(model, error=ProviderError(message, hint=_MEMORY))

    def _is_deserted(self) -> bool:
        """True if there has been no worker for too long."""
        now = time.monotonic()
        with contextlib.suppress(Exception):  # a scheduler that does not answer has no workers
            if self._client.nthreads():
                self._last_seen = now
        return now - self._last_seen > self._patience

    def _abandon(self) -> Iterator[tuple[int, Outcome]]:
        for position in list(self._futures):
            del self._futures[position]
            self._left.add(position)
            model = self._tasks[position].model
            message = (
                f"{model}: the cluster {self._scheduler} has had no worker for "
                f"{self._patience:g} seconds"
            )
            hint = "start workers: dask worker ADDRESS; then --resume goes on"
            yield position, Outcome(model, error=ProviderError(message, hint=hint))


@contextlib.contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    try:
        from distributed import Client  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"--scheduler needs the package '{error.name}', which is not installed",
            hint="pip install 'bnfold[fleet]'",
        ) from error
    is_file = scheduler.endswith(".json")
    if is_file and not Path(scheduler).is_file():  # Dask would wait for it
        raise ProviderError(
            f"{scheduler}: no such scheduler file",
            hint="`dask scheduler --scheduler-file FILE.json` writes one",
        )
    key = "scheduler_file" if is_file else "address"
    with _silenced():
        try:
            client = Client(**{key: scheduler}, timeout=CONNECT_TIMEOUT, set_as_default=False)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ProviderError(
                f"{scheduler}: no Dask scheduler answers ({said})",
                hint="start one with `dask scheduler`, and give the address that it prints",
            ) from error
        try:
            yield client
        finally:
            with contextlib.suppress(Exception):
                client.close(timeout=CONNECT_TIMEOUT)


def _require_version(client: Client, scheduler: str) -> None:
    """Make sure that all workers have this version of bnfold.

    Raises:
        ProviderError: One has another, or none.
    """

    def version() -> str:
        from bnfold._version import __version__ as found  # noqa: PLC0415 - on the worker

        return found

    answers: Mapping[str, Any] = client.run(version, on_error="return")
    for worker, answer in sorted(answers.items()):
        if isinstance(answer, BaseException):
            raise _not_there(f"worker {worker} of {scheduler}", answer)
        if answer != __version__:
            raise ProviderError(
                f"worker {worker} of {scheduler} has bnfold {answer}, this is {__version__}",
                hint=f"install the same everywhere: pip install 'bnfold=={__version__}'",
            )


def _not_there(where: str, error: BaseException) -> BnfoldError:
    return ProviderError(
        f"{where} cannot import bnfold: {error}",
        hint=f"install it on every worker: pip install 'bnfold[cpu,fleet]=={__version__}'",
    )


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep Dask from logging what is told as an outcome."""
    names = ("distributed", "distributed.client", "distributed.comm", "distributed.core")
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
