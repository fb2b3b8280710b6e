"""What goes to the terminal: messages on stderr, JSON on stdout, progress on a terminal only."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bnfold.report.render.json import to_json
from bnfold.report.render.text import printable

if TYPE_CHECKING:
    from bnfold.benchmark.report import BenchReport
    from bnfold.errors import BnfoldError
    from bnfold.report import CheckReport, FoldReport

__all__ = [
    "Terminal",
    "print_bug",
    "print_error",
    "print_hint",
    "print_json",
    "print_labelled",
    "print_line",
    "print_out",
    "print_warning",
    "printable",
]


@dataclass(frozen=True)
class Terminal:
    """How much a command says, and where.

    Attributes:
        verbose: Every site gets its own line, and the log goes to stderr.
        quiet: Errors only.
        json: stdout carries one JSON object; stderr has no tables.
        statistics: The statistics of normalizations are shown where they are known.
        github: stdout carries annotations for GitHub Actions.
    """

    verbose: bool = False
    quiet: bool = False
    json: bool = False
    statistics: bool = False
    github: bool = False

    def __post_init__(self) -> None:
        if self.verbose:
            logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
            logging.getLogger("bnfold").setLevel(logging.DEBUG)

    def show_report(self, report: FoldReport) -> None:
        """Print the verdicts and the proof of one model."""
        if not (self.quiet or self.json):
            from bnfold.cli.fold_tables import fold_tables
            from bnfold.cli.layout import print_tables

            print_tables(fold_tables(report, every_site=self.verbose, statistics=self.statistics))
        self.show_checks_warnings(report.checks)
        if not self.quiet:
            for hint in report.hints:
                print_hint(hint)

    def show_line(self, found: Mapping[str, Any]) -> None:
        """Print the object of one model of many in one line."""
        if not (self.quiet or self.json):
            from bnfold.cli.batch_tables import model_line
            from bnfold.cli.layout import print_tables

            print_tables(model_line(found))

    def show_summary(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Print the objects of many models as one table."""
        if not (self.quiet or self.json):
            from bnfold.cli.batch_tables import summary_tables
            from bnfold.cli.layout import print_tables

            print_tables(summary_tables(objects))

    def show_checks(self, title: str, checks: tuple[CheckReport, ...]) -> None:
        """Print a comparison of two models."""
        if not (self.quiet or self.json):
            from bnfold.cli.check_tables import check_tables
            from bnfold.cli.layout import print_tables

            print_tables(check_tables(title, checks))
        self.show_checks_warnings(checks)

    def show_bench(self, report: BenchReport) -> None:
        """Print what a benchmark measured."""
        if not (self.quiet or self.json):
            from bnfold.cli.bench_tables import bench_tables
            from bnfold.cli.layout import print_tables

            print_tables(bench_tables(report))

    def show_checks_warnings(self, checks: tuple[CheckReport, ...]) -> None:
        """Print what the checks noticed about the runtime, each sentence once."""
        if not self.quiet:
            for warning in dict.fromkeys(text for check in checks for text in check.warnings):
                print_warning(warning)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str], None] | None]:
        """Yield a function that shows what is being done, or None where nobody watches."""
        if self.quiet or self.json or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("reading", total=None)

            def show(step: str) -> None:
                done, total = getattr(step, "done", None), getattr(step, "total", None)
                bar.update(task, description=printable(step), completed=done or 0, total=total)

            yield show


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print_out(to_json(value))


def print_out(text: str) -> None:
    """Print on stdout, in UTF-8; a reader that has gone away is no error."""
    try:
        click.echo(text.encode(), nl=False)
    except BrokenPipeError:  # point stdout elsewhere, or the interpreter complains at its exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: BnfoldError) -> None:
    """Print an error and its hint, one line each."""
    print_labelled("error", error.message)
    if error.hint:
        print_hint(error.hint)


def print_warning(message: str) -> None:
    """Print a warning, in one line."""
    print_labelled("warning", message, "yellow")


def print_hint(message: str) -> None:
    """Print advice, in one line."""
    print_labelled("hint", message, "cyan")


def print_bug(text: str | None = None) -> None:
    """Print a traceback, that of the exception being handled by default, and whose fault it is."""
    print_line(text or traceback.format_exc().rstrip())
    print_labelled("error", "this is a bug in bnfold")
    print_hint("please report it, with the lines above and the model if you can share it")


def print_line(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def print_labelled(label: str, message: str, colour: str = "red") -> None:
    """Print ``label: message`` on stderr, in one line, the label coloured on a terminal."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    prefix = click.style(f"{label}:", fg=colour, bold=True) if coloured else f"{label}:"
    print_line(f"{prefix} {printable(message)}")
