"""``bnfold inspect``: every site, its verdict and reason, before anything is written."""

from __future__ import annotations

import shlex
from typing import Any

import click

from bnfold.cli.batch import in_turn, run_batch
from bnfold.cli.console import Terminal, print_error
from bnfold.cli.objects import error_parts
from bnfold.cli.options import (
    fold_options,
    format_option,
    models_argument,
    statistics_option,
    terminal_options,
)
from bnfold.cli.reports import Reports, report_option
from bnfold.cli.verb import Verb, settings_for
from bnfold.errors import BnfoldError
from bnfold.fleet.sources import find_sources
from bnfold.report import FoldReport
from bnfold.report.render.text import counted

__all__ = ["inspect"]


@click.command(cls=Verb, each_model=True)
@models_argument
@fold_options
@statistics_option
@click.option(
    "--up-to-date",
    is_flag=True,
    help="Exit with 1 if optimize would still fold or merge something in a model.",
)
@format_option
@terminal_options
@report_option
def inspect(
    models: tuple[str, ...],
    *,
    statistics: bool,
    up_to_date: bool,
    reports: Reports,
    terminal: Terminal,
    **_: object,  # the options of single models, which `settings_for` gives for each
) -> int:
    """Say what would be folded and what would stay, and why. Nothing is written.

    A MODEL may be a directory: every .onnx file beneath it.
    """
    from bnfold.pipeline import inspect as inspect_model

    def job(model: str) -> FoldReport:
        given = settings_for(model)
        return inspect_model(
            model,
            keep=given["keep"],
            freeze_initializers=given["freeze_initializers"],
            merge=given["merge"],
            ones_channel=given["ones_channel"],
            statistics=statistics or bool(reports.files),
        )

    def verdict(found: dict[str, Any]) -> int:
        left = found["summary"]["folded"] + found["summary"]["merged"]
        if not (up_to_date and left):
            return 0
        error = OutdatedError(found["model"], left)
        print_error(error)
        found["error"] = error_parts(error)["error"]
        return error.exit_code

    sources = find_sources(models)
    names = [source.model for source in sources]
    is_several = any(source.found for source in sources)
    batch = run_batch(names, in_turn(names, job), terminal, verdict, is_several=is_several)
    batch.publish(reports)
    return batch.exit_code


class OutdatedError(BnfoldError):
    """A model is to be folded already, and is not."""

    exit_code = 1

    def __init__(self, model: str, left: int) -> None:
        super().__init__(
            f"{model}: not folded, {counted(left, 'site')} would go",
            hint=f"bnfold optimize {shlex.quote(model)} --in-place",
        )
