"""What a file or a function gave, before it is compared with the declaration."""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bnfold.check.models.model import Array
from bnfold.check.runtimes.sessions import Value

__all__ = ["READ_ERRORS", "LazyArray", "Raw", "natural"]

READ_ERRORS = (
    *(OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
    *(ValueError, TypeError, KeyError, SyntaxError, OverflowError, RuntimeError),
)
"""What comes out of the readers of damaged archives and arrays."""


class LazyArray(Protocol):
    """An array in a file.

    Attributes:
        shape: Its shape.
        dtype: Its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def whole(self) -> Array:
        """Read all of it."""
        ...

    def blocks(self, rows: int) -> Iterator[Array]:
        """Read that many rows at a time; their number divides that of all rows."""
        ...


@dataclass(frozen=True)
class Raw:
    """Values from one place.

    Attributes:
        label: The file, or the function, for messages.
        values: Values or :class:`LazyArray` by input name; "" is the only input.
        expected: Outputs by name, or None.
        may_stack: False where the source holds exactly one feed.
    """

    label: str
    values: Mapping[str, Value]
    expected: Mapping[str, Value] | None = None
    may_stack: bool = True


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which ``set_2`` comes before ``set_10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
