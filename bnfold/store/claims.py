"""Claims on data files, so that two runs that write the same bytes can share one.

A data file gets its name before the model that refers to it does. Until then it is claimed, by a
shared lock on the file itself, and nobody removes what somebody else claims. The system drops the
claims of a process that ends, however it ends. Where it has no such locks, nobody shares.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from bnfold.store.files import READ_FLAGS

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["Claim"]

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Claim:
    """A file that is in use until it is released or removed.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Claim a file.

        Raises:
            OSError: It cannot be opened.
            BlockingIOError: Somebody is about to remove it.
        """
        self.path = path
        self._names = [path]
        self._descriptor = os.open(path, READ_FLAGS)
        try:
            status = os.fstat(self._descriptor)
            self._identity = (status.st_dev, status.st_ino)
            is_mine = self._lock(exclusive=False) and self._is_at(path)
        except BaseException:
            self.release()
            raise
        if not is_mine or fcntl is None:  # without locks, an open file cannot be removed either
            self.release()
        if not is_mine:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))

    def rename(self, path: Path) -> bool:
        """Give the file a name that nothing has; return False if something has it.

        Raises:
            OSError: It cannot have that name.
        """
        before = self.path
        self._names.append(path)
        try:
            os.link(before, path)  # a renaming would replace what appears there meanwhile
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(path):
                return False
            before.rename(path)
        self.path = path
        before.unlink(missing_ok=True)
        return True

    def is_sole(self) -> bool:
        """Return whether nobody else claims the file; then nobody can, until it is released."""
        return self._lock(exclusive=True)

    def remove(self) -> None:
        """Remove the file, under every name that it was given."""
        for path in self._names:
            if self._is_at(path):
                with contextlib.suppress(OSError):
                    path.unlink()
        self.release()

    def release(self) -> None:
        """Give up the claim; the file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_at(self, path: Path) -> bool:
        try:
            status = path.lstat()
        except OSError:
            return False
        return self._identity == (status.st_dev, status.st_ino)

    def _lock(self, *, exclusive: bool) -> bool:
        if fcntl is None or self._descriptor < 0:
            return True
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True
