"""Parts that the JSON objects of several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnfold._version import __version__
from bnfold.cli.console import Terminal, print_json, to_json
from bnfold.errors import BnfoldError, InputError, NotEquivalentError, ProviderError
from bnfold.report import SCHEMA_VERSION, CheckReport

__all__ = ["checks_of", "emit", "error_parts", "json_head"]


def json_head() -> dict[str, Any]:
    """Return what every object begins with."""
    return {"schema_version": SCHEMA_VERSION, "bnfold": __version__}


def checks_of(error: BnfoldError) -> tuple[CheckReport, ...]:
    """Return the comparisons that were made before the error."""
    if isinstance(error, NotEquivalentError):
        return error.checks
    learned = error.learned if isinstance(error, ProviderError) else ()
    return tuple(each for each in learned if isinstance(each, CheckReport))


def emit(value: dict[str, Any], terminal: Terminal, files: Sequence[Path]) -> None:
    """Print an object if the terminal asks for JSON, and write it to ``files``.

    Raises:
        InputError: If a file cannot be written.
    """
    if terminal.json:
        print_json(value)
    for file in files:
        try:
            file.write_text(to_json(value) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{file}: cannot write the report: {error.strerror}",
                hint="choose another place with --report",
            ) from error


def error_parts(error: BnfoldError) -> dict[str, Any]:
    """Return what an object says about an error: ``error`` and ``checks``."""
    return {
        "error": {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        },
        "checks": [check.to_dict() for check in checks_of(error)],
    }
