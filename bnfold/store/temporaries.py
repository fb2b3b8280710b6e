"""Files that are not finished yet: their names, and how one takes its place whole.

Who is killed leaves such a file behind: hidden, called ``.bnfold-*``, and in nobody's way.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

__all__ = ["marked", "permissions", "remove_marked", "replacing", "sync_directory", "temporary"]

_MARK: ContextVar[str] = ContextVar("mark", default="")


def temporary(directory: Path, suffix: str = ".tmp") -> Path:
    """Return a hidden name in a directory that nothing has."""
    return directory / f".bnfold-{_MARK.get()}{secrets.token_hex(8)}{suffix}"


@contextlib.contextmanager
def replacing(target: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield the name of a new file, which takes its place when the block ends without an error.

    It is on the disk before that, and has the permissions of the file that it replaces. Otherwise
    nothing changes, and no new file is left.

    Args:
        target: Its place.
        suffix: How the temporary name ends.

    Raises:
        OSError: The file cannot be written, or `target` not be replaced.
    """
    staged = temporary(target.parent, suffix)
    try:
        yield staged
        mode = permissions(target)
        with staged.open("rb+") as file:
            if mode is not None:
                staged.chmod(mode)
            os.fsync(file.fileno())
        staged.replace(target)
        sync_directory(target.parent)
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)


def permissions(path: Path) -> int | None:
    """Return the permissions of a regular file, or None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return stat.S_IMODE(status.st_mode) & 0o777
    return None


def sync_directory(directory: Path) -> None:
    """See the names of a directory on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
