"""What becomes of several models: one that fails does not stop the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.cli.console import Terminal, print_bug, print_error, print_line
from bnfold.cli.objects import checks_of, error_parts, json_head
from bnfold.cli.program import INTERRUPTED
from bnfold.cli.reports import Reports
from bnfold.errors import BnfoldError
from bnfold.fleet.outcome import Outcome, attempt
from bnfold.report import FoldReport

__all__ = ["Batch", "Outcomes", "in_turn", "run_batch"]

Outcomes = Generator[tuple[int, Outcome]]
"""The position of a model and what became of it, as each is done."""


@dataclass(frozen=True)
class Batch:
    """What became of every model.

    Attributes:
        objects: The JSON object of each model, in the order given.
        exit_code: The worst exit code of all.
        is_several: True if the object is that of several models, even of one of them.
    """

    objects: tuple[dict[str, Any], ...]
    exit_code: int
    is_several: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the model, or of all the models if there are several."""
        if len(self.objects) == 1 and not self.is_several:
            return self.objects[0]
        return {**json_head(), "models": list(self.objects)}

    def publish(self, reports: Reports, **settings: Any) -> None:
        """Write the object wherever it is asked for.

        Args:
            reports: Where that is.
            settings: What a reader has to know of the options.

        Raises:
            InputError: If a file cannot be written.
        """
        reports.publish(self.to_dict(), exit_code=self.exit_code, **settings)


def in_turn(models: Sequence[str], job: Callable[[str], FoldReport]) -> Outcomes:
    """Work on one model after the other, in this process."""
    for position, model in enumerate(models):
        yield position, attempt(model, lambda model=model: Outcome(model, job(model)))  # type: ignore[misc]


def run_batch(
    models: Sequence[str],
    outcomes: Outcomes,
    terminal: Terminal,
    verdict: Callable[[dict[str, Any]], int] = lambda _: 0,
    *,
    is_several: bool = False,
    in_short: bool = False,
) -> Batch:
    """Show what becomes of each model, as soon as it is known.

    An interrupt ends the work. What was done by then is done, and said.

    Args:
        models: Paths, as given.
        outcomes: Does the work.
        terminal: Where reports and errors are shown.
        verdict: The exit code for the object of a model that was written.
        is_several: See `Batch`.
        in_short: True for one line for each of several models in place of its tables.

    Returns:
        The reports and errors as JSON objects, and the worst exit code.

    Raises:
        KeyboardInterrupt: It came before anything was done.
    """
    several = is_several or len(models) > 1
    objects: dict[int, dict[str, Any]] = {}
    codes = [0]
    with contextlib.closing(outcomes):
        try:
            for position, outcome in outcomes:
                objects[position] = _object(outcome, timed=several)
                _show(outcome, objects[position], terminal, in_short=in_short and several)
                codes.append(
                    verdict(objects[position]) if outcome.error is None else outcome.error.exit_code
                )
        except KeyboardInterrupt:
            if not objects:
                raise
            codes.append(INTERRUPTED)
            print_line("interrupted")
    for position, model in enumerate(models):
        if position not in objects:
            objects[position] = _object(Outcome(model, error=NotDoneError(model)), timed=True)
    batch = Batch(tuple(objects[position] for position in sorted(objects)), max(codes), is_several)
    if several:
        terminal.show_summary(batch.objects)
    return batch


class NotDoneError(BnfoldError):
    """The run was interrupted before the work on a model was done."""

    exit_code = INTERRUPTED

    def __init__(self, model: str) -> None:
        super().__init__(f"{model}: interrupted before it was done", hint="run it again")


def _object(outcome: Outcome, *, timed: bool) -> dict[str, Any]:
    """Return the JSON object of a model; one of several says what its own report would not."""
    if outcome.report is not None:
        found = outcome.report.to_dict()
    elif outcome.stored is not None:
        found, timed = {**outcome.stored, "up_to_date": True}, True
    else:
        assert outcome.error is not None  # noqa: S101 - one of the three
        parts = error_parts(outcome.error)
        found = {**json_head(), "model": outcome.model, "output": None, **parts}
    if timed:
        found["seconds"] = round(outcome.seconds, 3)
    return found


def _show(outcome: Outcome, found: dict[str, Any], terminal: Terminal, *, in_short: bool) -> None:
    if outcome.error is not None:
        if checks_of(outcome.error):
            title = f"{outcome.model} and its folded form"
            terminal.show_checks(title, checks_of(outcome.error))
        if outcome.traceback is not None:
            print_bug(outcome.traceback)
        print_error(outcome.error)
    elif outcome.report is not None and (terminal.verbose or not in_short):
        terminal.show_report(outcome.report)
    else:
        terminal.show_line(found)
