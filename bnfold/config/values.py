"""Values of a file, in the form in which click takes them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import click

__all__ = ["RelativeType", "TableType", "parameter_value", "relative_path"]


@runtime_checkable
class TableType(Protocol):
    """A type of values that a file may also write as one table."""

    def from_table(self, table: dict[str, Any]) -> object:
        """Return what an option of this type takes, a list if it may be repeated.

        Raises:
            ValueError: What the table should be.
        """
        ...


@runtime_checkable
class RelativeType(Protocol):
    """A type of values with a path in them; `click.Path` is known without it."""

    def relative_to(self, value: str, folder: str) -> str:
        """Return the value with its path joined to a folder."""
        ...


def parameter_value(
    command: click.Command, option: click.Option, value: object, folder: str
) -> Any:
    """Return a value of a file as click would have it from the command line, before conversion.

    Args:
        command: The command of the option.
        option: Gives the type.
        value: As TOML has it.
        folder: What paths are relative to.

    Raises:
        ValueError: What is wrong with the value.
    """
    prepared = _prepared(option, value, folder)
    try:
        option.type_cast_value(click.Context(command), prepared)
    except click.BadParameter as error:
        raise ValueError(error.message.rstrip(".")) from error
    return prepared


def _prepared(option: click.Option, value: object, folder: str) -> Any:
    if isinstance(value, dict) and isinstance(option.type, TableType):
        return option.type.from_table(value)
    items = value if isinstance(value, list) else [value]
    if not option.multiple:
        return _single(option, items[0] if len(items) == 1 else value, folder)
    return [_single(option, item, folder) for item in items]


def _single(option: click.Option, value: object, folder: str) -> object:
    kind, expected = _kind(option)
    several = " (or a list)" if option.multiple else ""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{expected}{several} is expected, not {_said(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{expected}{several} is expected, not {value}")
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("text without NUL is expected")
    if isinstance(option.type, click.Path):
        return relative_path(value, folder)
    if isinstance(option.type, RelativeType):
        return option.type.relative_to(value, folder)
    return value


def relative_path(path: str, folder: str) -> str:
    """Return a path that a file in a folder gives, as seen from here; a URL stays as it is."""
    if "://" in path:
        return path
    return os.path.normpath(Path(folder, os.path.expanduser(path)))  # noqa: PTH111 - never raises


def _kind(option: click.Option) -> tuple[type | tuple[type, ...], str]:
    """Return the type that TOML gives a value of an option, and its name for messages."""
    if option.is_flag:
        return bool, "true or false"
    if isinstance(option.type, type(click.INT)):
        return int, "a whole number"
    if isinstance(option.type, type(click.FLOAT)):
        return (int, float), "a number"
    return str, "text"


def _said(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}"
    return (
        "a list"
        if isinstance(value, list)
        else "a table"
        if isinstance(value, dict)
        else str(value)
    )
