"""``bnfold bench``: how fast are models, and is the difference more than noise?"""

from __future__ import annotations

import click

from bnfold.cli.console import Terminal
from bnfold.cli.objects import json_head
from bnfold.cli.options import (
    dim_option,
    input_option,
    level_option,
    provider_option,
    seed_option,
    terminal_options,
    timeout_option,
    unique,
)
from bnfold.cli.reports import Reports, report_option
from bnfold.cli.types import MODEL
from bnfold.cli.verb import Verb

__all__ = ["bench"]


@click.command(cls=Verb)
@click.argument("models", type=MODEL, metavar="MODEL [OTHER]...", nargs=-1, required=True)
@provider_option
@level_option
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    help="Size of the first dimension, where the model leaves it open. Repeatable.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    multiple=True,
    default=(0,),
    help="Threads inside an operator; 0 (default) for the runtime's own choice. Repeatable.",
)
@input_option
@dim_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Time each model for so long under each setting.",
)
@click.option(
    "--footprint/--no-footprint",
    default=True,
    show_default=True,
    help="Measure load time and memory too, in processes of their own.",
)
@seed_option
@timeout_option
@terminal_options
@report_option
def bench(  # noqa: PLR0913, PLR0917 - one parameter for each option
    models: tuple[str, ...],
    provider: tuple[str, ...],
    level: str,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    dims: tuple[tuple[str, int], ...],
    seconds: float,
    seed: int,
    timeout: float | None,
    terminal: Terminal,
    *,
    footprint: bool,
    reports: Reports,
) -> int:
    """Time each OTHER in turns with MODEL, and say whether there is a difference.

    The ratio is that of an OTHER to the first MODEL: below 1 is faster. Whether they compute the
    same is for `bnfold check` to say.
    """
    from bnfold.benchmark import bench as bench_models

    head = {**json_head(), "models": list(models)}
    with reports.of_failures(head), terminal.progress() as progress:
        report = bench_models(
            models,
            providers=tuple(dict.fromkeys(provider)),
            level=level,
            batches=tuple(dict.fromkeys(batches)),
            threads=tuple(dict.fromkeys(threads)),
            inputs=unique("--input", inputs),
            dims=unique("--dim", dims),
            seconds=seconds,
            footprint=footprint,
            seed=seed,
            timeout=timeout,
            progress=progress,
        )
    terminal.show_bench(report)
    reports.publish({**head, **report.to_dict()}, exit_code=0)
    return 0
