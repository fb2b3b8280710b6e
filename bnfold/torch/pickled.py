"""What a pickle holds, found out without making any of it."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

__all__ = ["Global", "Stack", "globals_of"]

MAX_DEPTH = 100
"""Tuples inside of tuples: Python goes down them on the stack of the machine."""

MAX_ELEMENTS = 1 << 20
"""Elements of a tuple, those of the tuples in it counted each time that they occur in it."""

_LEGACY_PICKLES = 4  # the magic number, the version, the machine, and the content


def globals_of(file: IO[bytes]) -> list[str]:
    """Return the names of all classes and functions that a file of ``torch.save`` asks for.

    Args:
        file: Open, and seekable; read from its beginning.

    Raises:
        ValueError: It is no pickle, or takes far more time or memory to read than it is long.
        IndexError: It takes what it has not put down.
    """
    names: dict[str, None] = {}
    for stream, count in _pickles(file):
        for _ in range(count):
            stack = Stack()
            for opcode, argument, _ in pickletools.genops(stream):
                stack.run(opcode, argument)
                if opcode.name == "GLOBAL":
                    names[str(argument).replace(" ", ".")] = None
    return list(names)


def _pickles(file: IO[bytes]) -> Iterator[tuple[IO[bytes], int]]:
    """Yield streams, and how many pickles each of them begins with."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        yield file, _LEGACY_PICKLES
        return
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.lower().endswith("data.pkl"):
                yield io.BytesIO(archive.read(name)), 1


class Global:
    """A class that a pickle names."""

    __match_args__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Stack:
    """The stack of a pickle machine that makes nothing: literals, tuples and names alone."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do what an instruction does to the stack."""
        name = opcode.name
        if name == "MEMOIZE":
            self._memo[len(self._memo)] = self.items[-1]
        elif "PUT" in name:
            self._memo[argument] = self.items[-1]
        elif "GET" in name:
            self.items.append(self._memo.get(argument))
        elif name == "DUP":
            self.items.append(self.items[-1])
        else:
            taken = self._take(opcode)
            self.items += [self._made(opcode, argument, taken)] * len(opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        before = opcode.stack_before
        if opcode.name == "POP" and self.items[-1] is _MARK:
            before = [pickletools.markobject]
        taken: list[Any] = []
        if pickletools.markobject in before:
            while (item := self.items.pop()) is not _MARK:
                taken.append(item)
            before = before[: before.index(pickletools.markobject)]
        taken += [self.items.pop() for _ in before]
        return taken[::-1]

    def _made(self, opcode: pickletools.OpcodeInfo, argument: Any, taken: list[Any]) -> Any:
        if opcode.name == "MARK":
            return _MARK
        if opcode.name in ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            return _Tuple(taken)
        if opcode.name == "REDUCE" and _reserves(*taken):
            raise ValueError("it asks for memory that it does not fill")
        if opcode.name == "GLOBAL":
            return Global(argument)
        if opcode.name == "STACK_GLOBAL":
            return Global(" ".join(map(str, taken)))
        return argument if isinstance(argument, str | int) else None


_MARK = object()


class _Tuple(tuple[Any, ...]):
    """A tuple that is neither deep nor, written out, long: to hash it takes a moment."""

    def __init__(self, items: Iterable[Any]) -> None:
        inner = [item for item in self if isinstance(item, _Tuple)]
        self.depth: int = 1 + max((item.depth for item in inner), default=0)
        self.elements: int = len(self) + sum(item.elements for item in inner)
        if self.depth > MAX_DEPTH or self.elements > MAX_ELEMENTS:
            raise ValueError("its tuples are too deep or too long")


def _reserves(function: Any = None, arguments: Any = None) -> bool:
    """Whether a call makes an array of a length that the pickle gives as a number."""
    is_array = isinstance(function, Global) and function.name.endswith(" bytearray")
    return is_array and isinstance(arguments, tuple) and any(type(a) is int for a in arguments)
