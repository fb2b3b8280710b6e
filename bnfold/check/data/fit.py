"""Values against the declaration of the inputs: names, kinds, types, shapes, number of feeds."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from bnfold.check.data.raw import READ_ERRORS, LazyArray, Raw
from bnfold.check.feeds.draws import is_extended, numpy_dtype
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import Array, ValueSpec
from bnfold.check.runtimes.sessions import Value
from bnfold.errors import InputError

__all__ = ["feeds_from"]

_finfo: Any = ml_dtypes.finfo
_iinfo: Any = ml_dtypes.iinfo


def feeds_from(raw: Raw, specs: Sequence[ValueSpec]) -> Iterator[Feed]:
    """Yield the feeds that a source holds.

    Args:
        raw: What was read.
        specs: The inputs as declared.

    Raises:
        InputError: An input is missing, or a value does not fit its declaration.
    """
    values = _named(raw, specs)
    counts = {spec.name: _count(raw, values[spec.name], spec) for spec in specs}
    several = {name: count for name, count in counts.items() if count != 1}
    total = next(iter(several.values()), 1)
    odd = next((name for name, count in several.items() if count != total), None)
    if odd is not None:
        first = next(iter(several))
        raise InputError(
            f"{raw.label}: '{first}' holds {total} samples, but '{odd}' {several[odd]}",
            hint="give every input as many samples",
        )
    if total == 0:
        raise InputError(f"{raw.label}: '{next(iter(several))}' holds no samples")
    parts = {spec.name: _parts(raw, values[spec.name], spec, counts[spec.name]) for spec in specs}
    for index in range(total):
        arrays = {name: next(part) for name, part in parts.items()}
        label = raw.label if total == 1 else f"{raw.label} [{index}]"
        yield Feed(label, arrays, given=True, expected=raw.expected)


def _named(raw: Raw, specs: Sequence[ValueSpec]) -> dict[str, Value]:
    """Return a value for each input."""
    values = dict(raw.values)
    if set(values) == {""} and len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs) or "none"
        raise InputError(
            f"{raw.label}: an array without a name, but the model has {len(specs)} inputs",
            hint=f"name the arrays like the inputs: {names}",
        )
    if "" in values and len(specs) == 1 and specs[0].name not in values:
        values[specs[0].name] = values.pop("")
    # An optional that is not there is an empty one.
    missing = [s.name for s in specs if s.name not in values and s.kind != "optional"]
    if missing:
        others = [name for name in values if name]
        close = difflib.get_close_matches(missing[0], others, 1)
        hint = f"rename '{close[0]}' to '{missing[0]}'" if close else "name the arrays so"
        raise InputError(
            f"{raw.label}: nothing for input {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, others)) or 'no arrays'}",
            hint=hint,
        )
    return {spec.name: values.get(spec.name) for spec in specs}


def _count(raw: Raw, value: Value, spec: ValueSpec) -> int:
    """Return how many feeds a value is enough for."""
    shape = getattr(value, "shape", None)
    if not raw.may_stack or spec.kind != "tensor" or spec.shape is None or shape is None:
        return 1
    if _is_stack(raw, value, spec):
        return int(shape[0])
    return shape[0] // rows if (rows := _rows(shape, spec)) is not None else 1


def _rows(shape: tuple[int, ...], spec: ValueSpec) -> int | None:
    """Return the declared number of rows if an array has a multiple of it, else None."""
    declared = spec.shape
    if not declared or len(shape) != len(declared) or not _fits(shape[1:], declared[1:]):
        return None
    rows = declared[0]
    several = isinstance(rows, int) and rows > 0 and shape[0] != rows and shape[0] % rows == 0
    return rows if several and isinstance(rows, int) else None


def _fits(shape: Sequence[int], declared: Sequence[int | str | None]) -> bool:
    return len(shape) == len(declared) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(declared, shape, strict=True)
    )


def _parts(raw: Raw, value: Value, spec: ValueSpec, count: int) -> Iterator[Value]:
    """Yield a value for each feed."""
    if count == 1 and not _is_stack(raw, value, spec):
        (whole,) = _blocks(raw, value, spec, None)
        yield from itertools.repeat(_fit(raw.label, whole, spec))
    else:
        rows = _rows(value.shape, spec)
        for block in _blocks(raw, value, spec, rows or 1):
            yield _fit(raw.label, block if rows else block[0], spec)


def _blocks(raw: Raw, value: Value, spec: ValueSpec, rows: int | None) -> Iterator[Value]:
    """Yield a value that many rows at a time, or the whole of it; read it if it lies in a file."""
    lazy: LazyArray | None = value if _is_lazy(value) else None
    try:
        if rows is None:
            yield value if lazy is None else lazy.whole()
        elif lazy is not None:
            yield from lazy.blocks(rows)
        else:
            yield from _cut(value, rows)
    except READ_ERRORS as error:
        raise InputError(
            f"{raw.label}: '{spec.name}' is not readable ({' '.join(str(error).split())})",
            hint="the file is damaged",
        ) from error


def _is_lazy(value: Value) -> bool:
    return hasattr(value, "blocks") and hasattr(value, "whole")


def _is_stack(raw: Raw, value: Value, spec: ValueSpec) -> bool:
    """True if an array has one axis more than declared: a feed for each of its rows."""
    shape = getattr(value, "shape", None)
    return (
        raw.may_stack
        and spec.kind == "tensor"
        and spec.shape is not None
        and shape is not None
        and len(shape) == len(spec.shape) + 1
        and _fits(shape[1:], spec.shape)
    )


def _cut(array: Array, rows: int) -> Iterator[Array]:
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _fit(label: str, value: Value, spec: ValueSpec) -> Value:
    """Return a value as the runtime takes it."""
    where = f"{label}: '{spec.name}'"
    match spec.kind:
        case "optional" if spec.element is not None:
            return None if value is None else _fit(label, value, _of(spec))
        case "sequence" if spec.element is not None:
            if isinstance(value, list | tuple):
                return [_fit(label, item, _of(spec)) for item in value]
            raise InputError(
                f"{where} is {_described(value)}, but the model takes a sequence",
                hint="give a list of arrays: a test_data_set folder or --data-loader can hold one",
            )
        case "tensor":
            if value is None or isinstance(value, Mapping | list | tuple):
                value = _array(where, value, spec)
            return _tensor(where, np.asarray(value), spec)
        case _:
            return value


def _of(spec: ValueSpec) -> ValueSpec:
    assert spec.element is not None  # noqa: S101 - only asked where there is one
    element = spec.element
    return ValueSpec(
        spec.name,
        element.kind,
        element.elem_type,
        element.shape,
        element.element,
        element.key_type,
    )


def _array(where: str, value: Value, spec: ValueSpec) -> Array:
    """Return nested lists of numbers as an array."""
    try:
        if isinstance(value, list | tuple):
            array = np.asarray(value)
            if array.dtype.kind != "O" or spec.elem_type == onnx.TensorProto.STRING:
                return array
    except ValueError:
        pass
    raise InputError(
        f"{where} is {_described(value)}, but the model takes a tensor of {spec.type_name}",
        hint="give an array",
    )


def _described(value: Value) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a map"
    return "a list" if isinstance(value, list | tuple) else "one array"


def _tensor(where: str, array: Array, spec: ValueSpec) -> Array:
    """Return an array in the declared type, its numbers unchanged or rounded to a shorter float."""
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        wanted = "x".join("?" if dim is None else str(dim) for dim in spec.shape)
        given = "x".join(map(str, array.shape))
        hint = "give arrays of that shape; --input and --dim also fix sizes"
        if len(array.shape) + 1 == len(spec.shape) and _fits(array.shape, spec.shape[1:]):
            hint = "add the axis of the batch: array[None]"
        raise InputError(
            f"{where} has shape {given or 'scalar'}, but the model declares {wanted or 'scalar'}",
            hint=hint,
        )
    declared = numpy_dtype(spec.elem_type)
    if declared is None or (array.dtype == declared and declared.kind != "O"):
        return array
    if array.dtype.kind == "V" and array.dtype.names is None and is_extended(declared):
        # NumPy stores these types as bytes without a meaning.
        if array.dtype.itemsize == declared.itemsize:
            return array.view(declared)
    elif (converted := _converted(array, declared)) is not None:
        return converted
    kinds = _kind(array.dtype), _kind(declared)
    hint = "save the array in the type of the input"
    if kinds in {("integer", "float"), ("bool", "float"), ("float", "integer")}:
        name = "numpy" if not is_extended(declared) else "ml_dtypes"
        hint = f"scale it as the model wants it, then convert it: .astype({name}.{declared.name})"
    elif kinds[0] == kinds[1]:
        hint = "its values are outside the range of that type"
    raise InputError(f"{where} is {array.dtype}, but the model takes {spec.type_name}", hint=hint)


def _converted(array: Array, declared: np.dtype[Any]) -> Array | None:
    """Return an array in another type of the same kind, or None where that loses its values."""
    kind, wanted = _kind(array.dtype), _kind(declared)
    if wanted == "string":
        return _strings(array) if kind == "string" else None
    if kind == wanted == "complex":
        return array.astype(declared)
    if kind == wanted == "float":
        with np.errstate(over="ignore"):
            rounded = array.astype(declared)
        lost = np.isfinite(array.astype(np.float64)) & ~np.isfinite(rounded.astype(np.float64))
        return None if lost.any() else rounded
    if {kind, wanted} <= {"bool", "integer"}:
        low, high = (0, 1) if wanted == "bool" else (_iinfo(declared).min, _iinfo(declared).max)
        numbers = array if kind == "integer" else array.astype(np.int8)
        if array.size == 0 or (int(numbers.min()) >= low and int(numbers.max()) <= high):
            return array.astype(declared)
    return None


def _strings(array: Array) -> Array:
    texts = np.empty(array.shape, object)
    for index, item in np.ndenumerate(array):
        texts[index] = item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
    return texts


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "OSUT":
        return "string"
    if dtype.kind == "b":
        return "bool"
    if dtype.kind == "c":
        return "complex"
    try:
        _iinfo(dtype)
    except ValueError:
        try:
            _finfo(dtype)
        except ValueError:
            return "other"
        return "float"
    return "integer"
