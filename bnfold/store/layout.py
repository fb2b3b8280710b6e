"""What a model looks like when it is written: which bytes follow which, and where tensors go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from bnfold.errors import ModelError
from bnfold.store import wire
from bnfold.store.ahead import read_ahead
from bnfold.store.files import RELEASE, FileRange
from bnfold.store.output import Output
from bnfold.store.tensors import LazyBytes, Record, TensorStore

__all__ = ["DataLayout", "encode_skeleton", "lay_out", "write_pieces"]

_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_IS_DEFAULT, _IS_EXTERNAL = memoryview(b"\x70\x00"), memoryview(b"\x70\x01")
_BIG = 1 << 20
_BIG_ALIGNMENT = 1 << 16
_ALIGNMENT = 64


@dataclass
class DataLayout:
    """The data file of a model: its tensors, each at its offset.

    Tensors of a megabyte and more begin at multiples of 64 KiB, where every system can map them on
    their own; smaller ones at multiples of 64 bytes, so that their elements are aligned. Bytes that
    several tensors share are there once.

    Attributes:
        items: Offset and bytes of each, in ascending order without overlap.
        nbytes: Size of the file.
    """

    items: list[tuple[int, wire.Piece]] = field(default_factory=list)
    nbytes: int = 0
    _offsets: dict[object, int] = field(default_factory=dict)

    def pieces(self) -> Iterator[wire.Piece]:
        """Yield the file from its first byte to its last, the gaps between tensors as zeros."""
        end = 0
        for offset, payload in self.items:
            yield memoryview(bytes(offset - end))
            yield payload
            end = offset + payload.nbytes

    def place(self, payload: wire.Piece, key: object) -> int:
        """Return the offset of a payload, appending it unless one with the same key is there."""
        if key in self._offsets:
            return self._offsets[key]
        alignment = _BIG_ALIGNMENT if payload.nbytes >= _BIG else _ALIGNMENT
        offset = -(-self.nbytes // alignment) * alignment
        self._offsets[key] = offset
        self.items.append((offset, payload))
        self.nbytes = offset + payload.nbytes
        return offset


def encode_skeleton(proto: onnx.ModelProto, store: TensorStore) -> bytes:
    """Serialize the skeleton, always to the same bytes.

    Raises:
        ModelError: A tensor refers to data that the store does not hold, or the skeleton alone is
            larger than protobuf can write.
    """
    store.check(proto)
    try:
        encoded: bytes = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{store.label}: cannot be written as protobuf: {error}") from error
    return encoded


def lay_out(
    skeleton: bytes, store: TensorStore, *, location: str | None, spill: bool = False
) -> tuple[list[wire.Piece], DataLayout]:
    """Put the tensors of the store into an encoded skeleton.

    Args:
        skeleton: What `encode_skeleton` returned.
        store: The tensors.
        location: Name of the data file, for the tensors that go there. None for a model without a
            data file of its own: tensors that came from external data keep their references, and
            those that were given other values are embedded.
        spill: Whether every tensor of the store goes to the data file.

    Returns:
        The model file in pieces, and the data file.
    """
    marks = _positions(skeleton, store.prefix.encode())
    buffer = memoryview(skeleton)
    data = DataLayout()
    written = 0

    def enter(lo: int, hi: int) -> bool:
        index = bisect_left(marks, lo)
        return index < len(marks) and marks[index] < hi

    def tensor(fields: list[wire.Field]) -> list[wire.Piece]:
        nonlocal written
        marked = {each: record for each in fields if (record := _mark(buffer, each, store))}
        written += len(marked)
        return _write_tensor(buffer, fields, marked, data, location, spill=spill)

    try:
        pieces = wire.rewrite(buffer, enter=enter, tensor=tensor)
    except wire.UnusualError as error:
        raise ModelError(
            f"{store.label}: cannot be written: it contains {error}, which ONNX has no use for"
        ) from error
    if written != len(marks):
        raise RuntimeError("a mark of the tensor store stands outside of a tensor")
    return pieces, data


def write_pieces(target: int, pieces: Iterable[wire.Piece], store: TensorStore) -> None:
    """Write pieces one after the other and see them on the disk.

    What is computed or mapped does not stay in memory.

    Args:
        target: Descriptor of a new file, open for writing.
        pieces: The whole file.
        store: The store that the pieces belong to.
    """
    pieces = list(pieces)
    output = Output(target, sum(piece.nbytes for piece in pieces))
    since_release = 0
    for piece in read_ahead(pieces):
        if isinstance(piece, FileRange):
            store.touch(piece.file)
            output.copy(piece)
            continue
        output.write(piece)
        since_release += piece.nbytes
        if since_release >= RELEASE:
            store.release()
            since_release = 0
    output.sync()
    store.release()


def _positions(skeleton: bytes, prefix: bytes) -> list[int]:
    positions = []
    position = skeleton.find(prefix)
    while position >= 0:
        positions.append(position)
        position = skeleton.find(prefix, position + 1)
    return positions


def _mark(buffer: memoryview, field: wire.Field, store: TensorStore) -> Record | None:
    """Return the record that an encoded entry of external_data stands for, or None."""
    if field.number != _EXTERNAL_DATA or field.wire != wire.LENGTH_DELIMITED:
        return None
    entry = onnx.StringStringEntryProto.FromString(bytes(buffer[field.lo : field.hi]))
    return store.lookup(entry)


def _write_tensor(
    buffer: memoryview,
    fields: list[wire.Field],
    marked: dict[wire.Field, Record],
    data: DataLayout,
    location: str | None,
    *,
    spill: bool,
) -> list[wire.Piece]:
    """Encode one tensor with its bytes, or with a reference to the data file."""
    record = next(reversed(marked.values()))
    raw = {each for each in fields if each.number == _RAW_DATA}
    where = {each for each in fields if each.number == _DATA_LOCATION}
    is_outside = any(buffer[each.lo] for each in where)
    without = set(marked) | where | raw
    payload: wire.Piece = record.payload
    key = _key(record)
    if raw:  # a small tensor that was external, perhaps with other values now
        inside = next(iter(raw))
        payload = buffer[inside.lo : inside.hi]
        key = inside
    elif not is_outside:  # its values were put into another field: an ordinary tensor now
        return wire.compose(buffer, fields, without=set(marked), add={})
    references: list[onnx.StringStringEntryProto] | None = None
    if location is None:
        if record.entries is not None and _is_unchanged(record, payload):
            references = list(record.entries)
    elif record.external or spill:
        offset = data.place(payload, key)
        references = [
            onnx.StringStringEntryProto(key=name, value=value)
            for name, value in (
                ("location", location),
                ("offset", str(offset)),
                ("length", str(payload.nbytes)),
            )
        ]
    if references is None:
        add = {record.field: [wire.header(record.field, payload.nbytes), payload]}
        if record.says_default:
            add[_DATA_LOCATION] = [_IS_DEFAULT]
    else:
        encoded: list[wire.Piece] = []
        for reference in references:
            entry = memoryview(reference.SerializeToString(deterministic=True))
            encoded += (wire.header(_EXTERNAL_DATA, entry.nbytes), entry)
        add = {_EXTERNAL_DATA: encoded, _DATA_LOCATION: [_IS_EXTERNAL]}
    return wire.compose(buffer, fields, without=without, add=add)


def _is_unchanged(record: Record, payload: wire.Piece) -> bool:
    """Whether `payload` is what the external data of the record's tensor says."""
    if payload is record.payload:
        return True
    return isinstance(record.payload, FileRange) and payload == record.payload.view()


def _key(record: Record) -> object:
    """Return what identifies the bytes of a record: equal keys, equal bytes."""
    payload = record.payload
    if isinstance(payload, LazyBytes):
        return id(payload.source)
    return id(payload.file), payload.offset, payload.nbytes
