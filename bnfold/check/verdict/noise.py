"""How far the reference is from itself when nothing of importance changes.

Two kinds of neighbours of a model are as good as the model:

* its float inputs moved by one unit in the last place (ulp) of their own type, up or down;
* its float weights moved by about half an ulp, which is what rounding them once does. A float has
  no neighbour at half an ulp, so one weight in four moves by a whole one: in the mean square the
  same. Equal weights of a tensor move alike, because rounding treats them alike: in a model whose
  weights are all the same number its errors add up instead of cancelling. This is the noise that
  matters where inputs are integers, and where weights are float16 or bfloat16: there a correctly
  folded weight, rounded once to its own type, is further from the original product than any
  rounding inside a runtime that computes in float32.

The difference between the reference's outputs and a neighbour's, on the same feed, is noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from bnfold.check.feeds.draws import is_float
from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import Hint
from bnfold.check.models.model import Array, Model
from bnfold.check.models.pairs import Pair
from bnfold.check.runtimes.sessions import UNOPTIMIZED, RunError, Runner, Value

__all__ = [
    "NOT_WEIGHTS",
    "NoiseSource",
    "eps_of",
    "move_inputs",
    "move_weights",
    "next_float",
    "outputs_of",
    "rounded_otherwise",
]

_FIRST_DRAWS = 3
_ALL_DRAWS = 8
_KEPT_WEIGHT_DRAWS = 2
_WEIGHT_DRAWS = 8

# Perturbed copies of weights live in memory beside the model.
_MAX_WEIGHT_BYTES = 2**29
# Operators whose float parameters are no weights: one ulp more is another size or another branch.
_FLOAT_TYPES = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
)
NOT_WEIGHTS = frozenset(
    {"NonMaxSuppression", "OneHot", "Pad", "Pow", "Range", "Resize", "Upsample"}
)


def next_float(values: Array, up: Array) -> Array:
    """Return the neighbours of floats in their own type.

    Args:
        values: Floats of any type and shape; NaN and infinity stay.
        up: Booleans of the same shape: towards plus infinity where True.
    """
    dtype = values.dtype
    with np.errstate(all="ignore"):
        towards = np.where(up, np.inf, -np.inf).astype(dtype)
        moved = np.nextafter(values, towards)
    # The neighbour of the largest float is infinity: not a small change.
    return np.asarray(np.where(np.isfinite(moved), moved, values), dtype=dtype)


def move_inputs(feed: Feed, hints: Mapping[str, Hint], rng: np.random.Generator) -> Feed | None:
    """Move every float of a feed by one ulp, up or down by chance.

    Values that set sizes stay. Returns None where nothing can move: there are no floats, or all
    of them are zero.
    """
    arrays: dict[str, Value] = {}
    moved = False
    for name, value in feed.arrays.items():
        hint = hints.get(name)
        fixed = hint is not None and hint.is_size
        if not isinstance(value, np.ndarray) or not is_float(value.dtype) or fixed:
            arrays[name] = value
            continue
        neighbour = next_float(value, rng.integers(0, 2, value.shape).astype(bool))
        # The neighbours of zero are denormal numbers, which are noise to nobody.
        arrays[name] = np.where(value == 0, value, neighbour).astype(value.dtype)
        moved |= bool(np.any(value != 0))
    return Feed(f"{feed.name} moved", arrays) if moved else None


def move_weights(model: Model, seed: Sequence[int]) -> tuple[Model, dict[str, Array]]:
    """Move a model's float weights, one in four by one ulp.

    Single numbers stay as they are: most of them are exponents, bounds and epsilons. Where the
    weights are larger than half a gigabyte only the first of them move.

    Args:
        model: The reference.
        seed: Where the random numbers start.

    Returns:
        A model, and values in place of its initializers and constants of these names. It is the
        same model unless weights are computed by ConstantOfShape.
    """
    graph = model.graph
    fixed = {name for node in graph.node if node.op_type in NOT_WEIGHTS for name in node.input}
    overrides = {}
    budget = _MAX_WEIGHT_BYTES
    rng = np.random.default_rng(seed)
    for name, tensor in _float_tensors(graph):
        if name in fixed or math.prod(tensor.dims) < 2:
            continue
        values = model.values(tensor)
        budget -= values.nbytes
        if budget < 0:
            break
        overrides[name] = rounded_otherwise(values, rng)
    if any(True for _ in _fills(graph, fixed)) and model.skeleton.size <= _MAX_WEIGHT_BYTES:
        proto = model.load(external_data=False)
        for tensor in _fills(proto.graph, fixed):
            values = rounded_otherwise(numpy_helper.to_array(tensor), rng)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        model = dataclasses.replace(model, data=proto.SerializeToString())
    return model, overrides


def _fills(graph: onnx.GraphProto, fixed: Container[str]) -> Iterator[onnx.TensorProto]:
    """Yield the numbers that ConstantOfShape nodes fill weights with."""
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.output[0] not in fixed:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in _FLOAT_TYPES:
                    yield attribute.t


def rounded_otherwise(values: Array, rng: np.random.Generator) -> Array:
    """Move one value in four by one ulp, equal values alike: chance hangs on the bits alone.

    A tensor that holds one number only moves always, and by two ulp. Where all products of a sum
    are the same number, the sum's own roundings add up too. Zero, infinity and NaN stay.
    """
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits = np.ascontiguousarray(values).view(unsigned)
    key, factor = rng.integers(0, 2**32, 2, dtype=np.uint32)
    # One unit more is the neighbour away from zero, one less that towards it.
    steps = np.zeros(8, unsigned)
    steps[:2] = 1, np.iinfo(unsigned).max
    if bits.size and np.all(bits == bits.flat[0]):
        # Arrays wrap around silently, single numbers do not.
        moved = bits + (steps << unsigned.type(1))[int(key) & 1 : (int(key) & 1) + 1]
    else:
        mixed = (bits ^ (bits >> 32) if unsigned.itemsize == 8 else bits).astype(np.uint32)
        for number in (factor, 0x846CA68B):
            mixed ^= key
            mixed *= np.uint32(int(number) | 1)
            mixed ^= mixed >> np.uint32(15)
        moved = bits + steps[mixed >> np.uint32(29)]
    # Without the sign. The neighbour of the largest float is infinity: not a small change.
    magnitude = bits << unsigned.type(1)
    infinity = np.asarray(np.inf, values.dtype).view(unsigned) << unsigned.type(1)
    stays = (magnitude < 4) | (magnitude > infinity - unsigned.type(6))
    return np.where(stays, bits, moved).view(values.dtype)


def _float_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for initializer in graph.initializer:
        if initializer.data_type in _FLOAT_TYPES:
            yield initializer.name, initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in _FLOAT_TYPES:
                    yield node.output[0], attribute.t


class NoiseSource:
    """Runs neighbours of the reference.

    Args:
        pair: The models, of which the reference is run.
        hints: Advice by input name.
        seed: Where the random numbers start.
    """

    def __init__(self, pair: Pair, hints: Mapping[str, Hint], seed: int) -> None:
        self._pair = pair
        self._hints = hints
        self._seed = seed
        self._kept: list[Runner] | None = None
        self._coarse_weights = any(
            tensor.data_type in {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
            for _, tensor in _float_tensors(pair.reference.graph)
        )

    def first(self, feed: Feed, index: int) -> Iterator[list[Value]]:
        """Yield the outputs of the neighbours that every verdict needs."""
        moved = False
        for outputs in self._moved_inputs(feed, index, range(_FIRST_DRAWS)):
            moved = True
            yield outputs
        if not moved or self._coarse_weights:
            if self._kept is None:
                self._kept = list(self._neighbours(range(_KEPT_WEIGHT_DRAWS)))
            for runner in self._kept:
                yield from outputs_of(runner, feed)

    def more_inputs(self, feed: Feed, index: int) -> Iterator[list[Value]]:
        """Yield the outputs of more neighbours in the inputs, for a feed in doubt."""
        yield from self._moved_inputs(feed, index, range(_FIRST_DRAWS, _ALL_DRAWS))

    def weights(self) -> Iterator[Runner]:
        """Yield neighbours in the weights, each made ready when it is asked for."""
        kept = self._kept or []
        yield from kept
        yield from self._neighbours(range(len(kept), _WEIGHT_DRAWS))

    def _moved_inputs(self, feed: Feed, index: int, draws: range) -> Iterator[list[Value]]:
        for draw in draws:
            rng = np.random.default_rng((self._seed, index, draw, 1))
            moved = move_inputs(feed, self._hints, rng)
            if moved is not None:
                yield from outputs_of(self._pair.truth, moved)

    def _neighbours(self, draws: range) -> Iterator[Runner]:
        for draw in draws:
            reference = self._pair.reference
            model, overrides = move_weights(reference, (self._seed, draw, 2))
            if not overrides and model is reference:
                return
            try:
                yield self._pair.open(model, UNOPTIMIZED, overrides)
            except RunError:
                # Nothing to learn here: the noise of the inputs has to do.
                return


def outputs_of(runner: Runner, feed: Feed) -> Iterator[list[Value]]:
    """Yield the outputs of a neighbour, or nothing where it does not run."""
    try:
        yield runner.run(feed.arrays)
    except RunError:
        return


def eps_of(dtype: np.dtype[Any]) -> float:
    """The spacing at 1 of a floating-point or complex type; 0 for types that are exact."""
    if not is_float(dtype) and dtype.kind not in "fcV":
        return 0.0
    try:
        finfo: Any = ml_dtypes.finfo
        return float(finfo(dtype).eps)
    except ValueError:
        return 0.0
