"""Which models a command works on, and where each result goes, as its options say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from bnfold.errors import InputError
from bnfold.fleet.places import is_url, local_path
from bnfold.fleet.sources import Source, find_sources
from bnfold.fleet.targets import assign_targets

__all__ = ["choose_targets"]


def choose_targets(
    models: tuple[str, ...], output: str | None, output_dir: str | None, *, in_place: bool
) -> dict[Source, str]:
    """Return what to write for each model, of those beneath directories too; make directories.

    Raises:
        click.UsageError: If the options contradict each other.
        InputError: If there is no model, or two would go to one file.
    """
    if sum((output is not None, output_dir is not None, in_place)) > 1:
        raise click.UsageError("-o, --output-dir and --in-place exclude each other.")
    if in_place and any(is_url(local_path(model)) for model in models):
        raise click.UsageError("--in-place replaces files, not what a URL names.")
    output_dir = output_dir and local_path(output_dir)
    sources = find_sources(models, output_dir)
    if output is not None and (len(sources) > 1 or sources[0].found):
        raise click.UsageError("-o names one file; use --output-dir for several models.")
    targets = assign_targets(sources, output, output_dir, in_place=in_place)
    if output_dir is not None and not is_url(output_dir):
        _make_directories({Path(output_dir)} | {Path(target).parent for target in targets.values()})
    return targets


def _make_directories(paths: Iterable[Path]) -> None:
    for path in sorted(paths):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path}: cannot create this directory: {error.strerror}",
                hint="choose another --output-dir",
            ) from error
