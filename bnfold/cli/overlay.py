"""``--overlay``: the error of every layer, for Model Explorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bnfold.errors import InputError
from bnfold.report import CheckReport
from bnfold.report.render.json import to_json

__all__ = ["overlay_option", "write_overlay"]


def _usable(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    if file is not None and file.suffix.lower() != ".json":
        raise click.BadParameter(f"'{file}' does not end in .json.")
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        raise click.BadParameter(f"'{file}' is a directory, or in none.")
    return file


def overlay_option(command: Callable[..., int]) -> Callable[..., int]:
    """Add ``--overlay``."""
    return click.option(
        "--overlay",
        type=click.Path(path_type=Path),
        metavar="FILE.json",
        callback=_usable,
        help="Localize, and write the error of every layer of CANDIDATE as node data for Model "
        "Explorer.",
    )(command)


def write_overlay(file: Path, candidate: str, checks: Sequence[CheckReport]) -> None:
    """Write the node data of a comparison, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    from bnfold.neighbours.model_explorer import node_data
    from bnfold.store import load
    from bnfold.store.temporaries import replacing

    text = to_json(node_data(load(candidate).proto, checks))
    try:
        with replacing(file) as staged:
            staged.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file}: cannot write the overlay: {error.strerror}",
            hint="choose another place with --overlay",
        ) from error
