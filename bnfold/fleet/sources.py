"""Which models: files as they are named, and every ONNX file beneath a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import InputError

__all__ = ["Source", "find_sources"]


@dataclass(frozen=True)
class Source:
    """A model to work on.

    Attributes:
        model: Its path, as messages and reports name it.
        relative: Its path beneath an output directory.
        found: True if it was found beneath a directory, False if it was named itself.
    """

    model: str
    relative: Path
    found: bool = False


def find_sources(models: Sequence[str], output_dir: Path | None = None) -> tuple[Source, ...]:
    """Replace directories by the ONNX files beneath them, in the order of their paths.

    Hidden files and folders are passed over, links to folders are not followed.

    Args:
        models: Paths of files and directories; what is no directory is left for its reader.
        output_dir: Where results are written; it is passed over too.

    Raises:
        InputError: A directory holds no model, cannot be listed, or is the output directory.
    """
    sources: list[Source] = []
    for model in models:
        directory = Path(model)
        if not directory.is_dir():
            sources.append(Source(model, Path(directory.name)))
            continue
        skipped = None if output_dir is None else os.path.realpath(output_dir)
        if os.path.realpath(directory) == skipped:
            raise InputError(
                f"{model}: the output directory is this directory: the output is the input",
                hint="choose another --output-dir, or use --in-place",
            )
        found = sorted(path.relative_to(directory) for path in _beneath(directory, skipped))
        if not found:
            raise InputError(
                f"{model}: no .onnx file in this directory, nor beneath it",
                hint="files of other kinds are named one by one",
            )
        sources += (Source(str(directory / path), path, found=True) for path in found)
    return tuple(sources)


def _beneath(directory: Path, skipped: str | None) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: this directory cannot be listed: {error.strerror}",
            hint="make it readable, or name the models one by one",
        ) from error

    for folder, folders, files in os.walk(directory, onerror=refuse):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(folder) / name) != skipped
        ]
        for name in files:
            if name.lower().endswith(".onnx") and not name.startswith("."):
                yield Path(folder) / name
