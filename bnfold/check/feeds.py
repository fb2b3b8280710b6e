"""Inputs for a comparison: sizes that the reference runs, and draws of every kind at them.

A declaration leaves sizes open, so they are searched: the reference is run on one draw, size
after size, until it accepts one; then every open dimension is given a second size, where the
reference accepts another. The same symbol has the same size in all inputs. Everything drawn
depends on the seed and on the model alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.check.draws import draw_values, is_float, numpy_dtype
from bnfold.check.hints import Hint
from bnfold.check.model import ValueSpec
from bnfold.check.sessions import Value
from bnfold.errors import InputError

__all__ = ["Feed", "apply_shapes", "milder", "random_feeds", "sizes_of"]

# (kind, at the second size?): a first feed that is small, then one of every kind.
_PLAN = (
    ("normal", False),
    ("border", True),
    ("wide", False),
    ("channels", False),
    ("unit", False),
    ("constant", True),
    ("normal", True),
)
# Where a feed is small, chance decides whether a wide draw reaches a clipped branch: more of them.
_SMALL_ELEMENTS = 4096
_SMALL_PLAN = (("wide", True), ("channels", True), ("wide", True), ("wide", True), ("unit", True))
# Without a float among the inputs the kinds differ little.
_INTEGER_PLAN = (("normal", False), ("normal", True), ("normal", False), ("constant", True))
# What to try when the reference does not run on free draws: some inputs have to be in [0, 1],
# flags, or sizes of something.
_FALLBACKS = ("normal", "binary", "ones")

_BATCH = (1, 2, 3, 4, 8, 16, 32)
_CHANNELS = (3, 1, 2, 4, 8, 16, 32, 64)
_IMAGE = (64, 224, 32, 128, 256, 299, 96, 48, 16, 512, 8, 7, 4, 2, 1)
_LENGTH = (16, 32, 64, 128, 8, 4, 3, 1, 2, 5, 6, 7, 10, 12, 20, 80, 100, 256, 512, 768, 1024)
_RANKS = (4, 2, 3, 1, 0, 5)
_MAX_TRIALS = 60
_MAX_SEARCHED_ELEMENTS = 2**24
_MAX_ELEMENTS = 2**28

# A dimension that is not fixed: a symbol, or (input, axis) where it has no name.
Key = str | tuple[str, int]
Sizes = Mapping[Key, int]


@dataclass(frozen=True)
class Feed:
    """One set of inputs.

    Attributes:
        name: What it is, for messages: kind and sizes, or the file.
        arrays: A value for each graph input.
        given: True for a caller's own data, which may not be left out silently.
    """

    name: str
    arrays: Mapping[str, Value]
    given: bool = False


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
    return tuple(bound.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)


def random_feeds(
    specs: Sequence[ValueSpec],
    hints: Mapping[str, Hint],
    seed: int,
    attempt: Callable[[Feed], str | None],
    *,
    quick: bool = False,
) -> list[Feed]:
    """Draw feeds that the reference runs.

    Args:
        specs: Inputs, with the sizes that are already decided.
        hints: Advice by input name.
        seed: Where the random numbers start.
        attempt: Runs the reference; returns None, or why it failed.
        quick: True for a slow runtime: three feeds.

    Returns:
        At least one feed that the reference runs, and others that it has not been run on. A model
        without inputs has one feed, without values.

    Raises:
        InputError: An input cannot be drawn, or no size was found that the reference runs.
    """
    if not specs:
        return [Feed("no inputs", {})]
    for spec in specs:
        if spec.kind != "tensor" or numpy_dtype(spec.elem_type) is None:
            raise InputError(
                f"input '{spec.name}': values of type {spec.type_name} cannot be drawn",
                hint="give values with --data",
            )
    drawer = _Drawer(specs, hints, seed)
    base = drawer.find(attempt)
    floats = any(_is_float_spec(spec) for spec in specs)
    other = drawer.second_sizes(base, attempt)
    plan: tuple[tuple[str, bool], ...] = _PLAN if floats else _INTEGER_PLAN
    if floats and drawer.elements(other) <= _SMALL_ELEMENTS:
        plan += _SMALL_PLAN
    if quick:
        plan = plan[:3]
    kinds = plan if drawer.mode == "normal" else tuple((drawer.mode, at) for _, at in plan[:3])
    return [
        drawer.feed(kind, other if at_other else base, index)
        for index, (kind, at_other) in enumerate(kinds)
    ]


def milder(feed: Feed, hints: Mapping[str, Hint]) -> Feed:
    """Return the feed with its floats an eighth as large: a power of two rounds nothing."""
    arrays = {
        name: value / np.asarray(8, value.dtype)
        if isinstance(value, np.ndarray) and is_float(value.dtype) and not hints[name].is_size
        else value
        for name, value in feed.arrays.items()
    }
    return dataclasses.replace(feed, name=f"{feed.name} / 8", arrays=arrays)


def _is_float_spec(spec: ValueSpec) -> bool:
    dtype = numpy_dtype(spec.elem_type)
    return dtype is not None and is_float(dtype)


class _Drawer:
    """Sizes and values for one model; ``find`` settles the rank, sizes and mode that run."""

    def __init__(self, specs: Sequence[ValueSpec], hints: Mapping[str, Hint], seed: int) -> None:
        self.specs = tuple(specs)
        self.hints = hints
        self.seed = seed
        self.mode = _FALLBACKS[0]

    def find(self, attempt: Callable[[Feed], str | None]) -> Sizes:
        """Return the first sizes that run; ``specs`` and ``mode`` are set to what ran."""
        first_error: str | None = None
        declared = self.specs
        for mode, specs in itertools.product(_FALLBACKS, self._ranked(declared)):
            self.mode, self.specs = mode, specs
            for sizes in self._trials():
                error = attempt(self.feed(mode, sizes, 0))
                if error is None:
                    return sizes
                first_error = first_error or error
        self.specs = declared
        shown = ", ".join(f"'{spec.name}'" for spec in declared)
        raise InputError(
            f"the reference runs on no values that were tried for {shown}: "
            f"{first_error or 'they are too large'}",
            hint="give sizes with --input or --dim, or values with --data",
        )

    def _ranked(self, specs: tuple[ValueSpec, ...]) -> Iterator[tuple[ValueSpec, ...]]:
        """Yield the inputs with a number of axes for each."""

        def with_rank(spec: ValueSpec, rank: int) -> ValueSpec:
            if spec.shape is not None:
                return spec
            return dataclasses.replace(spec, shape=(None,) * (self.hints[spec.name].rank or rank))

        ranked = (tuple(with_rank(spec, rank) for spec in specs) for rank in _RANKS)
        return iter(dict.fromkeys(ranked))

    def _open(self) -> dict[Key, tuple[int, ...]]:
        """Return the sizes to try for each open dimension, the likeliest first."""
        found: dict[Key, tuple[int, ...]] = {}
        for spec in self.specs:
            shape = spec.shape or ()
            for axis, dim in enumerate(shape):
                if isinstance(dim, int):
                    continue
                advised = self.hints[spec.name].dims
                known = advised.get(axis, advised.get(axis - len(shape)))
                if axis == 0 and len(shape) > 1:
                    sizes: tuple[int, ...] = _BATCH
                elif known is not None:
                    sizes = (known,)
                elif len(shape) < 4:
                    sizes = _LENGTH
                else:
                    sizes = _CHANNELS if axis == 1 else _IMAGE
                key: Key = dim if isinstance(dim, str) else (spec.name, axis)
                # Of several uses of one symbol the best informed decides.
                if key not in found or len(sizes) < len(found[key]):
                    found[key] = sizes
        return found

    def _trials(self) -> Iterator[Sizes]:
        """Yield assignments to try: all but the rows together, one by one, then all together."""
        options = self._open()
        first = {key: sizes[0] for key, sizes in options.items()}

        def together(varied: Mapping[Key, tuple[int, ...]]) -> Iterator[Sizes]:
            for step in range(max(map(len, varied.values()), default=1)):
                moved = {key: sizes[min(step, len(sizes) - 1)] for key, sizes in varied.items()}
                yield {**first, **moved}

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

    def second_sizes(self, base: Sizes, attempt: Callable[[Feed], str | None]) -> Sizes:
        """Return sizes that run and differ from ``base`` in as many dimensions as possible."""
        options = {key: _others(base[key]) for key in base if self._may_vary(key)}
        longest = max(map(len, options.values()), default=0)
        for step in range(longest):
            sizes = {
                **base,
                **{key: other[min(step, len(other) - 1)] for key, other in options.items()},
            }
            if self._runs(sizes, attempt):
                return sizes
        current = dict(base)
        for key, others in options.items():
            for size in others:
                if self._runs({**current, key: size}, attempt):
                    current[key] = size
                    break
        return current

    def _may_vary(self, key: Key) -> bool:
        return len(self._open()[key]) > 1

    def _runs(self, sizes: Sizes, attempt: Callable[[Feed], str | None]) -> bool:
        if self.elements(sizes) > _MAX_SEARCHED_ELEMENTS:
            return False
        return attempt(self.feed(self.mode, sizes, 0)) is None

    def _shape(self, spec: ValueSpec, sizes: Sizes) -> tuple[int, ...]:
        return tuple(
            dim if isinstance(dim, int) else sizes[dim if dim is not None else (spec.name, axis)]
            for axis, dim in enumerate(spec.shape or ())
        )

    def elements(self, sizes: Sizes) -> int:
        """Return the number of elements of all inputs together."""
        return sum(math.prod(self._shape(spec, sizes)) for spec in self.specs)

    def feed(self, kind: str, sizes: Sizes, index: int) -> Feed:
        """Draw all inputs; ``index`` tells feeds of the same kind apart."""
        rng = np.random.default_rng((self.seed, index))
        arrays = {}
        for spec in self.specs:
            dtype = numpy_dtype(spec.elem_type)
            assert dtype is not None  # noqa: S101 - random_feeds has refused the others
            arrays[spec.name] = draw_values(
                kind, self._shape(spec, sizes), dtype, self.hints[spec.name], rng
            )
        shown = ", ".join(f"{name}={'x'.join(map(str, a.shape))}" for name, a in arrays.items())
        return Feed(f"{kind} ({shown})", arrays)


def _others(size: int) -> tuple[int, ...]:
    """Second sizes to try for a dimension that runs at ``size``."""
    if size <= 4:
        return tuple(other for other in (3, 2, 4, 5) if other != size)
    return (size + 5, size + 16, size + 32, 2 * size, size // 2)
