"""The data file beside a model: what it is called, and when it is no longer needed."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from bnfold.errors import InputError
from bnfold.store.files import BLOCK, DataFile
from bnfold.store.load import external_locations

__all__ = ["data_name", "has_content", "obsolete_data"]


def data_name(target: Path, data: Path) -> str:
    """Return a name for a data file that nothing has, or that a file of the same content has.

    Args:
        target: The model that the data belongs to.
        data: The data file, still under a temporary name in the directory of `target`.
    """
    plain = f"{target.name}.data"
    file = DataFile.open(data, str(data))
    # The same result written twice keeps the name of its data, and so all of its bytes.
    for name in sorted(_own_data(target)):
        if _is_copy(target.parent / name, file):
            return name
    if not os.path.lexists(target.parent / plain):
        return plain
    digest = hashlib.sha256()
    view = file.view()
    for first in range(0, file.size, BLOCK):
        digest.update(view[first : first + BLOCK])
        file.release()
    digits = digest.hexdigest()
    hashed = [f"{target.name}.{digits[:count]}.data" for count in (8, 16, 32, 64)]
    for name in (plain, *hashed):
        final = target.parent / name
        if not os.path.lexists(final) or _is_copy(final, file):
            return name
    raise InputError(f"{target}: no name is left for its data file", hint="write it elsewhere")


def _is_copy(path: Path, file: DataFile) -> bool:
    return path.is_file() and not path.is_symlink() and has_content(path, file)


def _own_data(target: Path) -> set[str]:
    """Return the data files that the model at `target` uses and that are named after it."""
    if not target.is_file():
        return set()
    pattern = re.compile(re.escape(target.name) + r"(\.[0-9a-f]{8,64})?\.data")
    names = {os.path.normpath(location) for location in external_locations(target) or ()}
    return {name for name in names if pattern.fullmatch(name)}


def has_content(path: Path, file: DataFile) -> bool:
    """Whether the regular file at `path` has the bytes of `file`."""
    if file.is_at(path):
        return True
    if path.stat().st_size != file.size:
        return False
    other = DataFile.open(path, str(path))
    mine, theirs = file.view(), other.view()
    for first in range(0, file.size, BLOCK):
        if mine[first : first + BLOCK] != theirs[first : first + BLOCK]:
            return False
        file.release()
        other.release()
    return True


def obsolete_data(target: Path, locations: set[str]) -> list[Path]:
    """Return the data files that are in use by the model at `target` only.

    That is: beside it, named after it, referred to by it, and by no other model of the directory.
    A model that cannot be read might refer to anything; then nothing is obsolete.

    Args:
        target: The model that is about to be replaced.
        locations: The data files of the new model.
    """
    names = _own_data(target) - {os.path.normpath(location) for location in locations}
    for other in target.parent.glob("*.onnx") if names else ():
        if other.name == target.name:
            continue
        used = external_locations(other)
        if used is None:
            return []
        names -= {os.path.normpath(location) for location in used}
    return [target.parent / name for name in sorted(names)]
