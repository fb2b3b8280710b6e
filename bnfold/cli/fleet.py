"""``--jobs``: who works on several models, and how the terminal follows it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from bnfold.cli.batch import Outcomes, in_turn
from bnfold.cli.console import Terminal
from bnfold.fleet.task import FoldTask
from bnfold.progress import Step
from bnfold.report import FoldReport

__all__ = ["Fleet", "fleet_options"]


@dataclass(frozen=True)
class Fleet:
    """Who does the work on the models.

    Attributes:
        jobs: Number of processes of this machine; None to choose.
    """

    jobs: int | None

    def is_chosen(self, *, directories: bool) -> bool:
        """True if the models leave this process: on request, and where directories are given."""
        return directories or self.jobs is not None

    def outcomes(self, tasks: Sequence[FoldTask], terminal: Terminal) -> Outcomes:
        """Do tasks elsewhere; yield the position of each and what became of it, when done."""
        from bnfold.fleet.processes import run_in_processes

        with terminal.progress() as progress:
            work = run_in_processes(tasks, self.jobs or 1)
            try:
                for done, (position, outcome) in enumerate(work, start=1):
                    yield position, outcome
                    if progress is not None:
                        progress(Step(f"{done} of {len(tasks)} models", done, len(tasks)))
            finally:
                work.close()


def one_by_one(tasks: Sequence[FoldTask], terminal: Terminal) -> Outcomes:
    """Do tasks in this process, each with its own progress."""
    by_model = {task.model: task for task in tasks}

    def job(model: str) -> FoldReport:
        with terminal.progress() as progress:
            return by_model[model].fold(progress)

    return in_turn([task.model for task in tasks], job)


def fleet_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add ``--jobs``; the command gets it as one `Fleet`."""

    @functools.wraps(command)
    def with_fleet(*, jobs: int | None, **arguments: object) -> int:
        return command(fleet=Fleet(jobs), **arguments)

    return click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Work on N models at a time, each in a process of its own.",
    )(with_fleet)
