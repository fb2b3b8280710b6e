"""``--jobs``, ``--scheduler``, ``--resume``: who works on several models, and what is skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from bnfold.cli.batch import Outcomes, in_turn
from bnfold.cli.console import Terminal
from bnfold.cli.types import FILE
from bnfold.fleet.places import is_url, local_path
from bnfold.fleet.record import place_of_record
from bnfold.fleet.sources import Source
from bnfold.fleet.task import FoldTask
from bnfold.report import FoldReport

__all__ = ["Fleet", "fleet_options", "one_by_one"]


@dataclass(frozen=True)
class Fleet:
    """Who does the work on the models.

    Attributes:
        jobs: Number of processes of this machine; None to choose.
        scheduler: Address of the cluster that does the work, or None.
        resume: True to skip what is up to date.
    """

    jobs: int | None
    scheduler: str | None
    resume: bool

    def takes(self, targets: Mapping[Source, str]) -> bool:
        """True if the models leave this process: on request, if many or from afar."""
        return (
            self.resume
            or (self.jobs or self.scheduler) is not None
            or any(source.found or is_url(source.model) for source in targets)
            or any(map(is_url, targets.values()))
        )

    def recorded(self, task: FoldTask, source: Source, output_dir: str | None) -> FoldTask:
        """Return a task that keeps a record of its result, where there is an output directory.

        Raises:
            click.UsageError: If there is none, and something is to be skipped.
        """
        if output_dir is None:
            if self.resume:
                raise click.UsageError("--resume needs --output-dir, where the records are kept.")
            return task
        record = place_of_record(local_path(output_dir), source.relative)
        return dataclasses.replace(task, record=record, resume=self.resume)

    def outcomes(self, tasks: Sequence[FoldTask], terminal: Terminal) -> Outcomes:
        """Do tasks elsewhere; yield the position of each and what became of it, when done."""
        with terminal.progress() as progress:
            work: Outcomes
            if self.scheduler is not None:
                from bnfold.fleet.cluster import run_on_cluster

                work = run_on_cluster(tasks, self.scheduler, progress)
            else:
                from bnfold.fleet.processes import run_in_processes

                work = run_in_processes(tasks, self.jobs or 1, progress)
            with contextlib.closing(work):
                yield from work


def one_by_one(tasks: Sequence[FoldTask], terminal: Terminal) -> Outcomes:
    """Do tasks in this process, each with its own progress."""
    by_model = {task.model: task for task in tasks}

    def job(model: str) -> FoldReport:
        with terminal.progress() as progress:
            return by_model[model].fold(progress)

    return in_turn([task.model for task in tasks], job)


def fleet_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add ``--jobs``, ``--scheduler`` and ``--resume``; the command gets them as one `Fleet`."""

    @functools.wraps(command)
    def with_fleet(
        *, jobs: int | None, scheduler: str | None, resume: bool, **arguments: object
    ) -> int:
        if jobs is not None and scheduler is not None:
            raise click.UsageError(
                "--jobs is for this machine, --scheduler for a cluster: give one of them."
            )
        return command(fleet=Fleet(jobs, scheduler, resume), **arguments)

    options = (
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Work on N models at a time, each in a process of its own.",
        ),
        click.option(
            "--scheduler",
            type=FILE,
            metavar="ADDRESS",
            help="Work on a Dask cluster: tcp://host:8786, or a scheduler file (.json).",
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Skip models whose result in --output-dir is up to date, by content.",
        ),
    )
    for option in reversed(options):
        with_fleet = option(with_fleet)
    return with_fleet
