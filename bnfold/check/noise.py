"""How far the reference is from itself when nothing of importance changes.

Two kinds of neighbours of a model are as good as the model:

* its float inputs moved by one unit in the last place (ulp) of their own type, up or down;
* its float weights moved by about half an ulp, which is what rounding them once does. A float has
  no neighbour at half an ulp, so one weight in four moves by a whole one: in the mean square the
  same. This is the noise that matters where inputs are integers, and where weights are float16 or
  bfloat16: there a correctly folded weight, rounded once to its own type, is further from the
  original product than any rounding inside a runtime that computes in float32.

The difference between the reference's outputs and a neighbour's, on the same feed, is noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from bnfold.check.draws import Array, is_float
from bnfold.check.feeds import Feed
from bnfold.check.hints import Hint
from bnfold.check.model import Model
from bnfold.check.sessions import RunError, Runner, Value

__all__ = ["NoiseSource", "eps_of", "move_inputs", "move_weights", "next_float"]

FIRST_DRAWS = 3
FURTHER_DRAWS = 5
WEIGHT_DRAWS = 2

# Perturbed copies of weights live in memory beside the model.
_MAX_WEIGHT_BYTES = 2**29
# Operators whose float parameters are no weights: one ulp more is another size or another branch.
_NOT_WEIGHTS = frozenset(
    {"ConstantOfShape", "NonMaxSuppression", "OneHot", "Pad", "Pow", "Range", "Resize", "Upsample"}
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


def move_weights(model: Model, rng: np.random.Generator) -> dict[str, Array]:
    """Return the model's float weights, one in four moved by one ulp.

    Single numbers stay as they are: most of them are exponents, bounds and epsilons. Where the
    weights are larger than half a gigabyte only the first of them move.
    """
    proto = model.load(external_data=False)
    fixed = {
        name for node in proto.graph.node if node.op_type in _NOT_WEIGHTS for name in node.input
    }
    overrides = {}
    budget = _MAX_WEIGHT_BYTES
    for name, tensor in _float_tensors(proto.graph):
        size = int(np.prod(tensor.dims, dtype=np.int64))
        if name in fixed or size < 2:
            continue
        values = numpy_helper.to_array(tensor, base_dir=model.directory)
        budget -= values.nbytes
        if budget < 0:
            break
        neighbours = next_float(values, rng.integers(0, 2, values.shape).astype(bool))
        chosen = (rng.integers(0, 4, values.shape) == 0) & (values != 0)
        overrides[name] = np.ascontiguousarray(np.where(chosen, neighbours, values), values.dtype)
    return overrides


def _float_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    floats = {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
    for initializer in graph.initializer:
        if initializer.data_type in floats:
            yield initializer.name, initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in floats:
                    yield node.output[0], attribute.t


class NoiseSource:
    """Runs neighbours of the reference.

    Args:
        model: The reference.
        runner: The reference made ready.
        reopen: Makes the reference ready with other weights.
        hints: Advice by input name.
        seed: Where the random numbers start.
    """

    def __init__(
        self,
        model: Model,
        runner: Runner,
        reopen: Callable[[Mapping[str, Array]], Runner],
        hints: Mapping[str, Hint],
        seed: int,
    ) -> None:
        self._model = model
        self._runner = runner
        self._reopen = reopen
        self._hints = hints
        self._seed = seed
        self._neighbours: list[Runner] | None = None
        self._coarse_weights = any(
            tensor.data_type in {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
            for _, tensor in _float_tensors(model.graph)
        )

    def first(self, feed: Feed, index: int) -> Iterator[list[Value]]:
        """Yield the outputs of the neighbours that every verdict needs."""
        moved = False
        for draw in range(FIRST_DRAWS):
            for outputs in self._moved_inputs(feed, index, draw):
                moved = True
                yield outputs
        if not moved or self._coarse_weights:
            yield from self._moved_weights(feed)

    def further(self, feed: Feed, index: int) -> Iterator[list[Value]]:
        """Yield the outputs of more neighbours, for a feed that is about to be rejected."""
        for draw in range(FIRST_DRAWS, FIRST_DRAWS + FURTHER_DRAWS):
            yield from self._moved_inputs(feed, index, draw)
        yield from self._moved_weights(feed)

    def _moved_inputs(self, feed: Feed, index: int, draw: int) -> Iterator[list[Value]]:
        moved = move_inputs(feed, self._hints, np.random.default_rng((self._seed, index, draw, 1)))
        if moved is not None:
            yield from _outputs(self._runner, moved)

    def _moved_weights(self, feed: Feed) -> Iterator[list[Value]]:
        if self._neighbours is None:
            self._neighbours = list(self._open_neighbours())
        for runner in self._neighbours:
            yield from _outputs(runner, feed)

    def _open_neighbours(self) -> Iterator[Runner]:
        for draw in range(WEIGHT_DRAWS):
            overrides = move_weights(self._model, np.random.default_rng((self._seed, draw, 2)))
            if not overrides:
                return
            try:
                yield self._reopen(overrides)
            except RunError:
                # Nothing to learn here: the noise of the inputs has to do.
                return


def _outputs(runner: Runner, feed: Feed) -> Iterator[list[Value]]:
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
