"""Archives that strangers made: what is looked at before PyTorch reads them.

PyTorch runs code from an exported program in more ways than by pickles: it loads compiled kernels
that lie in the archive, and evaluates the expressions of its symbolic shapes and guards as Python.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bnfold.errors import InputError, ModelError
from bnfold.torch.expressions import is_harmless

__all__ = [
    "DAMAGE",
    "FILE_OPERATORS",
    "require_harmless",
    "require_sound",
    "untrusted",
    "without_pickled_code",
]

MAX_GROWTH = 4
"""How many times as large as the file its entries may be; PyTorch does not compress them."""

FILE_OPERATORS = {"from_file", "load_library", "load_tensor", "save"}
"""Operators of PyTorch that read or write the file that their argument names."""

DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError)
"""What reading an entry of a damaged archive raises."""

_SPARE = 1 << 20
_ENCRYPTED = 1
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_WIDE_END = struct.Struct("<4sQ2H2L4Q")
_COMPILED = ("data/aotinductor/", "data/executorch/")
_PICKLED = ("data/constants/opaque_obj", "data/constants/custom_obj")
_NAME = re.compile(r"[\w.]*")
_QUOTED_NAME = re.compile(r'[^"\\\x00-\x1f]*')
_KEY = re.compile(r"[^][(){}=;,\"'\\\x00-\x1f]*")
_QUOTED_NAMES = {"parameter_name", "buffer_name", "tensor_constant_name", "custom_obj_name", "fqn"}
_IMPORTS = {"__enum__", "default_factory_module"}
_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def require_sound(file: Path) -> None:
    """Refuse a zip archive that PyTorch would not write.

    Raises:
        ModelError: It expands beyond all proportion; or an entry leads out of it, is a link or
            encrypted, is there twice, or shares its bytes with another.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (*DAMAGE, ValueError) as error:
        raise ModelError(f"{file}: a damaged archive: {error}", hint="copy it again") from error
    problems = itertools.chain(_ambiguities(file), _problems(entries, file.stat().st_size))
    for problem in problems:
        raise ModelError(
            f"{file}: an archive that PyTorch does not write: {problem}",
            hint="get the file from somebody whom you trust",
        )


def _problems(entries: list[zipfile.ZipInfo], size: int) -> Iterator[str]:
    if sum(entry.file_size for entry in entries) > MAX_GROWTH * size + _SPARE:
        yield "its entries are far larger than the file"
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        yield "an entry is there twice"
    if any(entry.filename != entry.orig_filename for entry in entries):
        yield "an entry has two names"
    end = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        parts = PurePosixPath(entry.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[:1]:
            yield "an entry leads out of it"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield "its compression is unknown"
        if entry.flag_bits & _ENCRYPTED:
            yield "an entry is encrypted"
        if stat.S_ISLNK(entry.external_attr >> 16):
            yield "an entry is a link"
        if entry.header_offset < end:
            yield "entries share their bytes"
        end = entry.header_offset + entry.compress_size


def _ambiguities(file: Path) -> Iterator[str]:
    """Say whether PyTorch may find another list of entries than Python: it looks elsewhere."""
    with file.open("rb") as archive:
        size = archive.seek(0, os.SEEK_END)
        archive.seek(-min(size, _WIDE_END.size + _LOCATOR.size + _END.size), os.SEEK_END)
        tail = archive.read()
    signature, *_, length, start, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\x06\x07"):
        end -= _LOCATOR.size + _WIDE_END.size
        if _LOCATOR.unpack(locator)[2] != end or not tail.startswith(b"PK\x06\x06"):
            yield "its end is elsewhere"
            return
        *_, length, start = _WIDE_END.unpack(tail[: _WIDE_END.size])
    if signature != b"PK\x05\x06" or comment or start + length != end:
        yield "its list of entries is elsewhere"


def require_harmless(file: Path) -> None:
    """Refuse an exported program that would run code of its own when it is loaded or called.

    Raises:
        InputError: It holds compiled code or pickled objects, or an expression that is none.
        ModelError: Its description cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            inner = entry.filename.partition("/")[2].lower()
            if inner.startswith(_COMPILED):
                raise untrusted(file, "compiled code")
            if inner.startswith(_PICKLED):
                raise untrusted(file, "a pickled object")
            if inner.endswith(".json"):
                try:
                    threat = _threat(json.loads(archive.read(entry)))
                except (*DAMAGE, ValueError, RecursionError) as error:
                    raise ModelError(
                        f"{file}: a damaged archive: '{entry.filename}' cannot be read",
                        hint="copy it again",
                    ) from error
                if threat:
                    raise untrusted(file, threat)


def _threat(content: Any) -> str | None:
    """Return what a description of a program would do besides arithmetic, or None."""
    if not all(map(is_harmless, _expressions(content))):
        return "an expression that is more than arithmetic"
    if not all(pattern.fullmatch(name) for pattern, name in _names(content)):
        return "a name that is code"
    if not FILE_OPERATORS.isdisjoint(_operators(content)):
        return "an operator that reads or writes files"
    if not _IMPORTS.isdisjoint(_keys_of_structures(content)):
        return "a structure whose types are imported"
    return None


@contextlib.contextmanager
def without_pickled_code() -> Iterator[None]:
    """Have every ``torch.load`` read tensors alone, also one inside that asks for more."""
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch tells of each refusal, with a traceback
    try:
        yield
    finally:
        logging.disable(level)
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def untrusted(file: Path, what: str) -> InputError:
    """The error for a file that would run code of its own."""
    return InputError(
        f"{file}: it holds {what}, which would run as you",
        hint="--trust-pickle loads it all the same: only for files you trust",
    )


def _expressions(content: Any) -> Iterator[str]:
    """Yield every text that PyTorch evaluates."""
    for key, value in _entries(content):
        if key == "expr_str":
            yield value
        elif key == "guards_code":
            yield from value or ()


def _names(content: Any) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield what PyTorch writes into the code that it makes of a graph, and how it may look."""
    for key, value in _entries(content):
        if key in ("name", "as_name", "forward_arg_names"):
            yield from ((_NAME, text) for text in _texts(value))
        elif key in _QUOTED_NAMES:
            yield from ((_QUOTED_NAME, text) for text in _texts(value))
        elif key in ("in_spec", "out_spec"):
            yield from ((_KEY, text) for text in _texts(_decoded(value)))


def _texts(content: Any) -> Iterator[str]:
    """Yield every text, at any depth, but for keys."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)


def _operators(content: Any) -> Iterator[str]:
    """Yield the parts of the names of what is called."""
    for key, value in _entries(content):
        if key in ("target", "as_operator") and isinstance(value, str):
            yield from value.split(".")


def _keys_of_structures(content: Any) -> Iterator[str]:
    """Yield the keys in the descriptions of inputs and outputs, which are JSON inside of JSON."""
    for key, value in _entries(content):
        if key in ("in_spec", "out_spec"):
            for inner, _ in _entries(_decoded(value)):
                yield inner


def _decoded(value: Any) -> Any:
    """The value with every text in it that is JSON itself taken apart."""
    if isinstance(value, dict):
        return {key: _decoded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if isinstance(value, str) and value.lstrip().startswith(("[", "{", '"')):
        with contextlib.suppress(ValueError):
            return _decoded(json.loads(value))
    return value


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value)
