"""Where an optimized model goes, and that nothing of value stands there."""

from __future__ import annotations

import os
from pathlib import Path

from bnfold.errors import InputError

__all__ = ["StrPath", "default_target", "resolve_target"]

StrPath = str | os.PathLike[str]


def default_target(source: Path) -> Path:
    """Return ``a/model.folded.onnx`` for ``a/model.onnx``."""
    return source.with_name(f"{source.stem}.folded{source.suffix}")


def resolve_target(source: Path, target: StrPath | None, *, in_place: bool = False) -> Path:
    """Return the path to write, having made sure that it can be written.

    Args:
        source: The model that is read.
        target: The path asked for, or None for the default.
        in_place: True to write to ``source``.

    Raises:
        InputError: If the target is the source without ``in_place``, or cannot be a file there.
    """
    if in_place:
        if target is not None:
            raise InputError(
                f"{target}: an output and in-place were both asked for", hint="choose one of them"
            )
        return source
    path = default_target(source) if target is None else Path(target)
    if path.is_dir():
        raise InputError(f"{path}: the output is a directory", hint=f"name a file: {path}/NAME")
    if not path.parent.is_dir():
        raise InputError(
            f"{path}: the directory '{path.parent}' does not exist",
            hint=f"create it first: mkdir -p '{path.parent}'",
        )
    if _same_file(source, path):
        raise InputError(
            f"{path}: the output is the input", hint="choose another name, or use --in-place"
        )
    return path


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()
