"""``bnfold inspect``: every site, its verdict and reason, before anything is written."""

from __future__ import annotations

import click

from bnfold.cli.batch import in_turn, run_batch
from bnfold.cli.console import Terminal
from bnfold.cli.options import (
    fold_options,
    models_argument,
    statistics_option,
    terminal_options,
)
from bnfold.cli.reports import Reports, report_option
from bnfold.cli.verb import Verb, settings_for
from bnfold.fleet.sources import find_sources
from bnfold.report import FoldReport

__all__ = ["inspect"]


@click.command(cls=Verb, each_model=True)
@models_argument
@fold_options
@statistics_option
@terminal_options
@report_option
def inspect(
    models: tuple[str, ...],
    *,
    statistics: bool,
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

    sources = find_sources(models)
    names = [source.model for source in sources]
    is_several = any(source.found for source in sources)
    batch = run_batch(names, in_turn(names, job), terminal, is_several=is_several)
    batch.publish(reports)
    return batch.exit_code
