"""Names of files that are not finished yet, and who clears up after a process that was killed."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

__all__ = ["marked", "remove_marked", "temporary"]

_MARK: ContextVar[str] = ContextVar("mark", default="")


def temporary(directory: Path, suffix: str = ".tmp") -> Path:
    """Return a hidden name in a directory that nothing has."""
    return directory / f".bnfold-{_MARK.get()}{secrets.token_hex(8)}{suffix}"


@contextlib.contextmanager
def marked(mark: str) -> Iterator[None]:
    """Let the temporary names of this context carry a mark, by which others find them."""
    token = _MARK.set(mark)
    try:
        yield
    finally:
        _MARK.reset(token)


def remove_marked(directory: Path, mark: str) -> None:
    """Remove what a process that is no more has left unfinished in a directory."""
    for path in directory.glob(f".bnfold-{mark}*"):
        with contextlib.suppress(OSError):
            path.unlink()
