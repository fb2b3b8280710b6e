"""Every exception that bnfold raises on purpose.

::

    BnfoldError                  exit 5   anything below; catch this one
    ├── InputError               exit 2   a file, option or argument that cannot be used
    │   └── ModelError           exit 2   the model file itself is unreadable or not valid ONNX
    ├── NotEquivalentError       exit 3   the result does not compute the same; nothing was written
    └── ProviderError            exit 4   a provider or package is missing or did not run
        └── MissingPackageError  exit 4   an optional dependency is not installed

A message names the file or option first and quotes names; ``hint`` says what to do about it. Both
are one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bnfold.report import CheckReport, FoldReport

__all__ = [
    "BnfoldError",
    "InputError",
    "MissingPackageError",
    "ModelError",
    "NotEquivalentError",
    "ProviderError",
]


class BnfoldError(Exception):
    """Base of all errors that bnfold raises on purpose.

    Attributes:
        message: What is wrong, in one line, names quoted.
        hint: What to do about it, in one line, or None.
        exit_code: The exit code of the command line for this error.
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(BnfoldError):
    """A file, option or argument cannot be used as given."""

    exit_code = 2


class ModelError(InputError):
    """A model file cannot be read, or is not a valid ONNX model."""


class NotEquivalentError(BnfoldError):
    """The folded model does not compute the same as the original; nothing was written.

    Attributes:
        checks: The comparisons that were made, the failing ones among them.
        report: What was folded, or None where that is not known.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        checks: tuple[CheckReport, ...] = (),
        report: FoldReport | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.checks = checks
        self.report = report


class ProviderError(BnfoldError):
    """An execution provider is missing, or did not run the work it was asked to run.

    Attributes:
        learned: The results that were complete by then, such as the reports of a check.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, hint: str | None = None, learned: tuple[object, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.learned = learned


class MissingPackageError(ProviderError):
    """An optional dependency is not installed."""
