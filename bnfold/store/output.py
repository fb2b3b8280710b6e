"""A file that is being written, from its first byte to its last."""

from __future__ import annotations

import contextlib
import errno
import os

from bnfold.store.files import BLOCK, RELEASE, FileRange, write_all

__all__ = ["Output"]

_SMALL = 1 << 16
_CANNOT_RESERVE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Output:
    """Writes bytes to a descriptor in large pieces, and keeps the disk busy meanwhile.

    The space is reserved at once, so that a full disk is found before the work is done. What was
    written goes to the disk while the rest is still computed; the sync at the end finds little to
    do.
    """

    def __init__(self, target: int, nbytes: int) -> None:
        """Begin a file.

        Args:
            target: Descriptor of a new file, open for writing. It stays open.
            nbytes: How many bytes will be written.

        Raises:
            OSError: The disk is full, or the file would be too large for it.
        """
        self._target = target
        self._pending = bytearray()
        self._written = 0
        self._sent = 0
        if nbytes >= RELEASE and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(target, 0, nbytes)
            except OSError as error:
                if error.errno not in _CANNOT_RESERVE:
                    raise

    def write(self, data: memoryview) -> None:
        """Append bytes; small pieces are collected first."""
        if data.nbytes < _SMALL:
            self._pending += data
            if len(self._pending) >= BLOCK:
                self._flush()
            return
        self._flush()
        write_all(self._target, data)
        self._note(data.nbytes)

    def copy(self, piece: FileRange) -> None:
        """Append a range of another file, by the kernel if it can."""
        self._flush()
        piece.file.copy_to(self._target, piece.offset, piece.nbytes)
        self._note(piece.nbytes)

    def sync(self) -> None:
        """See everything on the disk."""
        self._flush()
        os.fsync(self._target)

    def _flush(self) -> None:
        write_all(self._target, self._pending)
        self._note(len(self._pending))
        self._pending.clear()

    def _note(self, nbytes: int) -> None:
        """Count what was written, and have the system begin to store it."""
        self._written += nbytes
        waiting = self._written - self._sent
        if waiting >= RELEASE and hasattr(os, "posix_fadvise"):
            # Of pages that are still dirty, this drops none: it only starts to write them.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._target, self._sent, waiting, os.POSIX_FADV_DONTNEED)
            self._sent = self._written
