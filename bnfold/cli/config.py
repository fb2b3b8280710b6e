"""``bnfold config``: what every option is, and where that is set."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli.console import print_json, print_warning
from bnfold.cli.types import DIMENSION, MODEL, SHAPE, completions
from bnfold.cli.verb import (
    Rank,
    Resolved,
    Verb,
    commands_of,
    configuration_of,
    file_options,
)
from bnfold.config.names import configurable, key_of, nearest, unknown_variables
from bnfold.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["config"]

_SOURCES = {Rank.DEFAULT: "default", Rank.ENVIRONMENT: "environment"}


@click.command(params=file_options())
@click.argument("model", type=MODEL, required=False)
@click.option(
    "--verb",
    metavar="VERB",
    shell_complete=lambda ctx, _, incomplete: completions(commands_of(ctx), incomplete),
    help="Show the options of this command alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def config(ctx: click.Context, model: str | None, verb: str | None, *, as_json: bool) -> int:
    """Show what every option is without any on the command line, and where that is set.

    With a MODEL, the tables that the file has for it count too.
    """
    commands = commands_of(ctx)
    warnings = unknown_variables(os.environ, commands)
    if verb is not None:
        commands = {verb: _command(verb, commands)}
    found: dict[str, dict[str, Resolved]] = {}
    for name, command in commands.items():
        try:
            found[name] = command.resolved(ctx, model)
        except InputError as error:  # a value for all commands that this one cannot take
            if verb is not None:
                raise
            warnings.append(f"{name}: {error.message}")
    options = {
        name: {key_of(option): option for option in configurable(command)}
        for name, command in commands.items()
        if name in found
    }
    configuration = configuration_of(ctx)
    file = str(configuration.file) if configuration else None
    if as_json:
        from bnfold.cli.objects import json_head

        verbs = {
            name: {
                key: _entry(option, found[name][option.name or ""])
                for key, option in options[name].items()
            }
            for name in found
        }
        head = {**json_head(), "file": file, "model": model}
        print_json({**head, "verbs": verbs, "warnings": warnings})
        return 0
    from bnfold.cli.layout import print_tables

    print_tables(_tables(file, options, found))
    for sentence in warnings:
        print_warning(sentence)
    return 0


def _command(verb: str, commands: Mapping[str, Verb]) -> Verb:
    if verb not in commands:
        like = nearest(verb, commands)
        advice = f"did you mean '{like}'?" if like else f"choose from {', '.join(commands)}."
        raise click.BadParameter(f"'{verb}' has no options to set; {advice}", param_hint="'--verb'")
    return commands[verb]


def _tables(
    file: str | None,
    options: Mapping[str, Mapping[str, click.Option]],
    found: Mapping[str, Mapping[str, Resolved]],
) -> Iterator[RenderableType]:
    from rich.text import Text

    from bnfold.cli.layout import columns

    yield Text(f"file: {file or 'none'}")
    for verb, by_key in options.items():
        table = columns(verb, "value", "from")
        for key, option in by_key.items():
            resolved = found[verb][option.name or ""]
            style = "dim" if resolved.rank == Rank.DEFAULT else None
            table.add_row(
                key, Text(_text(option, resolved.value)), Text(resolved.origin), style=style
            )
        yield table


def _entry(option: click.Option, resolved: Resolved) -> dict[str, Any]:
    return {
        "value": _plain(option, resolved.value),
        "source": _SOURCES.get(resolved.rank, "file"),
        "origin": resolved.origin,
    }


def _plain(option: click.Option, value: Any) -> Any:
    """Return a value as JSON has it."""
    if option.type in {SHAPE, DIMENSION}:
        return dict(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple):
        return [os.fspath(item) if isinstance(item, os.PathLike) else item for item in value]
    return value


def _text(option: click.Option, value: Any) -> str:
    """Return a value as one would write it."""
    if option.type is SHAPE:
        value = tuple(f"{name}:{'x'.join(map(str, sizes))}" for name, sizes in value)
    elif option.type is DIMENSION:
        value = tuple(f"{name}={size}" for name, size in value)
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
