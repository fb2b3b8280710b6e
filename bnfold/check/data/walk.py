"""From a path that a caller gives to the files that hold feeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bnfold.check.data.arrays import read_npy, read_npz
from bnfold.check.data.data_sets import is_data_set, read_data_set
from bnfold.check.data.polygraphy import read_polygraphy
from bnfold.check.data.raw import Raw, natural
from bnfold.check.models.model import ValueSpec
from bnfold.errors import InputError

__all__ = ["read_path"]

_SUFFIXES = {".npz", ".npy", ".json"}
_KINDS = "give a .npz, .npy, Polygraphy's .json, a test_data_set folder, or a folder of these"


def read_path(
    path: Path, specs: Sequence[ValueSpec], output_specs: Sequence[ValueSpec]
) -> Iterator[Raw]:
    """Yield what a file or folder holds, one file after the other.

    Raises:
        InputError: There is no such path, or it is not data.
    """
    try:
        if path.is_dir():
            yield from _read_folder(path, specs, output_specs)
            return
        exists, regular = path.exists(), path.is_file()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or '').lower()}") from error
    if not exists:
        raise InputError(f"{path}: no such file", hint=_KINDS)
    suffix = path.suffix.lower()
    if not regular or suffix not in _SUFFIXES:
        hint = "name the function with --data-loader" if suffix == ".py" else _KINDS
        raise InputError(f"{path}: unknown kind of data", hint=hint)
    if suffix == ".npz":
        yield read_npz(path, [spec.name for spec in specs])
    elif suffix == ".npy":
        yield read_npy(path)
    else:
        yield from read_polygraphy(path)


def _read_folder(
    folder: Path, specs: Sequence[ValueSpec], output_specs: Sequence[ValueSpec]
) -> Iterator[Raw]:
    if is_data_set(folder):
        yield read_data_set(folder, specs, output_specs)
        return
    entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=natural)
    sets = [entry for entry in entries if is_data_set(entry)]
    if sets:
        # The model lies beside them, and more that is no input.
        for entry in sets:
            yield read_data_set(entry, specs, output_specs)
        return
    arrays = {entry.stem: entry for entry in entries if entry.suffix.lower() == ".npy"}
    names = [spec.name for spec in specs]
    if arrays and set(names) <= set(arrays):
        values = {name: read_npy(arrays[name]).values[""] for name in names}
        yield Raw(str(folder), values)
        return
    found = False
    for entry in entries:
        if entry.is_dir() or entry.suffix.lower() in _SUFFIXES:
            found = True
            yield from read_path(entry, specs, output_specs)
    if not found:
        raise InputError(f"{folder}: no data in this folder", hint=_KINDS)
