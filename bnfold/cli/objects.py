"""Parts that the JSON objects of several commands share."""

from __future__ import annotations

from typing import Any

from bnfold._version import __version__
from bnfold.errors import BnfoldError, NotEquivalentError, ProviderError
from bnfold.report import SCHEMA_VERSION, CheckReport, FoldReport

__all__ = ["checks_of", "error_parts", "json_head"]


def json_head() -> dict[str, Any]:
    """Return what every object begins with."""
    return {"schema_version": SCHEMA_VERSION, "bnfold": __version__}


def checks_of(error: BnfoldError) -> tuple[CheckReport, ...]:
    """Return the comparisons that were made before the error."""
    if isinstance(error, NotEquivalentError):
        return error.checks
    learned = error.learned if isinstance(error, ProviderError) else ()
    return tuple(each for each in learned if isinstance(each, CheckReport))


def _fold_of(error: BnfoldError) -> FoldReport | None:
    """Return what had been folded before the error, or None."""
    if isinstance(error, NotEquivalentError):
        return error.report
    learned = error.learned if isinstance(error, ProviderError) else ()
    return next((each for each in learned if isinstance(each, FoldReport)), None)


def error_parts(error: BnfoldError) -> dict[str, Any]:
    """Return what an object says about an error: ``error``, and what was known by then."""
    fold = _fold_of(error)
    known = {} if fold is None else fold.to_dict()
    for key in ("model", "output"):  # the caller's own: a fold may have been of a temporary file
        known.pop(key, None)
    return {
        **known,
        "error": {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        },
        "checks": [check.to_dict() for check in checks_of(error)],
    }
