"""One job for each of several models: one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bnfold.cli.console import Terminal, print_bug, print_error
from bnfold.cli.objects import checks_of, error_parts, json_head
from bnfold.cli.reports import Reports
from bnfold.errors import BnfoldError
from bnfold.report import FoldReport

__all__ = ["Batch", "run_batch"]


@dataclass(frozen=True)
class Batch:
    """What became of every model.

    Attributes:
        objects: The JSON object of each model, in the order given.
        exit_code: The worst exit code of all.
    """

    objects: tuple[dict[str, Any], ...]
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the model, or of all the models if there are several."""
        if len(self.objects) == 1:
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


def run_batch(
    models: tuple[str, ...],
    job: Callable[[str], FoldReport],
    terminal: Terminal,
    verdict: Callable[[FoldReport], int] = lambda _: 0,
) -> Batch:
    """Run ``job`` on each model and show what it reports, or why it failed.

    Args:
        models: Paths, as given.
        job: Does the work of one model.
        terminal: Where reports and errors are shown.
        verdict: The exit code for a report.

    Returns:
        The reports and errors as JSON objects, and the worst exit code.
    """
    objects: list[dict[str, Any]] = []
    codes: list[int] = []
    for model in models:
        try:
            report = job(model)
            terminal.show_report(report)
            objects.append(report.to_dict())
            codes.append(verdict(report))
        except BnfoldError as error:
            if checks_of(error):
                terminal.show_checks(f"{model} and its folded form", checks_of(error))
            print_error(error)
            objects.append(_failed(model, error))
            codes.append(error.exit_code)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one model must not lose the others
            print_bug()
            bug = BnfoldError(f"{model}: {type(error).__name__}: {error}")
            objects.append(_failed(model, bug))
            codes.append(bug.exit_code)
    return Batch(tuple(objects), max(codes))


def _failed(model: str, error: BnfoldError) -> dict[str, Any]:
    return {**json_head(), "model": model, "output": None, **error_parts(error)}
