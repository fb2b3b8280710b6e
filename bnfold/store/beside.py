"""The data file beside a model: what it is called, and when it is no longer needed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bnfold.errors import InputError
from bnfold.store.claims import Claim
from bnfold.store.files import BLOCK, DataFile
from bnfold.store.load import external_locations

__all__ = ["claim_copy", "own_data", "place_data", "remove_unused"]


def place_data(target: Path, data: Claim) -> Claim:
    """Give a data file a name that nothing has, or find a file of the same content.

    Args:
        target: The model that the data belongs to.
        data: The data file, complete, under a temporary name in the directory of `target`; it is
            removed if there is such a file already.

    Returns:
        The data file under its name.

    Raises:
        InputError: All names are taken.
        OSError: The directory cannot be changed.
    """
    file = DataFile.open(data.path, str(data.path))
    # The same result written twice keeps the name of its data, and so all of its bytes.
    copies = (claim_copy(target.parent / name, file) for name in sorted(own_data(target)))
    for copy in filter(None, copies):
        data.remove()
        return copy
    for name in _names(target.name, file):
        final = target.parent / name
        if data.rename(final):
            return data
        if same := claim_copy(final, file):
            data.remove()
            return same
    raise InputError(f"{target}: no name is left for its data file", hint="write it elsewhere")


def _names(model: str, file: DataFile) -> Iterator[str]:
    """Yield the names that the data of a model may have, the plainest first."""
    yield f"{model}.data"
    digest = hashlib.sha256()
    view = file.view()
    for first in range(0, file.size, BLOCK):
        digest.update(view[first : first + BLOCK])
        file.release()
    digits = digest.hexdigest()
    for count in (8, 16, 32, 64):
        yield f"{model}.{digits[:count]}.data"


def claim_copy(path: Path, file: DataFile) -> Claim | None:
    """Return a claim on the file at `path` if it is a regular one with the bytes of `file`."""
    if not path.is_file() or path.is_symlink():
        return None
    try:
        claim = Claim(path)
    except OSError:
        return None
    if has_content(path, file):
        return claim
    claim.release()
    return None


def own_data(target: Path) -> set[str]:
    """Return the names of the data files that the model at `target` uses and that bear its name."""
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


def remove_unused(target: Path, claim: Claim) -> None:
    """Remove a data file if no model needs it, and give up the claim on it.

    That is: nobody else claims it, and neither the model at `target` nor another one in its
    directory refers to it. One that cannot be read might refer to anything; then it stays.

    Args:
        target: A model beside which the data file is.
        claim: The data file.
    """
    if claim.is_sole() and not _is_used(claim.path, target):
        claim.remove()
    claim.release()


def _is_used(data: Path, target: Path) -> bool:
    location = os.path.relpath(data, target.parent)
    for model in (target, *target.parent.glob("*.onnx")):
        if not os.path.lexists(model):
            continue
        used = external_locations(model)
        if used is None or location in {os.path.normpath(each) for each in used}:
            return True
    return False
