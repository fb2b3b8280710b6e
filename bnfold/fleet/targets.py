"""Where the result of each model goes: no two to one place, none over a model that is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bnfold.errors import InputError
from bnfold.fleet.places import is_url, join, local_path, parent_of
from bnfold.fleet.sources import Source
from bnfold.targets import default_target

__all__ = ["assign_targets"]


def assign_targets(
    sources: Sequence[Source], output: str | None, output_dir: str | None, *, in_place: bool
) -> dict[Source, str]:
    """Return the path or URL to write for each model.

    A model that was found beneath a directory and that another one is written to is the result of
    an earlier run: it has no target and is not in what is returned.

    Args:
        sources: The models.
        output: The file to write, for a single model, or None.
        output_dir: The directory to write to, where each model keeps its relative path, or None.
        in_place: True to replace each model itself.

    Raises:
        InputError: Two models would go to one file, or one over another one that is named.
    """
    wanted = {
        source: source.model if in_place else _target(source, output, output_dir)
        for source in sources
    }
    writers: dict[str, Source] = {}
    if not in_place:
        for source, target in wanted.items():
            writers.setdefault(_identity(target), source)
    targets: dict[Source, str] = {}
    taken: dict[str, Source] = {}
    for source in sources:
        writer = writers.get(_identity(source.model), source)
        if writer != source and source.found:
            continue
        if writer != source:
            raise InputError(
                f"{source.model}: '{writer.model}' would be written here",
                hint="name only one of them, or choose an --output-dir",
            )
        target = wanted[source]
        first = taken.setdefault(_identity(target), source)
        if source in targets or first != source:
            raise InputError(
                f"{target}: both '{first.model}' and '{source.model}' would be written here",
                hint="give each model once, or run bnfold once for each",
            )
        targets[source] = target
    return targets


def _identity(place: str) -> str:
    """Return a name that only the same entry of the same directory has."""
    if is_url(place):
        return place
    return str(Path(os.path.realpath(Path(place).parent)) / Path(place).name)


def _target(source: Source, output: str | None, output_dir: str | None) -> str:
    if output is not None:
        return local_path(output)
    if output_dir is not None:
        target = join(local_path(output_dir), source.relative)
    elif is_url(source.model):
        target = join(parent_of(source.model), default_target(Path(source.relative)).name)
    else:
        target = str(default_target(Path(source.model)))
    return _with_suffix(source.model, target)


def _with_suffix(model: str, target: str) -> str:
    """PyTorch files other than exported programs become ONNX files."""
    if is_url(model):
        return target
    from bnfold.torch.files import kind_of, written_as  # noqa: PLC0415 - not needed for --help

    try:
        of_pytorch = kind_of(Path(model)) is not None
    except InputError:
        return target  # its own turn will say what is wrong with it
    if not of_pytorch:
        return target
    return f"{target.removesuffix(Path(target).suffix)}{written_as(Path(model))}"
