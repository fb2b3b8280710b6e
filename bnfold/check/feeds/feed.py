"""One set of inputs, and the shapes that a caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.check.feeds.draws import is_float
from bnfold.check.feeds.expressions import evaluate, symbols_of
from bnfold.check.feeds.hints import Hint
from bnfold.check.models.model import ValueSpec
from bnfold.check.runtimes.sessions import Value
from bnfold.errors import InputError

__all__ = ["Feed", "apply_shapes", "milder", "sizes_of"]


@dataclass(frozen=True)
class Feed:
    """One set of inputs.

    Attributes:
        name: What it is, for messages: kind and sizes, or the file.
        arrays: A value for each graph input.
        given: True for a caller's own data, which may not be left out silently.
        expected: What the outputs should be by a third opinion, by output name; None where nobody
            says. Outputs may be missing.
    """

    name: str
    arrays: Mapping[str, Value]
    given: bool = False
    expected: Mapping[str, Value] | None = None


def apply_shapes(
    specs: Sequence[ValueSpec],
    inputs: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
) -> tuple[ValueSpec, ...]:
    """Put the sizes that a caller asks for into the declared shapes.

    Args:
        specs: Inputs as declared.
        inputs: Whole shapes by input name; the name may be "" where there is one input.
        dims: Sizes by symbol.

    Returns:
        The inputs with every known symbol replaced, in all shapes.

    Raises:
        InputError: An unknown name or symbol, or a shape that contradicts the declaration.
    """
    names = [spec.name for spec in specs]
    bound: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    symbols = {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}
    for symbol, size in dims.items():
        if symbol not in symbols:
            known = ", ".join(f"'{name}'" for name in sorted(symbols)) or "none"
            raise InputError(
                f"no input has a dimension '{symbol}'", hint=f"symbolic dimensions: {known}"
            )
        bound[symbol] = _size(size, f"dimension '{symbol}'")
    for given, shape in inputs.items():
        name = names[0] if given == "" and len(names) == 1 else given
        if name not in names:
            what = f"there is no input '{given}'" if given else "an input shape lacks its name"
            listed = ", ".join(f"'{known}'" for known in names) or "none"
            raise InputError(what, hint=f"inputs of the model: {listed}")
        shapes[name] = tuple(_size(size, f"input '{name}'") for size in shape)
        _bind(specs[names.index(name)], shapes[name], bound)
    return tuple(
        dataclasses.replace(
            spec,
            shape=shapes[spec.name] if spec.name in shapes else _substitute(spec.shape, bound),
        )
        for spec in specs
    )


def _size(size: int, what: str) -> int:
    if size < 0:
        raise InputError(f"{what}: {size} is not a size", hint="sizes are 0 or more")
    return int(size)


def _bind(spec: ValueSpec, shape: tuple[int, ...], bound: dict[str, int]) -> None:
    if spec.shape is None:
        return
    declared = "x".join("?" if dim is None else str(dim) for dim in spec.shape) or "scalar"
    message = (
        f"input '{spec.name}': {'x'.join(map(str, shape)) or 'scalar'} does not fit {declared}"
    )
    if len(spec.shape) != len(shape):
        raise InputError(message, hint=f"the model declares {len(spec.shape)} dimensions")
    for dim, size in zip(spec.shape, shape, strict=True):
        if isinstance(dim, str):
            if bound.setdefault(dim, size) != size:
                raise InputError(message, hint=f"'{dim}' is {bound[dim]} elsewhere")
        elif dim is not None and dim != size:
            raise InputError(message, hint=f"the model fixes {dim} where {size} is given")


def sizes_of(feed: Feed, specs: Sequence[ValueSpec]) -> tuple[ValueSpec, ...]:
    """Fix the open dimensions to those of a feed, but leave the number of rows (axis 0) open."""
    rows = {spec.shape[0] for spec in specs if spec.shape and len(spec.shape) > 1}
    return tuple(
        dataclasses.replace(
            spec,
            shape=tuple(
                dim if isinstance(dim, int) or axis == 0 or (dim and dim in rows) else size
                for axis, (dim, size) in enumerate(
                    zip(
                        spec.shape or (None,) * feed.arrays[spec.name].ndim,
                        feed.arrays[spec.name].shape,
                        strict=True,
                    )
                )
            ),
        )
        if isinstance(feed.arrays[spec.name], np.ndarray)
        else spec
        for spec in specs
    )


def _substitute(
    shape: tuple[int | str | None, ...] | None, bound: Mapping[str, int]
) -> tuple[int | str | None, ...] | None:
    if shape is None:
        return None
    return tuple(
        evaluate(dim, bound) if isinstance(dim, str) and symbols_of(dim) <= set(bound) else dim
        for dim in shape
    )


def milder(feed: Feed, hints: Mapping[str, Hint]) -> Feed:
    """Return the feed with its floats an eighth as large: a power of two rounds nothing."""
    arrays = {
        name: value / np.asarray(8, value.dtype)
        if isinstance(value, np.ndarray) and is_float(value.dtype) and not hints[name].is_size
        else value
        for name, value in feed.arrays.items()
    }
    return dataclasses.replace(feed, name=f"{feed.name} / 8", arrays=arrays)
