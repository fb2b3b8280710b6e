"""Sizes for the dimensions that a declaration leaves open.

They are searched: the reference is run on one draw, size after size, until it accepts one; then
every open dimension is given other sizes, where the reference accepts them. The same symbol has the
same size in all inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from bnfold.check.feeds.expressions import evaluate, symbols_of
from bnfold.check.feeds.hints import Hint
from bnfold.check.models.model import ValueSpec

__all__ = ["LARGE_ELEMENTS", "Key", "Openings", "Sizes", "leaf", "ranked"]

# A dimension that is not fixed: a symbol, or (input, axis) where it has no name.
Key = str | tuple[str, int]
Sizes = Mapping[Key, int]

_BATCH = (1, 2, 3, 4, 8, 16, 32)
_CHANNELS = (3, 1, 2, 4, 8, 16, 32, 64)
_IMAGE = (
    *(64, 224, 32, 28, 128, 256, 299, 96, 48, 16, 512, 8, 7, 4, 2, 1),
    *(227, 112, 160, 192, 240, 320, 384, 416, 640),
)
_LENGTH = (16, 32, 64, 128, 8, 4, 3, 1, 2, 5, 6, 7, 10, 12, 20, 80, 100, 256, 512, 768, 1024)
_RANKS = (4, 2, 3, 1, 0, 5)
_MAX_TRIALS = 60
_MAX_SEARCHED_ELEMENTS = 2**24
_MAX_ELEMENTS = 2**28
# From here on a feed takes long enough for their number to matter: an image of a classifier.
LARGE_ELEMENTS = 2**16
# A third size is a luxury: not where inputs are large.
_MAX_THIRD_ELEMENTS = 2**18
_MAX_THIRD_TRIALS = 3


def leaf(spec: ValueSpec) -> ValueSpec:
    """Return the tensor inside an input: its own declaration unless it is a sequence or such."""
    while spec.element is not None:
        spec = dataclasses.replace(spec.element, name=spec.name)
    return spec


def ranked(
    specs: Sequence[ValueSpec], hints: Mapping[str, Hint]
) -> Iterator[tuple[ValueSpec, ...]]:
    """Yield the tensors of all inputs, with a number of axes for each that declares none."""

    def with_rank(spec: ValueSpec, rank: int) -> ValueSpec:
        if spec.shape is not None:
            return spec
        return dataclasses.replace(spec, shape=(None,) * (hints[spec.name].rank or rank))

    leaves = [leaf(spec) for spec in specs]
    return iter(dict.fromkeys(tuple(with_rank(s, rank) for s in leaves) for rank in _RANKS))


class Openings:
    """The open dimensions of a model's inputs, and sizes to try for them.

    Args:
        tensors: The tensor of each input, with a known number of axes.
        hints: Advice by input name.
    """

    def __init__(self, tensors: Sequence[ValueSpec], hints: Mapping[str, Hint]) -> None:
        self.tensors = tuple(tensors)
        self._options: dict[Key, tuple[int, ...]] = {}
        symbols = {d for spec in self.tensors for d in spec.shape or () if isinstance(d, str)}
        for spec in self.tensors:
            for axis, dim in enumerate(spec.shape or ()):
                if isinstance(dim, int):
                    continue
                key: Key = dim if isinstance(dim, str) else (spec.name, axis)
                if isinstance(dim, str) and symbols_of(dim) - {dim} and symbols_of(dim) <= symbols:
                    continue
                sizes = _candidates(spec.shape or (), axis, hints[spec.name])
                # Of several uses of one symbol the best informed decides.
                if key not in self._options or len(sizes) < len(self._options[key]):
                    self._options[key] = sizes

    def shape(self, spec: ValueSpec, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape of a tensor at given sizes."""
        return tuple(
            dim if isinstance(dim, int) else _size(dim, (spec.name, axis), sizes)
            for axis, dim in enumerate(spec.shape or ())
        )

    def elements(self, sizes: Sizes) -> int:
        """Return the number of elements of all inputs together."""
        return sum(math.prod(self.shape(spec, sizes)) for spec in self.tensors)

    def trials(self) -> Iterator[Sizes]:
        """Yield assignments to try: all but the rows together, one by one, then all together."""
        options = self._options
        first = {key: sizes[0] for key, sizes in options.items()}

        def together(varied: Mapping[Key, tuple[int, ...]]) -> Iterator[Sizes]:
            for step in range(max(map(len, varied.values()), default=1)):
                yield {**first, **_step(varied, step)}

        trials = itertools.chain(
            together({key: sizes for key, sizes in options.items() if sizes is not _BATCH}),
            ({**first, key: size} for key, sizes in options.items() for size in sizes[1:]),
            together(options),
        )
        unique: dict[tuple[tuple[Key, int], ...], Sizes] = {}
        for sizes in trials:
            unique.setdefault(tuple(sizes.items()), sizes)
        limit = _MAX_SEARCHED_ELEMENTS if options else _MAX_ELEMENTS
        fitting = (sizes for sizes in unique.values() if self.elements(sizes) <= limit)
        return itertools.islice(fitting, _MAX_TRIALS)

    def variants(self, base: Sizes, runs: Callable[[Sizes], bool]) -> list[Sizes]:
        """Return ``base``, and up to two other assignments that run.

        The second differs from the first in as many dimensions as possible, the third from both.
        Where no dimension may vary there is one.
        """
        second = self._second(base, runs)
        if second == base:
            return [base]
        if self.elements(second) > _MAX_THIRD_ELEMENTS:
            return [base, second]
        options = {
            key: others
            for key in base
            if second[key] != base[key]
            and (others := tuple(s for s in self._others(key, base) if s != second[key]))
        }
        for varied in itertools.islice(self._together(options), 2 * _MAX_THIRD_TRIALS):
            sizes = {**base, **varied}
            if self._fits(sizes) and runs(sizes):
                return [base, second, sizes]
        return [base, second]

    def _second(self, base: Sizes, runs: Callable[[Sizes], bool]) -> Sizes:
        options = {key: self._others(key, base) for key in base if len(self._options[key]) > 1}
        for varied in self._together(options):
            sizes = {**base, **varied}
            if self._fits(sizes) and runs(sizes):
                return sizes
        current = dict(base)
        for key, others in options.items():
            for size in others:
                changed = {**current, key: size}
                if self._fits(changed) and runs(changed):
                    current[key] = size
                    break
        return current

    def _together(self, options: Mapping[Key, tuple[int, ...]]) -> Iterator[dict[Key, int]]:
        """Yield sizes for all keys: first unlike ones, so that height and width differ."""
        inner = [key for key in options if self._options[key] is not _BATCH]
        for step in range(max(map(len, options.values()), default=0)):
            alike = _step(options, step)
            turned = {
                key: options[key][(step + place) % len(options[key])]
                for place, key in enumerate(inner)
            }
            if len(inner) > 1:
                yield {**alike, **turned}
            yield alike

    def _others(self, key: Key, base: Sizes) -> tuple[int, ...]:
        """Other sizes to try for a dimension; few rows where a row is large."""
        others = _others(base[key])
        rows = self._options[key] is _BATCH and self.elements(base) >= LARGE_ELEMENTS
        return tuple(sorted(others)) if rows else others

    def _fits(self, sizes: Sizes) -> bool:
        return self.elements(sizes) <= _MAX_SEARCHED_ELEMENTS


def _size(dim: str | None, unnamed: Key, sizes: Sizes) -> int:
    return sizes[unnamed] if dim is None else evaluate(dim, sizes)


def _candidates(shape: tuple[int | str | None, ...], axis: int, hint: Hint) -> tuple[int, ...]:
    """Return the sizes to try for one open dimension, the likeliest first."""
    known = hint.dims.get(axis, hint.dims.get(axis - len(shape)))
    if axis == 0 and len(shape) > 1:
        return _BATCH
    if known is not None:
        return (known,)
    if len(shape) < 4:
        return _LENGTH
    # Channels are where few of them are declared: at the end, or behind the rows.
    last = shape[-1]
    channels_last = isinstance(last, int) and last <= 4 and not isinstance(shape[1], int)
    return _CHANNELS if axis == 1 and not channels_last else _IMAGE


def _step(options: Mapping[Key, tuple[int, ...]], step: int) -> dict[Key, int]:
    return {key: sizes[min(step, len(sizes) - 1)] for key, sizes in options.items()}


def _others(size: int) -> tuple[int, ...]:
    """Other sizes to try for a dimension that runs at ``size``."""
    if size <= 4:
        return tuple(other for other in (3, 2, 4, 5) if other != size)
    return (size + 5, size + 16, size + 32, 2 * size, size // 2)
