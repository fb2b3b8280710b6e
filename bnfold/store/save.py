"""Model files out: whole or not at all, the model and its external data together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from bnfold.errors import InputError, ModelError
from bnfold.store import files, layout
from bnfold.store.beside import claim_copy, own_data, place_data, remove_unused
from bnfold.store.claims import Claim
from bnfold.store.files import DataFile, FileRange
from bnfold.store.load import LoadedModel
from bnfold.store.temporaries import permissions, sync_directory, temporary
from bnfold.store.tensors import TensorStore
from bnfold.store.wire import Piece

__all__ = ["Staged", "save", "stage", "to_bytes"]


def save(model: LoadedModel, path: str | os.PathLike[str], *, unchanged: bool = False) -> int:
    """Write a model to a file, atomically.

    Args:
        model: The model, its skeleton edited or not.
        path: The file. It is replaced if it exists, and keeps its permissions; a link is replaced
            by a file. External data goes to ``<name>.data`` beside it, or to
            ``<name>.<hash>.data`` where that name is taken; tensors stay inside or outside, as
            they were, unless the file would exceed the 2 GiB of protobuf: then they go outside.
        unchanged: Whether the skeleton was not edited; then the file is copied byte for byte.
            External data is referred to where it is, or copied along to another directory.

    Returns:
        Bytes of the model file and its external data.

    Raises:
        InputError: The file cannot be written there.
        ModelError: The model cannot be written, or its files changed meanwhile.
    """
    with stage(model, path, unchanged=unchanged) as staged:
        staged.commit()
    return staged.nbytes


def to_bytes(model: LoadedModel) -> bytes:
    """Serialize a model in memory.

    Tensors are embedded; those that came from external data and were not changed keep their
    references to it.

    Raises:
        ModelError: The result would exceed the 2 GiB of protobuf.
    """
    store = model.tensors
    pieces, _ = layout.lay_out(layout.encode_skeleton(model.proto, store), store, location=None)
    nbytes = sum(piece.nbytes for piece in pieces)
    if nbytes > files.MAX_MODEL_BYTES:
        raise ModelError(
            f"{store.label}: {nbytes} bytes are more than a serialized model can have",
            hint="write it to a file instead",
        )
    out = bytearray()
    for piece in pieces:
        if isinstance(piece, FileRange):
            store.touch(piece.file)
        for block in (piece,) if isinstance(piece, memoryview) else piece.blocks():
            out += block
    return bytes(out)


def stage(model: LoadedModel, path: str | os.PathLike[str], *, unchanged: bool = False) -> Staged:
    """Write a model beside its target, to be looked at before it takes the target's place.

    Args:
        model: The model.
        path: The target.
        unchanged: As for `save`.

    Returns:
        The written model: a context manager that removes it again unless `Staged.commit` is called.

    Raises:
        InputError: The file cannot be written there.
        ModelError: The model cannot be written, or its files changed meanwhile.
    """
    path = Path(path)
    try:
        _require_target(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    return Staged(model, path, unchanged=unchanged)


class Staged:
    """A written model that waits to be moved to its target.

    Attributes:
        target: Where it will go.
        path: The model file as it is now, complete and loadable, in the directory of the target.
        nbytes: Bytes of the model file and its external data.
    """

    def __init__(self, model: LoadedModel, target: Path, *, unchanged: bool) -> None:
        self.target = target
        self.path = temporary(target.parent)
        self.nbytes = 0
        self._created: list[Path] = []
        self._directories: list[Path] = []
        self._written: list[Claim] = []
        self._shared: list[Claim] = []
        self._mode = permissions(target)
        self._is_done = False
        try:
            if not (unchanged and self._copy(model)):
                self._write(model)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise _unwritable(target, error) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def __del__(self) -> None:
        if hasattr(self, "_is_done"):
            self.discard()

    def commit(self) -> None:
        """Move the model to its target, and remove the data file that only the old one used.

        Raises:
            InputError: The target cannot be replaced. Nothing has changed then.
        """
        if self._is_done:
            return
        before = own_data(self.target)
        try:
            self.path.replace(self.target)
        except OSError as error:
            self.discard()
            raise _unwritable(self.target, error) from error
        self._is_done = True
        sync_directory(self.target.parent)
        self._release_data()
        for name in before:
            with contextlib.suppress(OSError):
                remove_unused(self.target, Claim(self.target.parent / name))

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        if self._is_done:
            return
        self._is_done = True
        for path in reversed(self._created):
            with contextlib.suppress(OSError):
                path.unlink()
        self._release_data()
        for directory in reversed(self._directories):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def _release_data(self) -> None:
        """Give up the data files; those that were written and that no model uses are removed."""
        for claim in self._written:
            with contextlib.suppress(OSError):
                remove_unused(self.target, claim)
        for claim in self._shared:
            claim.release()

    def _copy(self, model: LoadedModel) -> bool:
        """Stage the model's own bytes; False if its data files would replace other ones."""
        if model.file.is_at(self.target):
            self.path, self.nbytes, self._is_done = self.target, model.size, True
            return True
        store = model.tensors
        if not _is_same_directory(model.directory, self.target.parent):
            for location, file in model.external.items():
                copy = self.target.parent / location
                if not (self._share(copy, file) or self._copy_data(file, copy, store)):
                    return False
        self._write_file(self.path, [FileRange(model.file, 0, model.file.size)], store)
        self.nbytes = model.size
        return True

    def _copy_data(self, file: DataFile, copy: Path, store: TensorStore) -> bool:
        """Copy a data file; False if something else has its name."""
        if copy == self.target or os.path.lexists(copy):
            return False
        self._make_directories(copy.parent)
        data = self._write_data([FileRange(file, 0, file.size)], store)
        if data.rename(copy):
            sync_directory(copy.parent)
            return True
        return self._share(copy, file)

    def _share(self, path: Path, file: DataFile) -> bool:
        """Use a file that has the bytes of `file`; False if there is none."""
        if claim := claim_copy(path, file):
            self._shared.append(claim)
        return claim is not None

    def _write(self, model: LoadedModel) -> None:
        """Stage the skeleton with the bytes of its tensors."""
        store = model.tensors
        skeleton = layout.encode_skeleton(model.proto, store)
        name = f"{self.target.name}.data"
        try:
            pieces, data = layout.lay_out(skeleton, store, location=name)
            spill = _nbytes(pieces) > files.MAX_MODEL_BYTES
            if spill:
                pieces, data = layout.lay_out(skeleton, store, location=name, spill=True)
        except UnicodeEncodeError as error:
            raise InputError(
                f"{self.target}: cannot name external data", hint="choose a name that is UTF-8"
            ) from error
        if data.items:
            written = self._write_data(data.pieces(), store)
            placed = place_data(self.target, written)
            if placed is not written:
                self._shared.append(placed)
            sync_directory(self.target.parent)
            pieces, _ = layout.lay_out(skeleton, store, location=placed.path.name, spill=spill)
        if _nbytes(pieces) > files.MAX_MODEL_BYTES:
            raise ModelError(
                f"{store.label}: even without its weights the model exceeds the 2 GiB of protobuf"
            )
        self._write_file(self.path, pieces, store)
        self.nbytes = _nbytes(pieces) + data.nbytes

    def _make_directories(self, directory: Path) -> None:
        if not directory.exists():
            self._make_directories(directory.parent)
            self._directories.append(directory)
            directory.mkdir()

    def _write_file(self, path: Path, pieces: Iterable[Piece], store: TensorStore) -> None:
        """Create a file, and see it on the disk."""
        self._created.append(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        target = os.open(path, flags, 0o666 if self._mode is None else self._mode)
        try:
            if self._mode is not None:
                path.chmod(self._mode)
            layout.write_pieces(target, pieces, store)
        finally:
            os.close(target)

    def _write_data(self, pieces: Iterable[Piece], store: TensorStore) -> Claim:
        """Create a data file that has no name yet."""
        unfinished = temporary(self.target.parent)
        self._write_file(unfinished, pieces, store)
        claim = Claim(unfinished)
        self._written.append(claim)
        return claim


def _nbytes(pieces: Iterable[Piece]) -> int:
    return sum(piece.nbytes for piece in pieces)


def _require_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(
            f"{path}: the directory '{path.parent}' does not exist", hint="create it first"
        )
    if path.exists():
        if path.is_dir():
            raise InputError(f"{path}: a directory, not a file", hint="name a file in it")
        if not path.is_file():
            raise InputError(f"{path}: not a regular file", hint="name a file to write")


def _is_same_directory(first: Path | None, second: Path) -> bool:
    return first is not None and os.path.realpath(first) == os.path.realpath(second)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}")
