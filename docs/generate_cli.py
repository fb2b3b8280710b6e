"""Writes docs/cli.md from the commands of click: ``python docs/generate_cli.py``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click

from bnfold.cli import main

TARGET = Path(__file__).with_name("cli.md")

HEAD = """# Command line

*Generated from the commands by `python docs/generate_cli.py`; a test holds it up to date.*

{summary} `python -m bnfold` is the same program.

Tables, errors and hints go to stderr; stdout carries only what an option asks for. `NO_COLOR` is
obeyed. The [exit codes](exit-codes.md) are the same for every command:

{codes}

Options can also be set by a file or in the environment: [configuration](configuration.md) says how,
and which cannot. `bnfold COMMAND --help` shows the same as this page.
"""


def render() -> str:
    """The whole page."""
    context = click.Context(main, info_name="bnfold", **main.context_settings)
    codes = re.findall(r"(\d+) ([^,.]+)", main.epilog or "")
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    parts = [
        HEAD.format(
            summary=inspect.cleandoc(main.help or ""),
            codes="\n".join(f"- {code}: {meaning}" for code, meaning in codes),
        ),
        _options(main, context),
        "\n| command | |\n|---|---|",
    ]
    for name, command in commands.items():
        first = (command.help if command else None) or ""
        parts.append(f"| [bnfold {name}](#bnfold-{name}) | {_plain(first.splitlines()[0])} |")
    for name, command in commands.items():
        if command is not None:
            own = click.Context(command, parent=context, info_name=name)
            parts.append(_section(command, own))
    return "\n".join(parts) + "\n"


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    return "\n\n".join(
        [
            f"\n## bnfold {context.info_name}",
            f"```text\n{usage}\n```",
            _plain(inspect.cleandoc(command.help or "")),
            _options(command, context),
        ]
    )


def _options(command: click.Command, context: click.Context) -> str:
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    rows = [_row(option, context) for option in options if not option.hidden]
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows])


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    names += "".join(f", `{name}`" for name in option.secondary_opts)
    if not option.is_flag:
        metavar = option.make_metavar(context).replace("|", "\\|")
        names += f" `{metavar}`"
    meaning = _plain(option.help or "")
    limits = option.get_help_extra(context).get("range", "").replace("x", "")
    if limits:
        meaning += f" ({limits})"
    return f"| {names} | {meaning} | {_default(option, context)} |"


def _default(option: click.Option, context: click.Context) -> str:
    value: Any = option.get_default(context)
    if option.secondary_opts:
        return f"`{(option.opts if value else option.secondary_opts)[0]}`"
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(
        f"`{each}`" for each in values if isinstance(each, str | int | float) and each is not False
    )


def _plain(text: str) -> str:
    """Text in which nothing but code means anything to Markdown; options are code."""
    return re.sub(
        r"(`[^`]*`)|(?<![\w-])(--?[a-z][a-z-]*)|([*|<])",
        lambda found: found[1] or (f"`{found[2]}`" if found[2] else f"\\{found[3]}"),
        text,
    )


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
