"""Options that several commands share, as decorators, and the values that they parse to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import click

from bnfold.cli.console import Terminal
from bnfold.cli.types import (
    DIMENSION,
    FILE,
    FILE_FUNCTION,
    MODEL,
    PROVIDER,
    SHAPE,
    TOLERANCES,
)
from bnfold.levels import LEVELS

__all__ = [
    "Proof",
    "check_options",
    "dim_option",
    "fold_options",
    "format_option",
    "input_option",
    "level_option",
    "models_argument",
    "provider_option",
    "seed_option",
    "statistics_option",
    "take_proof",
    "terminal_options",
    "timeout_option",
    "unique",
]

Command = Callable[..., int]


class Proof(TypedDict):
    """How two models are compared: arguments of `bnfold.check`."""

    providers: tuple[str, ...]
    level: str
    inputs: dict[str, tuple[int, ...]]
    dims: dict[str, int]
    data: tuple[str, ...]
    data_loader: str | None
    samples: int | None
    rtol: float | None
    atol: float | None
    tolerances: str | Mapping[str, Any] | None
    seed: int
    timeout: float | None


models_argument = click.argument("models", type=MODEL, metavar="MODEL...", nargs=-1, required=True)
provider_option = click.option(
    "--provider",
    type=PROVIDER,
    metavar="NAME",
    multiple=True,
    default=("cpu",),
    help="Where to run: cpu (default), cuda, cuda:1, or another execution provider of the "
    "installed runtime. It runs there, or it is an error. Repeatable.",
)
level_option = click.option(
    "--level",
    type=click.Choice(list(LEVELS)),
    default="default",
    show_default=True,
    help="Optimization level of the deployment.",
)
input_option = click.option(
    "--input",
    "inputs",
    type=SHAPE,
    metavar="[NAME:]1x3x224x224",
    multiple=True,
    help="Shape of an input; the name may be left out if there is one. Repeatable.",
)
dim_option = click.option(
    "--dim",
    "dims",
    type=DIMENSION,
    metavar="NAME=SIZE",
    multiple=True,
    help="Size of a symbolic dimension. Repeatable.",
)
statistics_option = click.option(
    "--statistics",
    is_flag=True,
    help="Show the statistics too: ranges, dead channels, channels that amplify noise.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the random inputs.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after this time.",
)


def fold_options(command: Command) -> Command:
    """Add the options of a fold: ``keep``, ``freeze_initializers``, ``merge``, ``ones_channel``."""
    return _with(
        command,
        click.option(
            "--keep",
            metavar="GLOB",
            multiple=True,
            help="Leave the sites alone whose name matches, such as 'stage1/*'. Repeatable.",
        ),
        click.option(
            "--freeze-initializers",
            is_flag=True,
            help="Take initializers that a caller could override for constants, and take them out "
            "of the model's inputs.",
        ),
        click.option(
            "--merge/--no-merge",
            default=True,
            show_default=True,
            help="Make one of linear operators that are added or follow one another.",
        ),
        click.option(
            "--ones-channel",
            is_flag=True,
            help="Fold in front of padded convolutions too, by a channel that is constantly 1.",
        ),
    )


def check_options(command: Command) -> Command:
    """Add the options of the comparison; the command gets them as one `Proof`."""

    @functools.wraps(command)
    def with_proof(**arguments: Any) -> int:
        return command(proof=take_proof(arguments), **arguments)

    return _with(
        with_proof,
        provider_option,
        level_option,
        input_option,
        dim_option,
        click.option(
            "--data",
            type=FILE,
            metavar="PATH",
            multiple=True,
            help="Compare on these inputs too: .npz, .npy, Polygraphy's .json, an ONNX "
            "test_data_set folder, or a folder of them. Repeatable.",
        ),
        click.option(
            "--data-loader",
            type=FILE_FUNCTION,
            metavar="FILE.py:FUNCTION",
            help="Compare on the inputs that this function returns or yields.",
        ),
        click.option(
            "--samples",
            type=click.IntRange(min=1),
            metavar="N",
            help="Compare N sets of inputs: the given ones first, then drawn ones.",
        ),
        click.option(
            "--rtol",
            type=click.FloatRange(min=0),
            help="Relative tolerance, with --atol, in place of the noise rule.",
        ),
        click.option("--atol", type=click.FloatRange(min=0), help="Absolute tolerance."),
        click.option(
            "--tolerances",
            type=TOLERANCES,
            metavar="FILE",
            help="rtol and atol for single outputs, by name: a JSON or TOML file.",
        ),
        seed_option,
        timeout_option,
    )


def take_proof(arguments: dict[str, Any]) -> Proof:
    """Take the options of the comparison out of the arguments of a command.

    Raises:
        click.UsageError: They contradict each other.
    """
    proof = Proof(
        providers=tuple(dict.fromkeys(arguments.pop("provider"))),
        level=arguments.pop("level"),
        inputs=unique("--input", arguments.pop("inputs")),
        dims=unique("--dim", arguments.pop("dims")),
        data=arguments.pop("data"),
        data_loader=arguments.pop("data_loader"),
        samples=arguments.pop("samples"),
        rtol=arguments.pop("rtol"),
        atol=arguments.pop("atol"),
        tolerances=arguments.pop("tolerances"),
        seed=arguments.pop("seed"),
        timeout=arguments.pop("timeout"),
    )
    if (proof["rtol"] is None) != (proof["atol"] is None):
        message = "--rtol and --atol replace the noise rule together: give both, or neither."
        raise click.UsageError(message)
    return proof


def terminal_options(command: Command) -> Command:
    """Add ``--json``, ``-v`` and ``-q``; the command gets them as one `Terminal`."""

    @functools.wraps(command)
    def with_terminal(**arguments: Any) -> int:
        terminal = Terminal(
            github=arguments.pop("output_format", "text") == "github",
            json=arguments.pop("as_json"),
            verbose=arguments.pop("verbose"),
            quiet=arguments.pop("quiet"),
            statistics=arguments.get("statistics", False),
        )
        if terminal.github and terminal.json:
            message = (
                "--format github and --json both write to stdout; --report FILE.json writes a file."
            )
            raise click.UsageError(message)
        if terminal.github:
            from bnfold.cli.annotations import guard_stderr

            guard_stderr()
        return command(terminal=terminal, **arguments)

    return _with(
        with_terminal,
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
        click.option("-v", "--verbose", is_flag=True, help="One line for every site, and a log."),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    )


def format_option(command: Command) -> Command:
    """Add ``--format``, above `terminal_options`: the `Terminal` that it makes knows it."""
    return _with(
        command,
        click.option(
            "--format",
            "output_format",
            type=click.Choice(["text", "github"]),
            default="text",
            show_default=True,
            help="github: annotations on stdout, and a summary in $GITHUB_STEP_SUMMARY.",
        ),
    )


def _with(command: Command, *decorators: Callable[[Command], Command]) -> Command:
    """Apply decorators so that ``--help`` lists their options in the order given."""
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def unique(option: str, pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return the pairs as a dict; a name that comes twice is an error."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise click.UsageError(f"{option} is given twice for the same name.")
    return values
