"""Real inputs: ``.npz``, ``.npy`` and the ``test_data_set_*`` folders of ONNX."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from bnfold.check.draws import is_float, numpy_dtype
from bnfold.check.feeds import Feed
from bnfold.check.model import Array, ValueSpec
from bnfold.check.sessions import Value
from bnfold.errors import InputError

__all__ = ["load_feeds", "save_feed"]


def load_feeds(paths: Sequence[str | os.PathLike[str]], specs: Sequence[ValueSpec]) -> list[Feed]:
    """Read one feed from each file or folder; a folder of data sets gives several.

    Args:
        paths: ``.npz`` with one array for each input (arrays of other names are left alone),
            ``.npy`` for the only input, a ``test_data_set_*`` folder or a folder that holds such.
        specs: The inputs as declared.

    Raises:
        InputError: A path that cannot be read, a missing input, or values that do not fit.
    """
    return [feed for path in paths for feed in _load(Path(path), specs)]


def _load(path: Path, specs: Sequence[ValueSpec]) -> list[Feed]:
    if path.is_dir():
        folders = sorted(path.glob("test_data_set_*")) or [path]
        return [_feed(folder, _read_data_set(folder, specs), specs) for folder in folders]
    if not path.exists():
        raise InputError(f"{path}: no such file", hint="give a .npz, .npy or test_data_set folder")
    if path.suffix not in {".npz", ".npy"}:
        raise InputError(
            f"{path}: unknown kind of data", hint="give a .npz, .npy or test_data_set folder"
        )
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays = {"": loaded}
            else:
                arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as {path.suffix} ({error})") from error
    if len(specs) == 1 and len(arrays) == 1:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    return [_feed(path, arrays, specs)]


def _read_data_set(folder: Path, specs: Sequence[ValueSpec]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    by_name = {spec.name: spec for spec in specs}
    for file in sorted(folder.glob("input_*.pb")):
        match = re.fullmatch(r"input_(\d+)", file.stem)
        number = int(match.group(1)) if match else len(specs)
        content = file.read_bytes()
        try:
            # Name is field 8 of a tensor but 1 of a sequence: read as what the position says.
            spec = by_name.get(onnx.TensorProto.FromString(content).name)
        except DecodeError:
            spec = None
        if spec is None and number < len(specs):
            spec = specs[number]
        if spec is None:
            raise InputError(f"{file}: the model has no input for it")
        try:
            values[spec.name] = _decode(content, spec.kind)
        except (DecodeError, ValueError, TypeError) as error:
            raise InputError(f"{file}: not a serialized {spec.kind} ({error})") from error
    if not values and specs:
        raise InputError(f"{folder}: no input_*.pb in this folder")
    return values


def _decode(content: bytes, kind: str) -> Value:
    if kind == "sequence":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if kind == "optional":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def _feed(path: Path, values: Mapping[str, Value], specs: Sequence[ValueSpec]) -> Feed:
    missing = [spec.name for spec in specs if spec.name not in values]
    if missing:
        raise InputError(
            f"{path}: nothing for input {', '.join(map(repr, missing))}",
            hint=f"it has {', '.join(map(repr, values)) or 'no arrays'}; "
            "name the arrays like the inputs",
        )
    arrays = {spec.name: _fit(path, values[spec.name], spec) for spec in specs}
    return Feed(str(path), arrays, given=True)


def _fit(path: Path, value: Value, spec: ValueSpec) -> Value:
    """Return the value in the declared type, its numbers unchanged or rounded to it."""
    if spec.kind != "tensor" or not isinstance(value, np.ndarray):
        return value
    declared = numpy_dtype(spec.elem_type)
    if spec.shape is not None:
        fits = len(spec.shape) == value.ndim and all(
            not isinstance(dim, int) or dim == size
            for dim, size in zip(spec.shape, value.shape, strict=True)
        )
        if not fits:
            wanted = "x".join("?" if dim is None else str(dim) for dim in spec.shape)
            given = "x".join(map(str, value.shape))
            raise InputError(
                f"{path}: '{spec.name}' has shape {given or 'scalar'}, "
                f"but the model declares {wanted or 'scalar'}"
            )
    if declared is None or value.dtype == declared:
        return value
    if value.dtype == np.dtype("V2") and declared == ml_dtypes.bfloat16:
        # NumPy stores bfloat16 as two bytes without a meaning.
        return value.view(declared)
    if _may_cast(value, declared):
        return value.astype(declared)
    raise InputError(
        f"{path}: '{spec.name}' is {value.dtype}, but the model takes {spec.type_name}",
        hint="save the array in the type of the input",
    )


def _may_cast(value: Array, declared: np.dtype[Any]) -> bool:
    if declared.kind == "O":
        return value.dtype.kind in "US"
    numbers = value.dtype.kind in "biu" or is_float(value.dtype)
    if is_float(declared):
        return numbers
    if declared.kind in "iu" and value.dtype.kind in "biu":
        limits = np.iinfo(declared)
        return value.size == 0 or (
            int(value.min()) >= limits.min and int(value.max()) <= limits.max
        )
    return False


def save_feed(feed: Feed, path: str | os.PathLike[str]) -> None:
    """Write a feed as ``.npz``, whole or not at all, in a form that :func:`load_feeds` reads.

    Inputs that are no tensors are left out. bfloat16 is stored as float32, which holds it exactly.

    Raises:
        InputError: The file cannot be written.
    """
    target = Path(path)
    arrays: dict[str, Array] = {}
    for name, value in feed.arrays.items():
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype == object:
            arrays[name] = value.astype(str)
        elif value.dtype == ml_dtypes.bfloat16:
            arrays[name] = value.astype(np.float32)
        else:
            arrays[name] = value
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", delete=False
        ) as file:
            temporary = Path(file.name)
            # As a mapping: an input may be called "file", like savez's own argument.
            _savez(file.name, arrays)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error


def _savez(path: str, arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
