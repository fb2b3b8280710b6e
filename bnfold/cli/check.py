"""``bnfold check``: do two models compute the same?"""

from __future__ import annotations

import click

from bnfold._version import __version__
from bnfold.cli.console import Terminal, print_json
from bnfold.cli.options import Proof, check_options, terminal_options
from bnfold.report import SCHEMA_VERSION

__all__ = ["check"]


@click.command(short_help="Compare two models.")
@click.argument("reference")
@click.argument("candidate")
@check_options
@terminal_options
def check(reference: str, candidate: str, proof: Proof, terminal: Terminal) -> int:
    """Compare CANDIDATE with REFERENCE by the reference's own rounding noise.

    Exit code 0 if they compute the same, 1 if they do not.
    """
    from bnfold.check import check as check_models

    with terminal.progress() as progress:
        checks = check_models(
            reference,
            candidate,
            providers=proof.providers,
            inputs=proof.inputs,
            dims=proof.dims,
            data=proof.data,
            rtol=proof.rtol,
            atol=proof.atol,
            seed=proof.seed,
            progress=progress,
        )
    equivalent = all(report.equivalent for report in checks)
    terminal.show_checks(f"{reference} and {candidate}", checks)
    if terminal.json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "bnfold": __version__,
                "reference": reference,
                "candidate": candidate,
                "equivalent": equivalent,
                "checks": [report.to_dict() for report in checks],
            }
        )
    return 0 if equivalent else 1
