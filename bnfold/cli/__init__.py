"""The command line: ``bnfold VERB ...``, each verb a thin twin of a function of `bnfold`.

People read stderr, programs read stdout. Nothing here imports more than click before a command
runs, so ``bnfold --help`` answers at once.
"""

from __future__ import annotations

import click

from bnfold._version import __version__
from bnfold.cli.program import Program

__all__ = ["main"]

# Each verb is the function of its name in the module of its name.
_VERBS = {
    "optimize": "Fold, prove, write.",
    "inspect": "Say what would fold, and why the rest stays.",
    "check": "Compare two models.",
    "recalibrate": "Gather the statistics again, from data.",
    "bench": "Time models against each other.",
    "doctor": "Say what is installed, what works, and how to repair the rest.",
    "completion": "Print what makes a shell complete the commands.",
    "config": "Show what every option is, and where that is set.",
}


@click.group(
    "bnfold",
    cls=Program,
    verbs=_VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 done, 1 a check said no, 2 usage or unreadable input, 3 not equivalent and "
        "nothing written, 4 a provider or package is missing, 5 internal error, 130 interrupted."
    ),
)
@click.version_option(__version__, "--version", message="bnfold %(version)s")
def main() -> None:
    """Fold every BatchNormalization that mathematics allows, and prove it."""
