"""Which models: files as they are named, and every ONNX file beneath a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import InputError
from bnfold.fleet.places import is_url, join, local_path, models_beneath, name_of

__all__ = ["Source", "find_sources"]


@dataclass(frozen=True)
class Source:
    """A model to work on.

    Attributes:
        model: Its path or URL, as messages and reports name it.
        relative: Its path beneath an output directory, with slashes.
        found: True if it was found beneath a directory, False if it was named itself.
    """

    model: str
    relative: str
    found: bool = False


def find_sources(models: Sequence[str], output_dir: str | None = None) -> tuple[Source, ...]:
    """Replace directories by the ONNX files beneath them, in the order of their paths.

    Hidden files and folders are passed over, links to folders are not followed.

    Args:
        models: Paths and URLs of files and directories; what is no directory is left for its
            reader.
        output_dir: Where results are written; it is passed over too.

    Raises:
        InputError: A directory holds no model, cannot be listed, or is the output directory.
    """
    sources: list[Source] = []
    for model in map(local_path, models):
        found = _listed(model, output_dir)
        if found is None:
            sources.append(Source(model, name_of(model)))
        elif found:
            sources += (Source(join(model, path), path, found=True) for path in found)
        else:
            raise InputError(
                f"{model}: no .onnx file in this directory, nor beneath it",
                hint="files of other kinds are named one by one",
            )
    return tuple(sources)


def _listed(model: str, output_dir: str | None) -> list[str] | None:
    """Return the models beneath a directory, relative to it; None for what is no directory."""
    skipped = None if output_dir is None or is_url(output_dir) else os.path.realpath(output_dir)
    if is_url(model):
        found = models_beneath(model)
        inside = "" if output_dir is None else _relative(output_dir, model)
        return found and [path for path in found if not inside or not path.startswith(inside)]
    if not Path(model).is_dir():
        return None
    if os.path.realpath(model) == skipped:
        raise InputError(
            f"{model}: the output directory is this directory: the output is the input",
            hint="choose another --output-dir, or use --in-place",
        )
    beneath = sorted(path.relative_to(model) for path in _beneath(Path(model), skipped))
    return [path.as_posix() for path in beneath]


def _relative(url: str, root: str) -> str:
    """Return where a URL is beneath another one, with a slash at its end, or nothing."""
    start = f"{root.rstrip('/')}/"
    return f"{url.rstrip('/')}/"[len(start) :] if url.startswith(start) else ""


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
