"""Where the result of each model goes: no two to one place, none over a model that is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bnfold.errors import InputError
from bnfold.fleet.sources import Source
from bnfold.targets import default_target

__all__ = ["assign_targets"]


def assign_targets(
    sources: Sequence[Source], output: str | None, output_dir: str | None, *, in_place: bool
) -> dict[Source, Path]:
    """Return the path to write for each model.

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
        source: Path(source.model) if in_place else _target(source, output, output_dir)
        for source in sources
    }
    writers: dict[str, Source] = {}
    if not in_place:
        for source, target in wanted.items():
            writers.setdefault(os.path.realpath(target), source)
    targets: dict[Source, Path] = {}
    taken: dict[Path, Source] = {}
    for source in sources:
        writer = writers.get(os.path.realpath(source.model), source)
        if writer != source and source.found:
            continue
        if writer != source:
            raise InputError(
                f"{source.model}: '{writer.model}' would be written here",
                hint="name only one of them, or choose an --output-dir",
            )
        target = wanted[source]
        first = taken.setdefault(target.absolute(), source)
        if source in targets or first != source:
            raise InputError(
                f"{target}: both '{first.model}' and '{source.model}' would be written here",
                hint="give each model once, or run bnfold once for each",
            )
        targets[source] = target
    return targets


def _target(source: Source, output: str | None, output_dir: str | None) -> Path:
    if output is not None:
        return Path(output)
    model = Path(source.model)
    if output_dir is not None:
        return _with_suffix(model, Path(output_dir) / source.relative)
    return _with_suffix(model, default_target(model))


def _with_suffix(model: Path, target: Path) -> Path:
    """PyTorch files other than exported programs become ONNX files."""
    from bnfold.torch.files import kind_of, written_as  # noqa: PLC0415 - not needed for --help

    try:
        of_pytorch = kind_of(model) is not None
    except InputError:
        return target  # its own turn will say what is wrong with it
    return target.with_suffix(written_as(model)) if of_pytorch else target
