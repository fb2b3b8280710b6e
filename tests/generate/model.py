"""One random legal model, from a source of random numbers that hypothesis may control."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from tests.generate.absorbers import ABSORBERS, MAX_SIZE, size
from tests.generate.branches import BRANCHES
from tests.generate.builder import Builder, Case, Dim, Shape, Tensor, static
from tests.generate.carriers import CARRIERS
from tests.generate.mixing import MIXING
from tests.generate.positions import POSITIONS
from tests.generate.sites import SITES

__all__ = ["Wishes", "random_model"]

Family = list[Callable[[Builder, Tensor], Tensor | None]]
FAMILIES: list[tuple[int, Family]] = [
    (5, ABSORBERS),
    (6, SITES),
    (5, CARRIERS),
    (3, POSITIONS),
    (3, MIXING),
    (4, BRANCHES),
]
WEIGHTED = [family for weight, family in FAMILIES for _ in range(weight)]
OPSETS = [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 17, 18, 19, 20, 21, 21]


@dataclass(frozen=True)
class Wishes:
    """What a caller fixes; the rest is drawn."""

    kind: int | None = None
    opset: int | None = None
    steps: int | None = None


def random_model(rng: random.Random, wishes: Wishes | None = None) -> Case:
    """A legal model of a few nodes around batch normalizations, with feeds."""
    wishes = wishes or Wishes()
    kinds = [TensorProto.DOUBLE] * 6 + [TensorProto.FLOAT] * 3 + [TensorProto.FLOAT16]
    kind = wishes.kind or kinds[rng.randint(0, len(kinds) - 1)]
    opset = wishes.opset or OPSETS[rng.randint(0, len(OPSETS) - 1)]
    if kind == TensorProto.BFLOAT16:
        opset = 22  # before that Conv did not know the type
    ir = 3 if rng.randint(0, 9) == 0 else 8 if opset < 21 else 10
    data = np.random.default_rng(rng.randint(0, 1 << 30))
    last = 0 if rng.randint(0, 39) == 0 else 2  # seldom a batch of nothing
    symbols = {"N": (3, 1, last), "H": (5, 6, 4), "W": (4, 3, 7)}
    b = Builder(rng, kind, opset, ir, data, symbols)
    for _ in range(rng.randint(1, 2)):
        b.add_input(_input_shape(b))
    b.straight = rng.choice([50, 75, 90, 97])
    for _ in range(wishes.steps or rng.choice([2, 3, 4, 5, 6, 8, 10, 14])):
        _step(b)
    return b.finish(_outputs(b), overridable=_overridable(b))


def _input_shape(b: Builder) -> Shape:
    rank = b.pick([2, 2, 3, 3, 4, 4, 4, 4, 5])
    symbolic = b.chance(60)
    dims: list[Dim] = []
    for axis in range(rank):
        name = {0: "N", 2: "H", 3: "W"}.get(axis)
        if name is None or not symbolic or (axis > 1 and b.chance(70)):
            # few different lengths, so that they coincide
            dims.append(static(b.pick([1, 2, 4, 4, 4, 6] if axis == 1 else [1, 2, 3, 4, 4, 5])))
        else:
            dims.append(Dim(b.symbols[name], known=False, symbol=name if b.chance(85) else ""))
    return tuple(dims)


def _step(b: Builder) -> None:
    for _ in range(12):
        x = b.tensor()
        if b.pick(b.pick(WEIGHTED))(b, x) is not None:
            break
    # what has grown too large is not gone on with
    b.pool[:] = [t for t in b.pool if size(t.shape) <= 4 * MAX_SIZE] or b.pool[:1]


def _outputs(b: Builder) -> list[Tensor]:
    """Everything that nothing reads, and sometimes something that is read as well."""
    computed = [t for t in b.pool if all(t.name != info.name for info in b.inputs)]
    if not computed:
        x = b.pool[-1]
        computed = [b.node("Identity", [x], x.shape)]
    return [t for t in computed if t.uses == 0 or b.chance(5)] or computed[-1:]


def _overridable(b: Builder) -> list[str]:
    if b.ir < 4 or not b.chance(10):
        return []
    return [t.name for t in b.initializers if t.data_type == b.kind and b.chance(30)]
