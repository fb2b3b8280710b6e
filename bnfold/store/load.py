"""Model files in: the skeleton, and where the bytes of the big tensors are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bnfold.errors import ModelError
from bnfold.store import wire
from bnfold.store.dtypes import describe, payload_nbytes, quoted, text_of
from bnfold.store.files import MAX_MODEL_BYTES, RELEASE, DataFile, FileRange, identify
from bnfold.store.limits import require_few_inputs, require_sane
from bnfold.store.tensors import THRESHOLD, Record, TensorStore, iter_tensors

__all__ = ["LoadedModel", "external_locations", "from_bytes", "load"]

_RAW_DATA, _DATA_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 9, 2, 13, 14
_DATA_FIELDS = {3, 4, 5, 6, 7, 9, 10, 11}
_SAME_AS_RAW = {4: (onnx.TensorProto.FLOAT, 4), 10: (onnx.TensorProto.DOUBLE, 8)}
"""Packed fields whose encoding is that of raw_data: field -> (data_type, bytes of one element)."""
_HEAD = 4096


@dataclass(frozen=True)
class LoadedModel:
    """A model whose big tensors are still in its files.

    Attributes:
        proto: The skeleton: all of the model but the big tensors, to be edited in place.
        tensors: The values of all its tensors.
        path: The model file, or None for a model from memory.
        directory: Where its external data is, or None for a model from memory without any.
        size: Bytes of the model file and of every data file that it refers to.
        file: The bytes that it was loaded from.
        external: Data files, by the location that the model names them with.
    """

    proto: onnx.ModelProto
    tensors: TensorStore
    path: Path | None
    directory: Path | None
    size: int
    file: DataFile
    external: dict[str, DataFile]


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Open a model file.

    External data must lie in the directory of the model: locations are relative, do not climb with
    ``..``, and end in that directory after symbolic links are followed. One exception serves caches
    in which both the model and its data are links: the data may also lie beside the file that the
    model's own path leads to.

    Args:
        path: An ONNX file with its weights inside or in external data.

    Raises:
        ModelError: The file cannot be read, is not a valid ONNX model, or its external data is
            missing, too short or outside its directory.
    """
    path = Path(path)
    try:
        file = DataFile.open(path, str(path))
    except ModelError as error:
        error.hint = error.hint or "give the path of an ONNX file"
        raise
    return _load(file, str(path), path, path.parent)


def from_bytes(data: bytes, base_dir: str | os.PathLike[str] | None = None) -> LoadedModel:
    """Open a serialized ModelProto.

    Args:
        data: The serialized model.
        base_dir: Directory of its external data; without it, a model with external data is refused.

    Raises:
        ModelError: As for `load`.
    """
    directory = None if base_dir is None else Path(base_dir)
    return _load(DataFile.from_bytes(data), "model in memory", None, directory)


def external_locations(path: Path) -> set[str] | None:
    """Return the locations of external data that a model file names.

    The data files themselves are not looked at.

    Returns:
        The locations, or None where the file cannot be read as a model.
    """
    store = TensorStore(str(path))
    try:
        proto = _skeleton(DataFile.open(path, str(path)), store)
    except ModelError:
        return None
    return {
        text_of(entry.value)
        for tensor in iter_tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location" and store.lookup(entry) is None
    }


def _load(file: DataFile, label: str, path: Path | None, directory: Path | None) -> LoadedModel:
    store = TensorStore(label)
    store.touch(file)
    proto = _skeleton(file, store)
    require_sane(proto, label)
    opener = _External(label, path, directory, store)
    for tensor in iter_tensors(proto):
        _settle(tensor, store, opener)
    store.release()
    # A file may go by two locations, or be the model itself; it counts once.
    files = (file, *opener.files.values())
    sizes = {each.path and os.path.realpath(each.path): each.size for each in files}
    return LoadedModel(proto, store, path, directory, sum(sizes.values()), file, opener.files)


def _skeleton(file: DataFile, store: TensorStore) -> onnx.ModelProto:
    """Parse a model without its big tensors, which go to the store."""
    view = file.view()
    head = bytes(view[:_HEAD])
    if not head:
        raise ModelError(f"{store.label}: the file is empty", hint="download or export it again")
    if head.startswith(b"version https://git-lfs"):
        raise _not_onnx(head, store)
    try:
        proto = _parse(view, file, store)
    except (wire.MalformedError, wire.UnusualError, DecodeError) as error:
        if head[:1] == b"\x08":  # ir_version comes first in every model
            detail = "" if isinstance(error, DecodeError) else f": {error}"
            raise ModelError(
                f"{store.label}: the file is truncated or damaged{detail}",
                hint="download or export it again",
            ) from error
        raise _not_onnx(head, store) from error
    if not proto.HasField("graph"):
        if head[:1] == b"\x08":
            raise ModelError(f"{store.label}: the model has no graph")
        raise _not_onnx(head, store)
    return proto


def _parse(view: memoryview, file: DataFile, store: TensorStore) -> onnx.ModelProto:
    released = 0

    def tensor(fields: list[wire.Field]) -> list[wire.Piece] | None:
        # A page that is touched can bring megabytes around it into the mapping.
        nonlocal released
        if fields and fields[-1].hi - released > RELEASE:
            file.release()
            released = fields[-1].hi
        return _cut(view, fields, file, store)

    proto = onnx.ModelProto()
    try:
        require_few_inputs(view, store.label)
        pieces = wire.rewrite(
            view, enter=lambda lo, hi: hi - lo >= THRESHOLD, tensor=tensor, detach=True
        )
        proto.ParseFromString(b"".join(p for p in pieces if isinstance(p, memoryview)))
    except (wire.UnusualError, DecodeError):
        if len(view) > MAX_MODEL_BYTES:
            raise
        # Merged messages, groups and whatever else only protobuf itself understands.
        proto.ParseFromString(bytes(view))
    return proto


def _not_onnx(head: bytes, store: TensorStore) -> ModelError:
    what, hint = identify(head)
    return ModelError(f"{store.label}: this is {what}", hint=hint)


def _cut(
    view: memoryview, fields: list[wire.Field], file: DataFile, store: TensorStore
) -> list[wire.Piece] | None:
    """Move the data of one encoded tensor to the store, if it is plain: one field, big."""
    data = [field for field in fields if field.number in _DATA_FIELDS]
    if len(data) != 1 or data[0].wire != wire.LENGTH_DELIMITED:
        return None
    field = data[0]
    nbytes = field.hi - field.lo
    if nbytes < THRESHOLD:
        return None
    location = [field for field in fields if field.number == _DATA_LOCATION]
    if any(field.number == _EXTERNAL_DATA for field in fields) or len(location) > 1:
        return None
    if location and view[location[0].start : location[0].hi].tobytes() != b"\x70\x00":
        return None
    if field.number != _RAW_DATA:
        if field.number not in _SAME_AS_RAW:
            return None
        data_type, width = _SAME_AS_RAW[field.number]
        types = [each for each in fields if each.number == _DATA_TYPE and each.wire == wire.VARINT]
        if not types or wire.read_varint(view, types[-1].lo, types[-1].hi)[0] != data_type:
            return None
        if nbytes % width:
            return None
    mark = store.add(
        Record(
            FileRange(file, field.lo, nbytes),
            field=field.number,
            says_default=bool(location),
        )
    )
    entry = onnx.StringStringEntryProto(key="location", value=mark).SerializeToString()
    encoded = bytearray(wire.header(_EXTERNAL_DATA, len(entry)))
    encoded += entry + b"\x70\x01"
    for each in fields:
        if each not in (field, *location):
            encoded += view[each.start : each.hi]
    return [memoryview(encoded)]


def _settle(tensor: onnx.TensorProto, store: TensorStore, external: _External) -> None:
    """Check that a tensor has as many bytes as it needs; resolve it if it is external."""
    try:
        needed = payload_nbytes(tensor)
    except ValueError as error:
        raise ModelError(
            f"{store.label}: tensor {quoted(tensor.name)} is {describe(tensor)}: {error}"
        ) from error
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        found = len(tensor.raw_data)
        if needed is not None and tensor.HasField("raw_data") and found != needed:
            raise store.size_error(tensor, found, needed)
        return
    record = next(filter(None, map(store.lookup, tensor.external_data)), None)
    if record is None:
        external.resolve(tensor, needed)
    elif needed not in (None, record.payload.nbytes):
        raise store.size_error(tensor, record.payload.nbytes, needed or 0)


class _External:
    """Finds the external data of one model."""

    def __init__(
        self, label: str, path: Path | None, directory: Path | None, store: TensorStore
    ) -> None:
        self.files: dict[str, DataFile] = {}
        self._label = label
        self._directory = directory
        self._store = store
        self._allowed: list[Path] = []
        if directory is not None:
            self._allowed.append(Path(os.path.realpath(directory)))
        if path is not None:
            self._allowed.append(Path(os.path.realpath(path)).parent)

    def resolve(self, tensor: onnx.TensorProto, needed: int | None) -> None:
        """Put a mark in the place of the tensor's own reference.

        Args:
            tensor: A tensor that refers to a data file.
            needed: Bytes that it needs, or None for a type that bnfold does not know.
        """
        name = f"{self._label}: tensor {quoted(tensor.name)}"
        if tensor.data_type == onnx.TensorProto.STRING:
            raise ModelError(f"{name} has strings in external data, which ONNX does not allow")
        entries = tuple(tensor.external_data)
        keys = {text_of(entry.key): text_of(entry.value) for entry in entries}
        location = keys.get("location", "")
        file = self._open(location, name)
        offset = _integer(keys.get("offset", "0"), f"{name}: external data offset")
        available = file.size - offset
        if "length" in keys:
            nbytes = _integer(keys["length"], f"{name}: external data length")
        else:
            nbytes = max(available, 0) if needed is None else needed
        if nbytes > available:
            what = identify(bytes(file.view()[:_HEAD]))
            raise ModelError(
                f"{name} needs bytes {offset} to {offset + nbytes} of its external data "
                f"{quoted(location)}, which has {file.size}",
                hint=what[1] if "LFS" in what[0] else "the file is truncated or not the right one",
            )
        if needed not in (None, nbytes):
            raise self._store.size_error(tensor, nbytes, needed or 0)
        payload = FileRange(file, offset, nbytes)
        if nbytes < THRESHOLD:
            tensor.raw_data = payload.view().tobytes()
            tensor.ClearField("data_location")
        else:
            tensor.ClearField("raw_data")  # ONNX ignores it beside external data
        tensor.ClearField("external_data")
        mark = self._store.add(Record(payload, external=True, entries=entries, location=location))
        tensor.external_data.add(key="location", value=mark)

    def _open(self, location: str, name: str) -> DataFile:
        if location in self.files:
            self._store.touch(self.files[location])
            return self.files[location]
        if self._directory is None:
            raise ModelError(
                f"{name} is in external data {quoted(location)}, and no directory is known for it",
                hint="load the external data into the model, or pass the model's path",
            )
        if not location or not _is_inside(location):
            raise ModelError(
                f"{name} is in external data {quoted(location)}, outside the model's directory",
                hint="keep the data file in the directory of the model",
            )
        path = self._directory / location
        real = Path(os.path.realpath(path)) if "\0" not in location else path
        if not any(real.is_relative_to(directory) for directory in self._allowed):
            raise ModelError(
                f"{name} is in external data {quoted(location)}, "
                "a link that leads out of the model's directory",
                hint="copy the data file into the directory of the model",
            )
        try:
            file = DataFile.open(path, f"{self._label}: external data {quoted(location)}")
        except ModelError as error:
            error.hint = error.hint or "copy or download the data file along with the model"
            raise
        self._store.touch(file)
        self.files[location] = file
        return file


def _is_inside(location: str) -> bool:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    return not (
        posix.is_absolute()
        or windows.drive
        or windows.root
        or ".." in posix.parts
        or ".." in windows.parts
    )


def _integer(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ModelError(f"{what} is {quoted(text)}, not a number of bytes")
    return int(text)
