"""How a feed is kept in an ``.npz``, bit for bit.

Tensors are arrays under their own names, so that ``numpy.load`` shows them. What NumPy's format
cannot hold is told by a member ``bnfold.json``::

    {"format": "bnfold feed", "version": 1, "inputs": {NAME: VALUE, ...}, "expected": null or {...}}

    VALUE is one of
    {"tensor": MEMBER, "type": "float32"}                an array of this archive
    {"strings": ["a", ...], "shape": [2, 3]}             a tensor of strings
    {"sequence": [VALUE, ...]}
    {"map": [[KEY, ...], [VALUE, ...]]}                  keys are strings or integers
    {"none": true}                                       an empty optional

Types that NumPy does not have (bfloat16, float8, int4 ...) are stored as unsigned integers of the
same size with the same bits, one element each; ``type`` names them as ``ml_dtypes`` does.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from bnfold.check.data.raw import Raw
from bnfold.check.feeds.draws import is_extended
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import Array
from bnfold.check.runtimes.sessions import Value

__all__ = ["MANIFEST", "decode_feed", "encode_feed"]

MANIFEST = "bnfold.json"
_FORMAT = "bnfold feed"
_VERSION = 1
_MAX_NAME = 200


def encode_feed(feed: Feed, file: IO[bytes]) -> None:
    """Write a feed as an archive."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        encoder = _Encoder(archive)
        expected = feed.expected
        manifest = {
            "format": _FORMAT,
            "version": _VERSION,
            "inputs": {name: encoder.encode(name, v) for name, v in feed.arrays.items()},
            "expected": None
            if expected is None
            else {name: encoder.encode(f"expected/{name}", v) for name, v in expected.items()},
        }
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))


def decode_feed(path: Path, archive: zipfile.ZipFile) -> Raw:
    """Read what :func:`encode_feed` wrote.

    Raises:
        ValueError: The archive is of another format or version.
        KeyError: Something is missing in it.
    """
    manifest = json.loads(archive.read(MANIFEST))
    if manifest["format"] != _FORMAT or manifest["version"] > _VERSION:
        raise ValueError("it was written by a later version of bnfold")

    def decoded(values: Mapping[str, Any]) -> dict[str, Value]:
        return {name: _decode(archive, value) for name, value in values.items()}

    expected = manifest["expected"]
    return Raw(
        str(path),
        decoded(manifest["inputs"]),
        None if expected is None else decoded(expected),
        may_stack=False,
    )


class _Encoder:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members: set[str] = set()

    def encode(self, name: str, value: Value) -> dict[str, Any]:
        if value is None:
            return {"none": True}
        if isinstance(value, Mapping):
            keys = [key.item() if isinstance(key, np.generic) else key for key in value]
            return {"map": [keys, [self.encode(name, item) for item in value.values()]]}
        if isinstance(value, list | tuple):
            return {"sequence": [self.encode(name, item) for item in value]}
        array = np.asarray(value)
        if array.dtype.kind in "OSU":
            return {"strings": list(map(_text, array.ravel())), "shape": list(array.shape)}
        stored = array.view(f"u{array.dtype.itemsize}") if is_extended(array.dtype) else array
        member = self._member(name)
        with self._archive.open(member, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, stored, allow_pickle=False)
        return {"tensor": member, "type": array.dtype.name}

    def _member(self, name: str) -> str:
        """Return a name in the archive that nothing else has, the value's own if it can be one."""
        plain = name if name.isprintable() and 0 < len(name) <= _MAX_NAME else "value"
        member, number = f"{plain}.npy", 0
        while member in self._members:
            number += 1
            member = f"{plain}~{number}.npy"
        self._members.add(member)
        return member


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _decode(archive: zipfile.ZipFile, value: Mapping[str, Any]) -> Value:
    match value:
        case {"none": True}:
            return None
        case {"map": [keys, values]}:
            return dict(zip(keys, (_decode(archive, item).item() for item in values), strict=True))
        case {"sequence": values}:
            return [_decode(archive, item) for item in values]
        case {"strings": texts, "shape": shape}:
            strings = np.empty(len(texts), object)
            strings[:] = texts
            return strings.reshape(shape)
        case {"tensor": member, "type": name}:
            with archive.open(member) as file:
                stored: Array = np.lib.format.read_array(file, allow_pickle=False)
            extended = getattr(ml_dtypes, name, None)
            return stored if extended is None else stored.view(extended)
        case _:
            raise ValueError(f"its member {MANIFEST} is damaged")
