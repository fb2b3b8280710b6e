"""Random feeds: which kinds, at which sizes, with which values for every input.

Everything drawn depends on the seed and on the model alone. What is drawn last is drawn when it is
asked for, so that one feed at a time is in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from bnfold.check.feeds.draws import draw_values, is_float, numpy_dtype
from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import Hints
from bnfold.check.feeds.parameters import index_range, parameter
from bnfold.check.feeds.scene import Scene
from bnfold.check.feeds.sizes import LARGE_ELEMENTS, Openings, Sizes, leaf, ranked
from bnfold.check.models.model import ValueSpec
from bnfold.check.runtimes.sessions import Value
from bnfold.errors import InputError

__all__ = ["RandomFeeds", "random_feeds"]

# (kind, which of the sizes that were found), the most telling first. The first of the sizes has one
# row, the others have more.
_PLAN = (
    ("normal", 1),
    ("border", 0),
    ("wide", 1),
    ("channels", 2),
    ("negative", 0),
    ("unit", 0),
    ("constant", 1),
    ("sparse", 2),
    ("normal", 0),
)
# Where a feed is small, chance decides whether a wide draw reaches a clipped branch: more of them.
_SMALL_ELEMENTS = 4096
_SMALL_PLAN = (("wide", 1), ("channels", 1), ("wide", 2), ("wide", 1), ("unit", 1))
# Where a feed is large, each has to earn its time: one row, but for those that show other rows.
_LARGE_PLAN = (
    ("normal", 1),
    ("border", 0),
    ("wide", 0),
    ("channels", 0),
    ("negative", 0),
    ("unit", 0),
    ("constant", 1),
    ("sparse", 0),
)
# Without a float among the inputs some kinds are the same.
_INTEGER_PLAN = (
    ("normal", 1),
    ("border", 0),
    ("normal", 2),
    ("constant", 1),
    ("wide", 0),
    ("negative", 1),
    ("sparse", 2),
)
_QUICK_FEEDS = 3
# (integers, floats): what to try when the reference does not run on free draws. Some inputs have to
# be in [0, 1], flags, or sizes of something.
_MODES = (
    ("normal", "normal"),
    ("binary", "normal"),
    ("ones", "normal"),
    ("zeros", "normal"),
    ("normal", "unit"),
    ("binary", "unit"),
    ("ones", "ones"),
)
_MAX_ATTEMPTS = 600
# Kinds in which integers that no index bounds leave the small range of names.
_WILD = ("wide", "negative")
_LENGTHS = (3, 2, 1, 4)


@dataclass(frozen=True)
class _Item:
    """One feed to draw: at which of the sizes that were found, and whether optionals are there."""

    kind: str
    at: int
    absent: bool = False


def random_feeds(
    specs: Sequence[ValueSpec],
    hints: Hints,
    seed: int,
    attempt: Callable[[Feed], str | None],
    *,
    quick: bool = False,
    samples: int | None = None,
) -> Sequence[Feed]:
    """Find out what the reference runs on, and draw feeds of that when they are asked for.

    Args:
        specs: Inputs, with the sizes that are already decided.
        hints: Advice, from :func:`bnfold.check.feeds.hints.find_hints`.
        seed: Where the random numbers start.
        attempt: Runs the reference; returns None, or why it failed.
        quick: True for a slow runtime: three feeds, unless ``samples`` says otherwise.
        samples: Number of feeds. By default as many as show every kind of error; fewer are the
            most telling ones, more have other values and other sizes.

    Returns:
        The feeds: a sequence that draws each one anew when it is read. The reference runs on feeds
        of these sizes; most kinds it has not been run on. A model without inputs has one feed,
        without values.

    Raises:
        InputError: An input cannot be drawn, or no size was found that the reference runs.
    """
    if not specs:
        return [Feed("no inputs", {})]
    for spec in specs:
        tensor = leaf(spec)
        if tensor.kind != "tensor" or numpy_dtype(tensor.elem_type) is None:
            raise InputError(
                f"input '{spec.name}': values of type {tensor.type_name} cannot be drawn",
                hint="give values with --data",
            )
    drawer, base = _find(specs, hints, seed, attempt)
    variants = drawer.openings.variants(
        base, lambda sizes: attempt(drawer.feed(_Item("normal", 0), sizes, 0)) is None
    )
    drawer.tame(base, attempt)
    plan = _plan(drawer, variants)
    optional = any(spec.kind == "optional" for spec in specs)
    if optional and attempt(drawer.feed(_Item("normal", 0, absent=True), base, 0)) is None:
        plan += (_Item("normal", 0, absent=True),)
    if samples is None:
        samples = min(len(plan), _QUICK_FEEDS) if quick else len(plan)
    return RandomFeeds(drawer, variants, plan, samples)


def _plan(drawer: _Drawer, variants: Sequence[Sizes]) -> tuple[_Item, ...]:
    floats = any(is_float(drawer.dtype(spec)) for spec in drawer.openings.tensors)
    kinds: tuple[tuple[str, int], ...] = _PLAN if floats else _INTEGER_PLAN
    if floats and drawer.openings.elements(variants[0]) >= LARGE_ELEMENTS:
        kinds = _LARGE_PLAN
    elif floats and drawer.openings.elements(variants[-1]) <= _SMALL_ELEMENTS:
        kinds += _SMALL_PLAN
    return tuple(_Item(kind, at) for kind, at in kinds)


class RandomFeeds(Sequence[Feed]):
    """Feeds that are drawn when they are read, the same each time.

    Args:
        drawer: Draws them.
        variants: Sizes that the reference runs.
        plan: The first feeds; later ones repeat its kinds with other values and sizes.
        count: How many there are.
    """

    def __init__(
        self, drawer: _Drawer, variants: Sequence[Sizes], plan: Sequence[_Item], count: int
    ) -> None:
        self._drawer = drawer
        self._variants = variants
        self._plan = plan
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | list[Feed]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError(index)
        turn, place = divmod(position, len(self._plan))
        item = self._plan[place]
        # In later turns a kind meets the sizes that it has not met yet.
        sizes = self._variants[min((item.at + turn) % 3, len(self._variants) - 1)]
        return self._drawer.feed(item, sizes, position)


def _find(
    specs: Sequence[ValueSpec], hints: Hints, seed: int, attempt: Callable[[Feed], str | None]
) -> tuple[_Drawer, Sizes]:
    """Return the first sizes that run, and what draws values that run at them."""
    first_error: str | None = None
    left = _MAX_ATTEMPTS
    for mode, tensors in itertools.product(_MODES, ranked(specs, hints)):
        drawer = _Drawer(specs, Openings(tensors, hints), hints, seed, mode)
        for sizes in drawer.openings.trials():
            if left == 0:
                break
            left -= 1
            error = attempt(drawer.feed(_Item("normal", 0), sizes, 0))
            if error is None:
                drawer.loosen(sizes, attempt)
                return drawer, sizes
            first_error = first_error or error
    shown = ", ".join(f"'{spec.name}'" for spec in specs)
    raise InputError(
        f"the reference runs on no values that were tried for {shown}: "
        f"{first_error or 'they are too large'}",
        hint="give sizes with --input or --dim, or values with --data",
    )


class _Drawer:
    """Draws all inputs of a model together."""

    def __init__(
        self,
        specs: Sequence[ValueSpec],
        openings: Openings,
        hints: Hints,
        seed: int,
        mode: tuple[str, str],
    ) -> None:
        self.openings = openings
        self._specs = specs
        self._hints = hints
        self._seed = seed
        integers, floats = mode
        self._modes = {
            tensor.name: floats if is_float(self.dtype(tensor)) else integers
            for tensor in openings.tensors
        }
        self._tame = False

    def loosen(self, sizes: Sizes, attempt: Callable[[Feed], str | None]) -> None:
        """Draw every input freely that need not be what the others have to be."""
        for name, mode in self._modes.items():
            if mode != "normal":
                self._modes[name] = "normal"
                if attempt(self.feed(_Item("normal", 0), sizes, 0)) is not None:
                    self._modes[name] = mode

    def tame(self, sizes: Sizes, attempt: Callable[[Feed], str | None]) -> None:
        """Keep integers in their usual range if the reference refuses others: they are names."""
        if any(not is_float(self.dtype(tensor)) for tensor in self.openings.tensors):
            self._tame = any(
                attempt(self.feed(_Item(kind, 0), sizes, index)) is not None
                for index, kind in enumerate(_WILD)
            )

    def dtype(self, tensor: ValueSpec) -> np.dtype[Any]:
        """The NumPy type of an input's tensor."""
        dtype = numpy_dtype(tensor.elem_type)
        assert dtype is not None  # noqa: S101 - random_feeds has refused the others
        return dtype

    def feed(self, item: _Item, sizes: Sizes, index: int) -> Feed:
        """Draw all inputs; ``index`` tells feeds of the same kind apart."""
        rng = np.random.default_rng((self._seed, index))
        tensors = self.openings.tensors
        shapes = {tensor.name: self.openings.shape(tensor, sizes) for tensor in tensors}
        arrays: dict[str, Value] = {}
        scene = Scene(self._hints.model, self._hints.graph, shapes, arrays)
        length = _LENGTHS[index % len(_LENGTHS)]
        for spec, tensor in zip(self._specs, tensors, strict=True):

            def draw(tensor: ValueSpec = tensor) -> Value:
                return self._tensor(item.kind, tensor, shapes[tensor.name], scene, rng)

            arrays[spec.name] = self._value(spec, item, draw, length)
        shown = ", ".join(f"{name}={_shown(value)}" for name, value in arrays.items())
        # Where no input is free the kinds are all the same.
        kind = item.kind if "normal" in self._modes.values() else next(iter(self._modes.values()))
        return Feed(f"{kind} ({shown})", arrays)

    def _value(self, spec: ValueSpec, item: _Item, draw: Callable[[], Value], length: int) -> Value:
        match spec.kind:
            case "sequence":
                assert spec.element is not None  # noqa: S101 - a sequence has one
                return [self._value(spec.element, item, draw, length) for _ in range(length)]
            case "optional":
                assert spec.element is not None  # noqa: S101 - an optional has one
                return None if item.absent else self._value(spec.element, item, draw, length)
            case "map":
                words = self._hints[spec.name].words or _default_keys(spec)
                return {key: draw().item() for key in words[:length]}
            case _:
                return draw()

    def _tensor(
        self,
        kind: str,
        tensor: ValueSpec,
        shape: tuple[int, ...],
        scene: Scene,
        rng: np.random.Generator,
    ) -> Value:
        hint, dtype = self._hints[tensor.name], self.dtype(tensor)
        mode = self._modes[tensor.name]
        if mode == "normal":
            uses = [scene.of(use) for use in hint.uses]
            values = parameter(uses, shape, rng)
            if values is not None:
                return np.asarray(values).astype(dtype)
            bounds = index_range(uses) if dtype.kind != "O" else None
            if not is_float(dtype) and bounds is None and self._tame and kind in _WILD:
                kind = "normal"
        else:
            kind, bounds = mode, None
        return np.asarray(draw_values(kind, shape, dtype, hint, rng, bounds=bounds))


def _default_keys(spec: ValueSpec) -> tuple[str | int, ...]:
    dtype = numpy_dtype(spec.key_type)
    strings = dtype is not None and dtype.kind == "O"
    return ("a", "b", "c", "d") if strings else (0, 1, 2, 3)


def _shown(value: Value) -> str:
    if isinstance(value, np.ndarray):
        return "x".join(map(str, value.shape))
    if value is None:
        return "none"
    kind = "map" if isinstance(value, Mapping) else "sequence"
    return f"{kind} of {len(value)}"
