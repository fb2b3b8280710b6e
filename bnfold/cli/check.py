"""``bnfold check``: do two models compute the same?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from bnfold.cli.console import Terminal, print_hint
from bnfold.cli.objects import checks_of, json_head
from bnfold.cli.options import Proof, check_options, format_option, terminal_options
from bnfold.cli.overlay import overlay_option, write_overlay
from bnfold.cli.reports import Reports, report_option
from bnfold.cli.types import FILE, MODEL
from bnfold.cli.verb import Verb
from bnfold.errors import BnfoldError
from bnfold.report import CheckReport

__all__ = ["check"]


@click.command(cls=Verb)
@click.argument("reference", type=MODEL)
@click.argument("candidate", type=MODEL)
@check_options
@click.option(
    "--localize",
    is_flag=True,
    help="If they differ, find the first tensor where they do, and the node that made it.",
)
@click.option(
    "--oracle",
    is_flag=True,
    help="Say which of the two is nearer to the result in float64 (slow).",
)
@overlay_option
@click.option("--tf32", is_flag=True, help="Show beside the verdict what TF32 changes on CUDA.")
@click.option(
    "--failing-feed",
    type=FILE,
    metavar="FILE.npz",
    help="Save the inputs that show a difference here. Default: CANDIDATE.failing.npz.",
)
@format_option
@terminal_options
@report_option
def check(  # noqa: PLR0913 - one parameter for each option
    reference: str,
    candidate: str,
    proof: Proof,
    failing_feed: str | None,
    terminal: Terminal,
    *,
    localize: bool,
    oracle: bool,
    overlay: Path | None,
    tf32: bool,
    reports: Reports,
) -> int:
    """Compare CANDIDATE with REFERENCE by the reference's own rounding noise.

    Exit code 0 if they compute the same, 1 if they do not.
    """
    from bnfold.check import check as check_models

    title = f"{reference} and {candidate}"
    path = Path(candidate)
    saved = failing_feed or str(path.parent / f"{path.stem}.failing.npz")
    head = {**json_head(), "reference": reference, "candidate": candidate}
    try:
        with reports.of_failures({**head, "equivalent": None}), terminal.progress() as progress:
            checks = check_models(
                reference,
                candidate,
                progress=progress,
                failing_feed=saved,
                localize=localize or overlay is not None,
                oracle=oracle,
                tf32=tf32,
                **proof,
            )
    except BnfoldError as error:
        if checks_of(error):
            terminal.show_checks(title, checks_of(error))
        raise
    equivalent = all(report.equivalent for report in checks)
    terminal.show_checks(title, checks)
    if overlay is not None:
        write_overlay(overlay, candidate, checks)
    replay = _replay(reference, candidate, checks, proof)
    if replay and not (terminal.quiet or terminal.json):
        print_hint(f"to see it again: {replay}")
    parts = {
        "equivalent": equivalent,
        "replay": replay,
        "checks": [report.to_dict() for report in checks],
        "operators": _operators(reference, candidate) if reports.files else None,
    }
    exit_code = 0 if equivalent else 1
    reports.publish({**head, **parts}, exit_code=exit_code)
    return exit_code


def _operators(reference: str, candidate: str) -> dict[str, dict[str, int]] | None:
    """Return the number of nodes of both models by operator; None where that is not known."""
    from bnfold.graph.census import operator_counts
    from bnfold.store import load

    with contextlib.suppress(BnfoldError):
        before, after = (operator_counts(load(Path(each)).proto) for each in (reference, candidate))
        return {"before": before, "after": after}
    return None


def _replay(
    reference: str, candidate: str, checks: tuple[CheckReport, ...], proof: Proof
) -> str | None:
    """Return the command that compares the two on the failing feed alone, if one was saved."""
    failed = next((report for report in checks if report.failing_feed), None)
    if failed is None or failed.failing_feed is None:
        return None
    from bnfold.check.data import replay_command

    options = {
        "seed": proof["seed"],
        "level": None if proof["level"] == "default" else proof["level"],
        "provider": None if proof["providers"] == ("cpu",) else failed.provider,
        "rtol": proof["rtol"],
        "atol": proof["atol"],
        # The tables of a file apply to the command that repeats it, too.
        "tolerances": proof["tolerances"] if isinstance(proof["tolerances"], str) else None,
    }
    return replay_command(reference, candidate, failed.failing_feed, options)
