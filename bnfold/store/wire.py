"""The protobuf wire format, as far as moving tensor bytes in and out of a model needs it.

A model is walked along the few fields that lead to tensors (`SCHEMA`). Messages in which nothing
changes are passed on as slices of the buffer; the others are put together again with their new
lengths. Nothing is parsed that is not on the way, so walking a model of gigabytes touches a few
pages of it.

Source: https://protobuf.dev/programming-guides/encoding and the ``onnx.proto`` of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

__all__ = [
    "LENGTH_DELIMITED",
    "SCHEMA",
    "VARINT",
    "Field",
    "MalformedError",
    "Payload",
    "Piece",
    "UnusualError",
    "compose",
    "encode_varint",
    "header",
    "read_fields",
    "read_varint",
    "rewrite",
]

VARINT, FIXED64, LENGTH_DELIMITED, GROUP, END_GROUP, FIXED32 = range(6)
MAX_DEPTH = 100
"""Deepest nesting of messages; protobuf's own parsers stop here too."""


class Child(NamedTuple):
    """A field that leads to tensors: the type of its message, and whether it is repeated."""

    message: str
    repeated: bool


SCHEMA: dict[str, dict[int, Child]] = {
    "ModelProto": {
        7: Child("GraphProto", repeated=False),
        20: Child("TrainingInfoProto", repeated=True),
        25: Child("FunctionProto", repeated=True),
    },
    "TrainingInfoProto": {
        1: Child("GraphProto", repeated=False),
        2: Child("GraphProto", repeated=False),
    },
    "FunctionProto": {
        7: Child("NodeProto", repeated=True),
        11: Child("AttributeProto", repeated=True),
    },
    "GraphProto": {
        1: Child("NodeProto", repeated=True),
        5: Child("TensorProto", repeated=True),
        15: Child("SparseTensorProto", repeated=True),
    },
    "NodeProto": {5: Child("AttributeProto", repeated=True)},
    "AttributeProto": {
        5: Child("TensorProto", repeated=False),
        6: Child("GraphProto", repeated=False),
        10: Child("TensorProto", repeated=True),
        11: Child("GraphProto", repeated=True),
        22: Child("SparseTensorProto", repeated=False),
        23: Child("SparseTensorProto", repeated=True),
    },
    "SparseTensorProto": {
        1: Child("TensorProto", repeated=False),
        2: Child("TensorProto", repeated=False),
    },
}
"""For every message on the way to a TensorProto: field number -> what the field holds."""


class MalformedError(ValueError):
    """The bytes are not a protobuf message of this type; no parser would accept them."""


class UnusualError(ValueError):
    """The bytes are legal, but what they mean depends on merging: a case for a full parser."""


class Payload(Protocol):
    """Bytes that are written later, known by their number."""

    @property
    def nbytes(self) -> int:
        """Number of bytes."""

    def blocks(self) -> Iterator[memoryview]:
        """Yield the bytes in order."""


Piece = memoryview | Payload
"""A run of bytes of an encoded message: at hand, or written later."""


class Field(NamedTuple):
    """One field of an encoded message, as positions in the buffer.

    Attributes:
        number: Field number.
        wire: Wire type.
        start: Position of the tag.
        lo: Position of the payload, after the length where there is one.
        hi: Position after the payload.
    """

    number: int
    wire: int
    start: int
    lo: int
    hi: int


def read_varint(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    """Read an unsigned varint and return it with the position after it.

    Raises:
        MalformedError: It runs past `end` or has more than 64 bits.
    """
    value = shift = 0
    while position < end:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
        if shift > 63:
            break
    raise MalformedError("a varint is truncated or too long")


def read_fields(buffer: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message that lies at ``buffer[start:end]``, in the order of the file.

    Raises:
        MalformedError: A tag is not one, or a field runs past the end of the message.
        UnusualError: The message contains a group, a form that ONNX never used.
    """
    position = start
    while position < end:
        tag, lo = read_varint(buffer, position, end)
        number, wire = tag >> 3, tag & 7
        if not number or tag >> 32:
            raise MalformedError("a field number is out of range")
        if wire == LENGTH_DELIMITED:
            length, lo = read_varint(buffer, lo, end)
            hi = lo + length
        elif wire == VARINT:
            hi = read_varint(buffer, lo, end)[1]
        elif wire == FIXED32:
            hi = lo + 4
        elif wire == FIXED64:
            hi = lo + 8
        elif wire == GROUP:
            raise UnusualError("a group")
        else:
            raise MalformedError("a wire type is out of range")
        if hi > end:
            raise MalformedError("a field runs past the end of its message")
        yield Field(number, wire, position, lo, hi)
        position = hi


def encode_varint(value: int) -> bytes:
    """Encode a non-negative integer as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(number: int, nbytes: int) -> memoryview:
    """Return tag and length of a length-delimited field with `nbytes` bytes of payload."""
    return memoryview(encode_varint(number << 3 | LENGTH_DELIMITED) + encode_varint(nbytes))


def compose(
    buffer: memoryview,
    fields: Iterable[Field],
    *,
    without: set[Field],
    add: dict[int, list[Piece]],
) -> list[Piece]:
    """Encode a message again: the same fields without some, and others added.

    Args:
        buffer: The buffer that `fields` points into.
        fields: The fields of the message.
        without: Those of them that are left out.
        add: Field number -> encoded field, header included. Each goes before the first field with
            a higher number, which is where protobuf itself writes it.
    """
    pieces: list[Piece] = []
    pending = sorted(add.items(), reverse=True)
    for field in fields:
        while pending and pending[-1][0] < field.number:
            pieces += pending.pop()[1]
        if field not in without:
            pieces.append(buffer[field.start : field.hi])
    for _, encoded in reversed(pending):
        pieces += encoded
    return pieces


def rewrite(
    buffer: memoryview,
    *,
    enter: Callable[[int, int], bool],
    tensor: Callable[[list[Field]], list[Piece] | None],
    detach: bool = False,
) -> list[Piece]:
    """Walk an encoded ModelProto and replace some of its tensors.

    Args:
        buffer: The encoded model.
        enter: Called with the start and end of a message; False leaves all of it as it is.
        tensor: Called with the fields of every TensorProto that was entered; returns the encoded
            tensor that takes its place, or None.
        detach: Whether slices of the buffer are copied at once, so that it is read in one pass.

    Returns:
        The encoded model in pieces, the lengths of all enclosing messages recomputed.

    Raises:
        MalformedError: The bytes are no ModelProto, or nest deeper than `MAX_DEPTH`.
        UnusualError: The result would depend on how protobuf merges repeated messages.
    """

    def cut(lo: int, hi: int) -> memoryview:
        piece = buffer[lo:hi]
        return memoryview(bytes(piece)) if detach else piece

    def message(kind: str, start: int, end: int, depth: int) -> list[Piece] | None:
        if depth > MAX_DEPTH:
            raise MalformedError(f"messages nest deeper than {MAX_DEPTH} levels")
        if kind == "TensorProto":
            return tensor(list(read_fields(buffer, start, end)))
        children = SCHEMA[kind]
        pieces: list[Piece] = []
        copied = start
        singular: set[int] = set()
        for field in read_fields(buffer, start, end):
            child = children.get(field.number)
            if child is None or field.wire != LENGTH_DELIMITED:
                continue
            if not child.repeated:
                if field.number in singular:
                    raise UnusualError("a message in two parts")
                singular.add(field.number)
            if not enter(field.lo, field.hi):
                continue
            replaced = message(child.message, field.lo, field.hi, depth + 1)
            if replaced is None:
                continue
            nbytes = sum(piece.nbytes for piece in replaced)
            pieces += (cut(copied, field.start), header(field.number, nbytes), *replaced)
            copied = field.hi
        return [*pieces, cut(copied, end)] if pieces else None

    return message("ModelProto", 0, len(buffer), 1) or [cut(0, len(buffer))]
