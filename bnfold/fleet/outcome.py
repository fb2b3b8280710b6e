"""What became of one model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bnfold.errors import BnfoldError
from bnfold.report import FoldReport

__all__ = ["Outcome", "attempt"]


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a report, the stored form of an earlier one, or an error.

    Attributes:
        model: Path of the model, as reports name it.
        report: What was folded and written.
        stored: The JSON object of an earlier run whose result is up to date.
        error: Why there is neither.
        traceback: Where in bnfold it happened, if the error is a bug.
        seconds: Time that it took.
    """

    model: str
    report: FoldReport | None = None
    stored: Mapping[str, Any] | None = None
    error: BnfoldError | None = None
    traceback: str | None = None
    seconds: float = 0.0


def attempt(model: str, work: Callable[[], Outcome]) -> Outcome:
    """Do the work on one model; an error is an outcome as well.

    Args:
        model: Path of the model; messages that do not name it get it in front.
        work: Returns what became of it; its time is measured here.
    """
    start = time.monotonic()
    try:
        found = work()
    except BnfoldError as error:
        if model not in error.message:
            error.message = f"{model}: {error.message}"
            error.args = (error.message,)
        return Outcome(model, error=error, seconds=time.monotonic() - start)
    except Exception as error:  # noqa: BLE001 - a bug in one model must not lose the others
        bug = BnfoldError(f"{model}: {type(error).__name__}: {error}".splitlines()[0])
        text = traceback.format_exc().rstrip()
        return Outcome(model, error=bug, traceback=text, seconds=time.monotonic() - start)
    return Outcome(model, found.report, found.stored, seconds=time.monotonic() - start)
