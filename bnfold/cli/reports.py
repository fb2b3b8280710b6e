"""``--report`` and ``--json``: what a run has to say, written where it is asked for.

Whether a report can be written is found out before the work, not after it. A report appears whole
or not at all, and also where the run fails.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bnfold.cli.console import Terminal, print_error, print_json
from bnfold.cli.objects import error_parts, json_head
from bnfold.cli.program import ARGUMENTS
from bnfold.errors import BnfoldError, InputError
from bnfold.report.render import FORMS, render, require

__all__ = ["Reports", "report_option"]


@dataclass(frozen=True)
class Reports:
    """Where the report of a run goes.

    Attributes:
        files: Files, their suffixes among those of `FORMS`.
        terminal: Prints the object where ``--json`` asks for it.
    """

    files: tuple[Path, ...]
    terminal: Terminal

    def publish(self, report: Mapping[str, Any], *, exit_code: int, **settings: Any) -> None:
        """Print a report if the terminal asks for JSON, and write it to all files.

        Args:
            report: The object of the run.
            exit_code: How the command will end.
            settings: What else a reader of ``run`` has to know.

        Raises:
            InputError: If a file cannot be written.
        """
        if not (self.files or self.terminal.json or self.terminal.github):
            return
        whole = {**json_head(), "run": {**_run(exit_code), **settings}, **report}
        if self.terminal.json:
            print_json(whole)
        if self.terminal.github:
            from bnfold.cli.annotations import annotate

            annotate(whole)
        for file in self.files:
            _write(file, render(whole, file.suffix.lower()))

    @contextlib.contextmanager
    def of_failures(self, head: Mapping[str, Any]) -> Iterator[None]:
        """Publish an error that ends the work, with what was known by then, and let it pass.

        Args:
            head: What the object says beside the error.
        """
        try:
            yield
        except BnfoldError as error:
            self._publish_error(head, error)
            raise
        except Exception as error:
            self._publish_error(head, BnfoldError(f"{type(error).__name__}: {error}"))
            raise

    def _publish_error(self, head: Mapping[str, Any], error: BnfoldError) -> None:
        try:
            self.publish({**head, **error_parts(error)}, exit_code=error.exit_code)
        except InputError as second:
            print_error(second)  # the first one is told by whoever catches it


def report_option(command: Callable[..., int]) -> Callable[..., int]:
    """Add ``--report``, below `terminal_options`; the command gets `Reports` too."""

    @functools.wraps(command)
    def with_reports(
        *, report_files: tuple[Path, ...], terminal: Terminal, **arguments: Any
    ) -> int:
        return command(reports=Reports(report_files, terminal), terminal=terminal, **arguments)

    return click.option(
        "--report",
        "report_files",
        type=click.Path(path_type=Path),
        metavar="FILE",
        multiple=True,
        callback=_usable,
        help="Write a report: FILE.html to look at, .md, .xml (JUnit) or .json. Repeatable.",
    )(with_reports)


def _usable(_: click.Context, __: click.Parameter, files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files, each once, if all of them can be written."""
    for file in files:
        suffix = file.suffix.lower()
        if suffix not in FORMS:
            raise click.BadParameter(f"'{file}' ends in none of {', '.join(FORMS)}.")
        if not file.parent.is_dir():
            raise click.BadParameter(f"the directory '{file.parent}' does not exist.")
        if file.is_dir():
            raise click.BadParameter(f"'{file}' is a directory.")
        require(suffix)
        _require_writable(file)
    return tuple(dict.fromkeys(files))


def _write(file: Path, text: str) -> None:
    from bnfold.store.temporaries import replacing

    with _explained(file), replacing(file.resolve()) as staged:
        staged.write_text(text, encoding="utf-8", newline="\n")


def _require_writable(file: Path) -> None:
    from bnfold.store.temporaries import temporary

    with _explained(file):
        target = file.resolve()
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(0, "it is not writable")
        probe = temporary(target.parent)
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Say of a report what the system says of it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{file}: cannot write the report: {error.strerror}",
            hint="choose another place with --report",
        ) from error


def _quoted(argument: str) -> str:
    """Return an argument as a shell takes it; what cannot be printed as bash spells it out."""
    if argument.isprintable():
        return shlex.quote(argument)
    escaped = "".join(
        char
        if char.isprintable() and char not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in argument
    )
    return f"$'{escaped}'"


def _run(exit_code: int) -> dict[str, Any]:
    """Return how the report came about."""
    from bnfold.environment import environment

    context = click.get_current_context()
    arguments = context.meta.get(ARGUMENTS, ())
    now = dt.datetime.now(dt.UTC)
    return {
        "verb": context.info_name,
        "command": " ".join(map(_quoted, ("bnfold", *arguments))),
        "exit_code": exit_code,
        "date": now.isoformat(timespec="seconds"),
        "environment": environment(),
    }
