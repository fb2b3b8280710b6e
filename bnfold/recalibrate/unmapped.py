"""Arrays in ``.npy`` files, read so that no more of a file is in memory than one block.

A file that is mapped once and walked through ends up in memory as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bnfold.check.data.raw import LazyArray, Raw
from bnfold.check.models.model import Array

__all__ = ["unmapped"]


class _Blocks:
    """An array that is mapped anew for each block; see ``LazyArray``."""

    def __init__(self, array: LazyArray, file: Path) -> None:
        self._array, self._file = array, file
        self.shape, self.dtype = array.shape, array.dtype

    def whole(self) -> Array:
        return self._array.whole()

    def blocks(self, rows: int) -> Iterator[Array]:
        if 0 in self.shape:  # nothing that could be mapped
            yield from self._array.blocks(rows)
            return
        for start in range(0, self.shape[0], rows):
            mapped = np.load(self._file, mmap_mode="r", allow_pickle=False)
            block = np.array(mapped[start : start + rows])
            del mapped
            yield block


def unmapped(raw: Raw) -> Raw:
    """Return the same values, those in ``.npy`` files read block by block."""
    place = Path(raw.label)
    values = dict(raw.values)
    for name, value in values.items():
        file = place if place.suffix.lower() == ".npy" else place / f"{name}.npy"
        if hasattr(value, "blocks") and file.is_file():
            values[name] = _Blocks(value, file)
    return dataclasses.replace(raw, values=values)
