"""Messages between the two processes: pickles, each after a mark and its length, in eight bytes."""

from __future__ import annotations

import pickle
from typing import IO

__all__ = ["read_message", "write_message"]

_HEAD = 8
_MARK = b"\xbf\xd1"


def read_message(stream: IO[bytes]) -> object | None:
    """Return the next message, or None at the end of the stream, or of what makes sense."""
    head = stream.read(_HEAD)
    if len(head) < _HEAD or head[:2] != _MARK:
        return None
    size = int.from_bytes(head[2:], "little")
    body = stream.read(size)
    # From our own other half, through a pipe that nobody else holds.
    return pickle.loads(body) if len(body) == size else None  # noqa: S301


def write_message(stream: IO[bytes], message: object) -> None:
    """Write a message and flush it."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(_MARK + len(body).to_bytes(_HEAD - len(_MARK), "little"))
    stream.write(body)
    stream.flush()
