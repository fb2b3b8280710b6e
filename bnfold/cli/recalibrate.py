"""``bnfold recalibrate``: the statistics again, from data."""

from __future__ import annotations

from pathlib import Path

import click

from bnfold.cli.console import Terminal, print_hint, print_warning
from bnfold.cli.objects import json_head
from bnfold.cli.options import terminal_options, timeout_option
from bnfold.cli.reports import Reports, report_option
from bnfold.cli.types import FILE, FILE_FUNCTION, MODEL, PROVIDER
from bnfold.cli.verb import Verb

__all__ = ["recalibrate"]


@click.command(cls=Verb)
@click.argument("model", type=MODEL)
@click.option("-o", "--output", type=FILE, metavar="FILE", required=True, help="The file to write.")
@click.option(
    "--data",
    type=FILE,
    metavar="PATH",
    multiple=True,
    help="Samples: .npz, .npy, Polygraphy's .json, a test_data_set folder, a folder of these, or "
    "a folder of images. Repeatable.",
)
@click.option(
    "--data-loader",
    type=FILE_FUNCTION,
    metavar="FILE.py:FUNCTION",
    help="A function that returns or yields batches.",
)
@click.option(
    "--preprocess",
    metavar="SETTINGS",
    help="How images are read: imagenet, or settings such as "
    "'resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225'; also range, color, "
    "layout, interpolation.",
)
@click.option(
    "--mode",
    type=click.Choice(["precise", "sequential"]),
    default="precise",
    show_default=True,
    help="While gathering, normalize each batch by its own statistics, or work layer by layer with "
    "the new statistics of the layers before.",
)
@click.option(
    "--variance",
    type=click.Choice(["unbiased", "population"]),
    default="unbiased",
    show_default=True,
    help="Divide by n - 1, as PyTorch's running_var, or by n.",
)
@click.option(
    "--pooling",
    type=click.Choice(["samples", "batches"]),
    default="samples",
    show_default=True,
    help="Every value counts the same (exact over all), or every batch, as in PyTorch with "
    "momentum=None.",
)
@click.option(
    "--momentum",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="How far to move from the stored statistics to those of the data.",
)
@click.option(
    "--only",
    metavar="GLOB",
    multiple=True,
    help="Renew these normalizations alone. Repeatable.",
)
@click.option(
    "--keep-constant",
    is_flag=True,
    help="Leave the statistics of channels alone that are constant in the data.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples that are normalized together. Default: feeds as they come, large files and "
    "images 64 at a time.",
)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Use at most N samples.")
@click.option(
    "--provider",
    type=PROVIDER,
    metavar="NAME",
    default="cpu",
    show_default=True,
    help="Where to run: cpu, cuda, cuda:1, or another execution provider of the runtime.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draws the order of images.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where an interrupted run of the same options stopped.",
)
@timeout_option
@terminal_options
@report_option
def recalibrate(  # noqa: PLR0913 - one parameter for each option
    model: str,
    *,
    output: str,
    data: tuple[str, ...],
    data_loader: str | None,
    preprocess: str | None,
    mode: str,
    variance: str,
    pooling: str,
    momentum: float,
    only: tuple[str, ...],
    keep_constant: bool,
    batch_size: int | None,
    samples: int | None,
    provider: str,
    seed: int,
    resume: bool,
    reports: Reports,
    timeout: float | None,
    terminal: Terminal,
) -> int:
    """Gather the statistics of all batch normalizations again, and write the model with them.

    The input is never touched. The table shows how far the stored statistics were from the data.
    """
    from bnfold.recalibrate import recalibrate as recalibrate_model
    from bnfold.recalibrate import state_path

    head = {**json_head(), "model": model, "output": None}
    try:
        with reports.of_failures(head), terminal.progress() as progress:
            report = recalibrate_model(
                model,
                output,
                data=data,
                data_loader=data_loader,
                preprocess=preprocess,
                mode=mode,
                variance=variance,
                pooling=pooling,
                momentum=momentum,
                only=only,
                keep_constant=keep_constant,
                batch_size=batch_size,
                samples=samples,
                provider=provider,
                seed=seed,
                resume=resume,
                timeout=timeout,
                progress=progress,
            )
    except KeyboardInterrupt:
        if state_path(Path(output)).exists():
            print_hint("what was gathered is kept: the same command with --resume goes on from it")
        raise
    if not (terminal.quiet or terminal.json):
        from bnfold.cli.drift_tables import drift_tables
        from bnfold.cli.layout import print_tables

        print_tables(drift_tables(report, every_norm=terminal.verbose))
    if not terminal.quiet:
        for warning in report.warnings:
            print_warning(warning)
    reports.publish(report.to_dict(), exit_code=0)
    return 0
