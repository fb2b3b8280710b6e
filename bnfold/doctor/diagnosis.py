"""What a doctor finds, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bnfold.doctor.machine import Machine

__all__ = ["Diagnosis", "Package", "Problem", "Provider", "Severity"]


class Severity(StrEnum):
    """How bad it is: with an error the main job, to fold and to prove, does not work."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        severity: How bad it is.
        message: What it is, in one line.
        repair: The command that repairs it, or what to do.
    """

    severity: Severity
    message: str
    repair: str


@dataclass(frozen=True)
class Package:
    """A package that bnfold can use.

    Attributes:
        name: Name of the distribution.
        needed: The versions that fit, such as ``>=1.17``; empty if all do.
        by: ``bnfold`` itself, or the extras that need it.
        installed: The version that is there, or None.
        fits: Whether it is within the range; None if it is not there or cannot be compared.
        works: Whether it can be imported; None if it is not there.
        repair: The command that installs it if it is not there, or None.
    """

    name: str
    needed: str
    by: tuple[str, ...]
    installed: str | None
    fits: bool | None
    works: bool | None
    repair: str | None


@dataclass(frozen=True)
class Provider:
    """An execution provider of the installed runtime.

    Attributes:
        name: Its full name, with a device if one was asked for.
        needed: True if it was asked for.
        usable: Whether a model ran on it, rightly.
        problem: Why not, or None.
        repair: What to do about that, or None.
    """

    name: str
    needed: bool
    usable: bool
    problem: str | None
    repair: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found.

    Attributes:
        python: Version of the interpreter.
        executable: Path of the interpreter.
        packages: What bnfold needs, and what of it is there.
        providers: What the runtime was built with.
        problems: What is wrong, the worst first.
        machine: The computer.
    """

    python: str
    executable: str
    packages: tuple[Package, ...]
    providers: tuple[Provider, ...]
    problems: tuple[Problem, ...]
    machine: Machine

    @property
    def works(self) -> bool:
        """True if models can be folded, and proved on the providers that were asked for."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"works": self.works, **dataclasses.asdict(self)}
