"""``bnfold optimize``: fold, write, prove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from bnfold.cli.batch import run_batch
from bnfold.cli.console import Terminal, print_hint, print_labelled
from bnfold.cli.fleet import Fleet, fleet_options, one_by_one
from bnfold.cli.options import (
    check_options,
    fold_options,
    format_option,
    models_argument,
    statistics_option,
    take_proof,
    terminal_options,
)
from bnfold.cli.reports import Reports, report_option
from bnfold.cli.targets import choose_targets
from bnfold.cli.types import FILE, FILE_FUNCTION, FOLDER, KEY_VALUE
from bnfold.cli.verb import Verb, settings_for
from bnfold.fleet.task import FoldTask, PytorchSettings
from bnfold.report import BRANCH, Reason

__all__ = ["optimize"]


@click.command(cls=Verb, each_model=True)
@models_argument
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    help="Write here. Default: MODEL.folded.onnx.",
)
@click.option(
    "--output-dir",
    type=FOLDER,
    metavar="DIR",
    help="Write each model here, under its own name.",
)
@click.option("--in-place", is_flag=True, help="Replace the model itself.")
@click.option(
    "--check/--no-check",
    "prove",
    default=True,
    show_default=True,
    help="Prove that the result computes the same, or write nothing.",
)
@click.option("--simplify", is_flag=True, help="Run onnxsim first (extra 'simplify').")
@fold_options
@click.option(
    "--require-folded",
    is_flag=True,
    help="Exit with 1 if a site is kept that --keep does not name. The output is written.",
)
@fleet_options
@statistics_option
@click.option(
    "--arch",
    type=FILE_FUNCTION,
    metavar="MODULE:FACTORY",
    help="What a PyTorch state dict belongs to: package.module:factory, file.py:factory or "
    "timm:resnet50.",
)
@click.option(
    "--arch-args",
    type=KEY_VALUE,
    metavar="KEY=VALUE",
    multiple=True,
    help="Argument of --arch. Repeatable.",
)
@click.option("--ema", is_flag=True, help="Take the averaged weights of a PyTorch checkpoint.")
@click.option(
    "--trust-pickle",
    is_flag=True,
    help="Load pickled PyTorch modules, which runs the code that the file names.",
)
@check_options
@format_option
@terminal_options
@report_option
def optimize(  # noqa: PLR0913 - one parameter for each option of the run
    models: tuple[str, ...],
    output: str | None,
    output_dir: str | None,
    terminal: Terminal,
    *,
    in_place: bool,
    require_folded: bool,
    fleet: Fleet,
    statistics: bool,
    reports: Reports,
    **_: object,  # the options of single models, which `settings_for` gives for each
) -> int:
    """Fold the batch normalizations of each MODEL into the weights around them.

    Without -o, a/model.onnx becomes a/model.folded.onnx. The input is never touched unless
    --in-place says so, and an output appears only if it is proved to compute the same.

    A MODEL may be a directory: every .onnx file beneath it. With --output-dir the tree is kept.

    A MODEL may be a PyTorch file: an exported program (.pt2), TorchScript, a state dict with
    --arch. Then -o names what to write, an .onnx or a .pt2 file; --input gives the shapes of a
    module's inputs, and --dim N=4 leaves their first axis open under that name.
    """
    targets = choose_targets(models, output, output_dir, in_place=in_place)
    elsewhere = fleet.takes(targets)
    with_statistics = statistics or bool(reports.files)
    tasks = [
        _task(source.model, None if in_place else target, statistics=with_statistics)
        for source, target in targets.items()
    ]
    if elsewhere:
        tasks = [
            fleet.recorded(task, source, output_dir)
            for task, source in zip(tasks, targets, strict=True)
        ]

    def verdict(found: dict[str, Any]) -> int:
        missed = sum(map(_is_missed, found["sites"]))
        if not (require_folded and missed):
            return 0
        print_labelled("error", f"{found['model']}: --require-folded: {missed} site(s) kept")
        print_hint("the report says why; --keep names sites that may stay")
        return 1

    batch = run_batch(
        [task.model for task in tasks],
        fleet.outcomes(tasks, terminal) if elsewhere else one_by_one(tasks, terminal),
        terminal,
        verdict,
        is_several=any(source.found for source in targets),
        in_short=elsewhere,
    )
    batch.publish(reports, require_folded=require_folded)
    return batch.exit_code


def _task(model: str, target: str | None, *, statistics: bool) -> FoldTask:
    """Return the work on one model, with the options that it has."""
    given = settings_for(model)
    options = {
        "check": given["prove"],
        "simplify": given["simplify"],
        "keep": given["keep"],
        "freeze_initializers": given["freeze_initializers"],
        "merge": given["merge"],
        "ones_channel": given["ones_channel"],
        "statistics": statistics,
        **take_proof(given),
    }
    pytorch = PytorchSettings(
        given["arch"], given["arch_args"], given["ema"], given["trust_pickle"]
    )
    return FoldTask(model, target, options, pytorch)


def _is_missed(site: Mapping[str, Any]) -> bool:
    is_kept = site["verdict"] == "kept" and site["kind"] != BRANCH
    return is_kept and bool(site["reason"] != Reason.EXCLUDED)
