"""The ``.json`` files that Polygraphy saves inputs to.

A feed is an object with an array for each input, a file one feed or a list of feeds. An array is an
object that names its class in ``polygraphy_class`` (in old files: a key of its own) and holds, in
base64, what ``numpy.save`` or ``torch.save`` writes.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.check.data.raw import READ_ERRORS, Raw
from bnfold.check.models.model import Array
from bnfold.errors import InputError

__all__ = ["read_polygraphy"]

_CLASS = "polygraphy_class"
_OLD_ARRAY = "__polygraphy_encoded_ndarray"


def read_polygraphy(path: Path) -> Iterator[Raw]:
    """Yield the feeds of a file, the arrays of one at a time decoded.

    Raises:
        InputError: It is not such a file.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except READ_ERRORS as error:
        raise _unreadable(path, str(error)) from error
    several = isinstance(content, list)
    feeds = content if isinstance(content, list) else [content]
    if not feeds:
        raise _unreadable(path, "the list is empty")
    for index, feed in enumerate(feeds):
        if not isinstance(feed, dict) or _CLASS in feed or "lst" in feed:
            raise _unreadable(path, "it holds no inputs")
        try:
            values = {name: _array(value) for name, value in feed.items()}
        except (*READ_ERRORS, ImportError) as error:
            raise _unreadable(path, str(error)) from error
        yield Raw(f"{path} [{index}]" if several else str(path), values)


def _array(value: Any) -> Array:
    if not isinstance(value, Mapping):
        return np.asarray(value)
    if value.get(_CLASS) == "Tensor":
        return _torch_array(base64.b64decode(value["tensor"], validate=True))
    if value.get(_CLASS) != "ndarray" and _OLD_ARRAY not in value:
        raise ValueError(f"an array of the unknown class {value.get(_CLASS)!r}")
    try:
        content = base64.b64decode(value["array"], validate=True)
    except ValueError:
        # Before base64 the bytes were written as text.
        content = value["array"].encode("latin-1")
    loaded: Any = np.load(io.BytesIO(content), allow_pickle=False)
    return np.asarray(loaded if isinstance(loaded, np.ndarray) else next(iter(loaded.values())))


def _torch_array(content: bytes) -> Array:
    import torch  # noqa: PLC0415 - optional, and rarely in such a file

    from bnfold.torch.pickled import globals_of  # noqa: PLC0415 - as torch

    file = io.BytesIO(content)
    globals_of(file)
    file.seek(0)
    tensor = torch.load(file, map_location="cpu", weights_only=True)
    return np.asarray(tensor.numpy())


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: not readable as inputs of Polygraphy ({' '.join(why.split())})",
        hint="write it with --save-inputs, or save_json of a list of dicts of arrays",
    )
