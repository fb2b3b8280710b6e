"""Files as the store sees them: regular, mapped, never changed."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path

from bnfold.errors import ModelError

__all__ = [
    "BLOCK",
    "MAX_MODEL_BYTES",
    "READ_FLAGS",
    "RELEASE",
    "DataFile",
    "FileRange",
    "identify",
    "write_all",
]

BLOCK = 1 << 22
"""Bytes that are copied at a time where they pass through memory."""

MAX_MODEL_BYTES = 2**31 - 1
"""Largest model file: protobuf reads no message that is larger."""

RELEASE = 1 << 24
"""Bytes that are looked at before mapped pages are given back."""

_KERNEL_BLOCK = 1 << 26
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    # A name may become a pipe between the look and the opening; opening it must not wait.
    | getattr(os, "O_NONBLOCK", 0)
)


class DataFile:
    """The bytes of one regular file, or of one buffer in memory.

    The file is mapped when its bytes are first asked for. Arrays made from `view` keep the mapping
    alive, also after `close`. A file that was replaced or removed meanwhile stays readable while it
    is open; opened again, it must still be the same file.

    Attributes:
        path: Where the file is, or None for bytes in memory.
        size: Number of bytes.
    """

    def __init__(self, path: Path | None, size: int, content: memoryview | None = None) -> None:
        self.path = path
        self.size = size
        self._view = content
        self._map: mmap.mmap | None = None
        self._fd = -1
        self._label = ""
        self._identity: tuple[int, int, int, int] | None = None
        self._closer: weakref.finalize[[int], DataFile] | None = None

    @classmethod
    def open(cls, path: Path, label: str) -> DataFile:
        """Open a file.

        Args:
            path: The file.
            label: What messages call it, such as ``models/a.onnx``.

        Raises:
            ModelError: It is missing, not a regular file, or not readable.
        """
        file = cls(path.absolute(), 0)
        file._label = label
        file._open()
        return file

    @classmethod
    def from_bytes(cls, data: bytes) -> DataFile:
        """Wrap bytes in memory."""
        return cls(None, len(data), memoryview(data))

    def _open(self) -> None:
        assert self.path is not None  # noqa: S101 - bytes in memory are never opened
        try:
            _require_regular(self.path.stat().st_mode, self._label)
            self._fd = fd = os.open(self.path, READ_FLAGS)
        except OSError as error:
            raise _unreadable(error, self._label) from error
        except ValueError as error:  # a NUL in the name
            raise ModelError(f"{self._label}: no such file") from error
        self._closer = weakref.finalize(self, os.close, fd)
        status = os.fstat(fd)
        _require_regular(status.st_mode, self._label)
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._identity not in (None, identity):
            self.close()
            raise ModelError(f"{self._label}: the file changed while it was in use")
        self._identity = identity
        self.size = status.st_size
        if not self.size:
            self._view = memoryview(b"")
            return
        try:
            self._map = mmap.mmap(fd, self.size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise _unreadable(error, self._label) from error
        self._view = memoryview(self._map)

    @property
    def is_open(self) -> bool:
        """Whether the file holds a descriptor."""
        return self._fd >= 0

    def view(self) -> memoryview:
        """Return all bytes, read-only, mapped rather than read.

        Raises:
            ModelError: The file was closed and is another one now.
        """
        if self._view is None:
            self._open()
        assert self._view is not None  # noqa: S101 - opened above
        return self._view

    def copy_to(self, target: int, offset: int, nbytes: int) -> None:
        """Append a range of the file to a file that is open for writing, by the kernel if it can.

        Args:
            target: Descriptor of the other file.
            offset: First byte.
            nbytes: Number of bytes; the range lies within the file.
        """
        view = self.view()
        end = offset + nbytes
        if self.is_open and hasattr(os, "copy_file_range"):
            while offset < end:
                try:
                    count = min(end - offset, _KERNEL_BLOCK)
                    copied = os.copy_file_range(self._fd, target, count, offset)
                except OSError as error:
                    if error.errno not in _NO_KERNEL_COPY:
                        raise
                    break
                if not copied:
                    break
                offset += copied
        # Read rather than mapped where possible: a file that shrinks meanwhile is only short then.
        can_read = self.is_open and hasattr(os, "pread")
        while offset < end:
            count = min(end - offset, BLOCK)
            block = os.pread(self._fd, count, offset) if can_read else view[offset:][:count]
            if not block:
                raise ModelError(f"{self._label}: the file changed while it was in use")
            write_all(target, block)
            offset += len(block)

    def is_at(self, path: Path) -> bool:
        """Whether `path` names this very file."""
        try:
            status = path.stat()
        except OSError:
            return False
        return self._identity is not None and self._identity[:2] == (status.st_dev, status.st_ino)

    def release(self) -> None:
        """Give the mapped pages back; they are read again when they are next used."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError):
                self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Close the descriptor. The mapping ends when no array uses it any more."""
        if self._closer is not None:
            self._closer()
            self._fd, self._map, self._view = -1, None, None


class FileRange:
    """Consecutive bytes of a file.

    Attributes:
        file: The file.
        offset: First byte.
        nbytes: Number of bytes.
    """

    def __init__(self, file: DataFile, offset: int, nbytes: int) -> None:
        self.file = file
        self.offset = offset
        self.nbytes = nbytes

    def view(self) -> memoryview:
        """Return the bytes, mapped rather than read."""
        return self.file.view()[self.offset : self.offset + self.nbytes]

    def blocks(self) -> Iterator[memoryview]:
        """Yield the bytes, all at once."""
        yield self.view()


def write_all(target: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` to a descriptor; one call of the system may write less."""
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def identify(head: bytes) -> tuple[str, str | None]:
    """Say what a file that is not ONNX seems to be.

    Args:
        head: Its first bytes, a few hundred or more.

    Returns:
        What it is, to follow the path in a message, and what to do about it, or None.
    """
    export = "export it to ONNX first, for example with torch.onnx.export"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = text[:100].lower()
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "run 'git lfs pull' to download it"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive, such as PyTorch saves, not an ONNX model", export
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return "a Python pickle, such as PyTorch saves, not an ONNX model", export
    if lower.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an ONNX model", "the download failed: fetch the file itself"
    for position, magic, kind in (
        (0, b"\x1f\x8b", "a gzip archive"),
        (0, b"\x89HDF", "an HDF5 file, such as Keras saves"),
        (4, b"TFL3", "a TensorFlow Lite model"),
        (4, b"ORTM", "a model in ONNX Runtime's own format"),
        (8, b'{"', "a safetensors file"),
    ):
        if head[position:].startswith(magic):
            return f"{kind}, not an ONNX model", None
    if text and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "text, not an ONNX model", "name the model file itself"
    return "not an ONNX model, or a damaged one", "download or export it again"


def _require_regular(mode: int, label: str) -> None:
    if stat.S_ISDIR(mode):
        raise ModelError(f"{label}: a directory, not a file", hint="name a file in it")
    if not stat.S_ISREG(mode):
        raise ModelError(f"{label}: not a regular file", hint="write it to a file first")


def _unreadable(error: OSError, label: str) -> ModelError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ModelError(f"{label}: no such file")
    return ModelError(f"{label}: cannot be read: {(error.strerror or str(error)).lower()}")
