"""``.npz`` and ``.npy``."""

from __future__ import annotations

import ast
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from bnfold.check.data.encoding import MANIFEST, decode_feed
from bnfold.check.data.raw import READ_ERRORS, LazyArray, Raw
from bnfold.check.models.model import Array
from bnfold.errors import InputError

__all__ = ["read_npy", "read_npz"]

_STRINGS = "save text as an array of str, and everything else without pickle"


class _Member:
    """An array in an archive, decompressed as far as it is read."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            self.shape, self._by_columns, self.dtype = _read_head(file)

    def whole(self) -> Array:
        with zipfile.ZipFile(self._path) as archive, archive.open(self._name) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    def blocks(self, rows: int) -> Iterator[Array]:
        if self._by_columns:
            yield from _in_blocks(self.whole(), rows)
            return
        shape = (rows, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        with zipfile.ZipFile(self._path) as archive, archive.open(self._name) as file:
            _read_head(file)
            for _ in range(self.shape[0] // rows):
                yield np.frombuffer(_exactly(file, size), self.dtype).reshape(shape)


class _File:
    """An array in a file of its own, of which no more than a block is mapped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.shape, _, self.dtype = _read_head(file)
            if not file.read(1) and np.prod(self.shape) * self.dtype.itemsize:
                raise EOFError("the file ends behind its header")

    def whole(self) -> Array:
        return np.asarray(np.load(self._path, allow_pickle=False))

    def blocks(self, rows: int) -> Iterator[Array]:
        if 0 in self.shape or not self.dtype.itemsize:
            yield from _in_blocks(self.whole(), rows)
            return
        for start in range(0, self.shape[0], rows):
            # Mapped once and walked through, the file would be in memory as a whole.
            mapped = np.load(self._path, mmap_mode="r", allow_pickle=False)
            block = np.array(mapped[start : start + rows])
            del mapped
            yield block


def _in_blocks(array: Array, rows: int) -> Iterator[Array]:
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError("the array ends too early")
    return content


def _read_head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether it lies by columns, and its type."""
    major, _ = np.lib.format.read_magic(file)
    length = int.from_bytes(_exactly(file, 2 if major == 1 else 4), "little")
    head = ast.literal_eval(_exactly(file, length).decode("latin1" if major < 3 else "utf-8"))
    dtype = np.lib.format.descr_to_dtype(head["descr"])
    if dtype.hasobject:
        raise ValueError(f"it holds Python objects; {_STRINGS}")
    shape = tuple(head["shape"])
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("its shape is not one of an array")
    if math.prod(shape) * dtype.itemsize > sys.maxsize:
        raise ValueError("its shape is too large")
    return shape, bool(head["fortran_order"]), dtype


def read_npy(path: Path) -> Raw:
    """Return the only input.

    Raises:
        InputError: It is not an array.
    """
    try:
        return Raw(str(path), {"": _File(path)})
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def read_npz(path: Path, names: list[str]) -> Raw:
    """Return the arrays of an archive: those of ``names``, or the only one there is.

    Raises:
        InputError: It is not an archive of arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if MANIFEST in members:
                return decode_feed(path, archive)
        arrays = {name.removesuffix(".npy"): name for name in members if name.endswith(".npy")}
        if len(names) == 1 and len(arrays) == 1:
            arrays = {"": next(iter(arrays.values()))}
        values: dict[str, LazyArray | None] = dict.fromkeys(arrays)
        for name in set(names) & set(arrays) or {""} & set(arrays):
            values[name] = _Member(path, arrays[name])
        return Raw(str(path), values)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = f"write it with numpy.sav{'ez' if path.suffix == '.npz' else 'e'}"
    return InputError(
        f"{os.fspath(path)}: not readable as {path.suffix} ({' '.join(why.split())})", hint=hint
    )
