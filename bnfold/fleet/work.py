"""The work on one model: fetched, folded, sent and recorded, or found to be up to date."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from bnfold.errors import NotEquivalentError
from bnfold.fleet.outcome import Outcome
from bnfold.fleet.places import is_url, join, name_of, parent_of, send
from bnfold.fleet.record import digests, find_result, keep_result, recipe
from bnfold.fleet.remote import as_named, fetch_model, send_model
from bnfold.fleet.task import FoldTask
from bnfold.progress import Progress
from bnfold.report import FoldReport

__all__ = ["work_on"]

Digests = dict[str, str | None]


def work_on(task: FoldTask, progress: Progress | None) -> Outcome:
    """Do a task in this process, unless its result is there and up to date.

    Args:
        task: What to do.
        progress: Called with what is being done.

    Raises:
        BnfoldError: See :func:`bnfold.optimize`.
    """
    if task.record is None:
        return Outcome(task.model, _fold(task, progress)[0])
    made_by = recipe({**task.options, "pytorch": dataclasses.astuple(task.pytorch)})
    # What code an architecture is built from, the content of one file does not tell.
    if task.resume and task.pytorch.arch is None:
        stored = find_result(
            task.record,
            made_by,
            task.model,
            task.place,
            with_statistics=bool(task.options.get("statistics")),
        )
        if stored is not None:
            return Outcome(task.model, stored=stored)
    report, inputs, outputs = _fold(task, progress)
    keep_result(task.record, made_by, inputs, outputs, report.to_dict())
    return Outcome(task.model, report)


def _fold(task: FoldTask, progress: Progress | None) -> tuple[FoldReport, Digests, Digests]:
    """Fold from where the model is to where it goes; return hashes of both too."""
    if not (is_url(task.model) or is_url(task.place)):
        inputs = _hashes(task, task.model)
        report = task.fold(progress)
        return report, inputs, _hashes(task, task.place)
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        local = dataclasses.replace(
            task,
            model=_copy(task.model, Path(folder) / "in"),
            target=_copy(task.place, Path(folder) / "out"),
        )
        with as_named({local.model: task.model, local.place: task.place}):
            if is_url(task.model):
                fetch_model(task.model, Path(local.model))
            inputs = _hashes(task, local.model)
            try:
                report = local.fold(progress)
            except NotEquivalentError:
                for feed in (Path(folder) / "out").glob("*.failing.npz"):
                    send(feed, join(parent_of(task.place), feed.name))
                raise
            sent = local.place
            if is_url(task.place):
                sent = str(send_model(Path(sent), task.place))
            outputs = _hashes(task, sent)
    return dataclasses.replace(report, model=task.model, output=task.place), inputs, outputs


def _copy(place: str, folder: Path) -> str:
    """Return the path that a file has on this machine; a URL gets one in a new folder."""
    if not is_url(place):
        return place
    folder.mkdir()
    return str(folder / name_of(place))


def _hashes(task: FoldTask, model: str) -> Digests:
    return {} if task.record is None else digests(Path(model))
