"""``bnfold inspect``: every site, its verdict and reason, before anything is written."""

from __future__ import annotations

import click

from bnfold.cli.batch import run_batch
from bnfold.cli.console import Terminal
from bnfold.cli.options import fold_options, models_argument, terminal_options
from bnfold.fleet.sources import find_sources

__all__ = ["inspect"]


@click.command
@models_argument
@fold_options
@click.option(
    "--statistics",
    is_flag=True,
    help="Show the statistics too: ranges, dead channels, channels that amplify noise.",
)
@terminal_options
def inspect(
    models: tuple[str, ...],
    keep: tuple[str, ...],
    *,
    freeze_initializers: bool,
    merge: bool,
    ones_channel: bool,
    statistics: bool,
    terminal: Terminal,
) -> int:
    """Say what would be folded and what would stay, and why. Nothing is written.

    A MODEL may be a directory: every .onnx file beneath it.
    """
    from bnfold.pipeline import inspect as inspect_model

    batch = run_batch(
        tuple(source.model for source in find_sources(models)),
        lambda model: inspect_model(
            model,
            keep=keep,
            freeze_initializers=freeze_initializers,
            merge=merge,
            ones_channel=ones_channel,
            statistics=statistics,
        ),
        terminal,
    )
    batch.emit(terminal)
    return batch.exit_code
