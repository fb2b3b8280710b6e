"""A command whose options a file and the environment can set: where each value comes from.

Command line > environment > tables of models > table of the verb > options for all verbs >
default. Values come through click: from its environment variables and its map of defaults.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bnfold.cli.shortened import shortened_files_are_an_error
from bnfold.cli.types import FILE
from bnfold.config.names import configurable, environment_names, unknown_variables

if TYPE_CHECKING:
    from bnfold.config.layers import Configuration, Setting

__all__ = [
    "Rank",
    "Resolved",
    "Verb",
    "commands_of",
    "configuration_of",
    "file_options",
    "resolve",
    "settings_for",
]

_CONFIGURATION = "bnfold.configuration"
_NO_CONFIG = "bnfold.no_config"

# What is said at a higher rank stands in the place of what is said of the others.
_ALTERNATIVES = (
    (("output",), ("output_dir",), ("in_place",)),
    (("data",), ("data_loader",)),
    (("rtol", "atol"), ("tolerances",)),
)


class Rank(IntEnum):
    """Who says what an option is; the highest counts."""

    DEFAULT = 0
    VERB = 1
    MODEL = 2
    ENVIRONMENT = 3
    COMMAND_LINE = 4


_RANKS = {
    ParameterSource.COMMANDLINE: Rank.COMMAND_LINE,
    ParameterSource.ENVIRONMENT: Rank.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP: Rank.VERB,
}


@dataclass(frozen=True)
class Resolved:
    """The value of an option.

    Attributes:
        value: As the command takes it.
        rank: Who said so.
        origin: Where that stands: a file and its table, a variable of the environment.
    """

    value: Any
    rank: Rank
    origin: str


class Verb(click.Command):
    """A command that can be configured.

    Args:
        each_model: True if it asks for the settings of each of its models itself, with
            `settings_for`. Otherwise those of its first model count for the command as a whole.
    """

    def __init__(self, *args: Any, each_model: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.each_model = each_model
        for option in configurable(self):
            option.envvar = environment_names(self.name or "", option)
        self.params += file_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; a variable of the environment that cannot be used is named."""
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            option = error.param
            if (
                option
                and ctx.get_parameter_source(option.name or "") == ParameterSource.ENVIRONMENT
            ):
                error.param_hint = f"environment variable {_variable(option)}"
            raise

    def make_parser(self, ctx: click.Context) -> Any:
        """Let the command line switch off a flag that was switched on elsewhere."""
        parser = super().make_parser(ctx)
        for option in configurable(self):
            if option.is_flag and not option.secondary_opts:
                name = max(option.opts, key=len).replace("--", "--no-", 1)
                parser.add_option(
                    option, [name], dest=option.name, action="store_const", const=False
                )
        return parser

    def invoke(self, ctx: click.Context) -> Any:
        """Run it with what the options come to."""
        self._warn_of_environment(ctx)
        model = None if self.each_model else _first_model(ctx)
        ctx.params.update({name: each.value for name, each in resolve(ctx, model).items()})
        with shortened_files_are_an_error():
            return super().invoke(ctx)

    def resolved(self, parent: click.Context, model: str | None) -> dict[str, Resolved]:
        """Return what the options come to if the command line has none, by parameter name.

        Args:
            parent: The context of a command that has read the file.
            model: The model whose tables count, or None.
        """
        bare = copy.copy(self)
        bare.params = []
        for option in configurable(self):
            value_only = copy.copy(option)
            value_only.callback = None  # it prepares for work that is not done here
            bare.params.append(value_only)
        configuration = configuration_of(parent)
        settings = configuration.for_verb(self.name or "") if configuration else {}
        defaults = {name: setting.value for name, setting in settings.items()}
        return resolve(bare.make_context(self.name, [], parent, default_map=defaults), model)

    def _warn_of_environment(self, ctx: click.Context) -> None:
        if ctx.params.get("quiet") or not any(name.startswith("BNFOLD_") for name in os.environ):
            return
        from bnfold.cli.console import print_warning

        for sentence in unknown_variables(os.environ, commands_of(ctx)):
            print_warning(sentence)


def settings_for(model: str) -> dict[str, Any]:
    """Return the options of the running command for one model, by the name of the parameter.

    What the command line and the environment say stands; tables of models fill the rest. To be
    called where the command runs, not in another thread or process.

    Args:
        model: Path of the model.

    Raises:
        InputError: The tables say what the command cannot use.
    """
    return {name: each.value for name, each in resolve(click.get_current_context(), model).items()}


def resolve(ctx: click.Context, model: str | None) -> dict[str, Resolved]:
    """Return what each option of a command comes to, by the name of the parameter.

    Args:
        ctx: The context of the command, parsed.
        model: The model whose tables count, or None.
    """
    configuration = configuration_of(ctx)
    verb = ctx.command.name or ""
    shared: Mapping[str, Setting] = configuration.for_verb(verb) if configuration else {}
    own: Mapping[str, Setting] = {}
    if configuration and model is not None:
        own = configuration.for_model(verb, model)
    found = {}
    for option in _options(ctx.command):
        name = option.name or ""
        source = ctx.get_parameter_source(name)
        rank = _RANKS.get(source, Rank.DEFAULT) if source else Rank.DEFAULT
        if rank < Rank.MODEL and name in own:
            value = option.type_cast_value(ctx, own[name].value)
            found[name] = Resolved(value, Rank.MODEL, own[name].origin)
        else:
            origin = {
                Rank.COMMAND_LINE: "command line",
                Rank.ENVIRONMENT: _variable(option) if rank == Rank.ENVIRONMENT else "",
                Rank.VERB: shared[name].origin if name in shared else "",
                Rank.DEFAULT: "default",
            }[rank]
            found[name] = Resolved(ctx.params[name], rank, origin)
    for alternatives in _ALTERNATIVES:
        _settle(ctx, alternatives, found)
    return found


def configuration_of(ctx: click.Context) -> Configuration | None:
    """Return what the file sets that was read for this command, or None if there is none."""
    found: Configuration | None = ctx.meta.get(_CONFIGURATION)
    return found


def commands_of(ctx: click.Context) -> dict[str, Verb]:
    """Return the commands of the program that can be configured, by name."""
    group = ctx.find_root().command
    if not isinstance(group, click.Group):
        return {ctx.command.name or "": ctx.command} if isinstance(ctx.command, Verb) else {}
    commands = ((name, group.get_command(ctx, name)) for name in group.list_commands(ctx))
    return {name: command for name, command in commands if isinstance(command, Verb)}


def _settle(
    ctx: click.Context, alternatives: tuple[tuple[str, ...], ...], found: dict[str, Resolved]
) -> None:
    """Take options back in whose place others are given at a higher rank."""
    nothing: dict[str, Any] = {
        option.name or "": () if option.multiple else False if option.is_flag else None
        for option in _options(ctx.command)
    }
    present = [[name for name in names if name in found] for names in alternatives]
    ranks = [max((found[name].rank for name in names), default=Rank.DEFAULT) for names in present]
    for names, rank in zip(present, ranks, strict=True):
        if rank < max(ranks):
            for name in names:
                found[name] = Resolved(nothing[name], Rank.DEFAULT, "default")


def _options(command: click.Command) -> list[click.Option]:
    return [
        option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value
    ]


def _variable(option: click.Parameter) -> str:
    """Return the variable of the environment from which an option has its value."""
    names = option.envvar if isinstance(option.envvar, list) else []
    return next((name for name in names if os.environ.get(name)), "")


def _first_model(ctx: click.Context) -> str | None:
    argument = next((each for each in ctx.command.params if isinstance(each, click.Argument)), None)
    value = ctx.params.get(argument.name or "") if argument else None
    return next(iter(value), None) if isinstance(value, tuple) else value


def file_options() -> list[click.Parameter]:
    """Return ``--no-config`` and ``--config``; they are processed in this order."""
    return [
        click.Option(
            ["--no-config"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_without_file,
            help="Read no bnfold.toml and no pyproject.toml.",
        ),
        click.Option(
            ["--config"],
            type=FILE,
            metavar="FILE.toml",
            envvar="BNFOLD_CONFIG",
            is_eager=True,
            expose_value=False,
            callback=_with_file,
            help="Read the options of this file, not of the nearest.",
        ),
    ]


def _without_file(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        if ctx.get_parameter_source("config") == ParameterSource.COMMANDLINE:
            raise click.UsageError("--config and --no-config exclude each other.")
        ctx.meta[_NO_CONFIG] = True


def _with_file(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    """Read the file, and give click the defaults that it sets."""
    if ctx.resilient_parsing:
        return
    if ctx.meta.get(_NO_CONFIG):
        if ctx.get_parameter_source("config") == ParameterSource.COMMANDLINE:
            raise click.UsageError("--config and --no-config exclude each other.")
        return
    file = _nearest_file() if value is None else Path(value)
    if file is None:
        return
    from bnfold.config.layers import read_configuration

    configuration = read_configuration(file, commands_of(ctx))
    ctx.meta[_CONFIGURATION] = configuration
    settings = configuration.for_verb(ctx.command.name or "")
    ctx.default_map = {name: setting.value for name, setting in settings.items()}


def _nearest_file() -> Path | None:
    from bnfold.config.find import find_file

    try:
        return find_file(Path.cwd())
    except FileNotFoundError:  # the current directory has been removed
        return None
