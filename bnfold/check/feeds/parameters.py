"""Valid values for inputs of a model that are parameters of an operator.

Free draws do not run there: the axes of a Squeeze have to have the size 1, the sizes of a Split to
add up. Each maker gets the use, the number of values and a source of chance, and returns values as
a flat array, or None where it cannot tell. Two tables list them: ``_BOUNDS`` for indices that have
to be smaller than something, ``_MAKERS`` for everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bnfold.check.feeds.scene import UseInScene
from bnfold.check.models.model import Array

__all__ = ["index_range", "parameter"]

Maker = Callable[[UseInScene, int, np.random.Generator], Array | None]


def index_range(uses: Sequence[UseInScene]) -> tuple[int, int] | None:
    """Return the smallest range [low, high) that all uses as an index allow, or None."""
    low, high = 0, None
    for use in uses:
        bound = _BOUNDS.get((use.node.op_type, use.use.position))
        size = bound(use) if bound is not None else None
        if size is not None:
            low = max(low, -use.use.offset)
            high = min(size - use.use.offset, size if high is None else high)
    return None if high is None else (low, max(high, low + 1))


def parameter(
    uses: Sequence[UseInScene], shape: tuple[int, ...], rng: np.random.Generator
) -> Array | None:
    """Return values that the first use which knows some takes, or None.

    Args:
        uses: Where the input is read.
        shape: Shape of the input.
        rng: Where the numbers come from.
    """
    for use in uses:
        maker = _MAKERS.get((use.node.op_type, use.use.position))
        if maker is None:
            continue
        if use.use.whole:
            values = maker(use, math.prod(shape), rng)
        else:
            # One part of a list of sizes, whose other parts come from elsewhere.
            values = np.ones(math.prod(shape)) if maker in _OF_ONES else None
        if values is not None and values.size == math.prod(shape):
            return values.reshape(shape)
    return None


# --- bounds ---


def _axis_0(use: UseInScene) -> int | None:
    return use.axis(0)


def _table(position: int) -> Callable[[UseInScene], int | None]:
    def rows(use: UseInScene) -> int | None:
        dims = use.dims(position)
        return dims[0] if dims else None

    return rows


def _depth(use: UseInScene) -> int | None:
    depth = use.value(1)
    return int(depth.flat[0]) if depth is not None and depth.size else None


def _bits(use: UseInScene) -> int:
    del use
    return 8


_BOUNDS: dict[tuple[str, int], Callable[[UseInScene], int | None]] = {
    ("BitShift", 1): _bits,
    ("EmbedLayerNormalization", 0): _table(2),
    ("EmbedLayerNormalization", 1): _table(4),
    ("Gather", 1): _axis_0,
    ("GatherElements", 1): _axis_0,
    ("OneHot", 0): _depth,
    ("RoiAlign", 2): _table(0),
    ("RotaryEmbedding", 3): _table(1),
    ("SequenceAt", 1): lambda _: 1,
    ("SequenceErase", 1): lambda _: 1,
    ("SequenceInsert", 2): lambda _: 1,
}


# --- axes ---


def _any_axes(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    dims = use.dims(0)
    return None if dims is None or count > len(dims) else np.arange(count)


def _squeezed_axes(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    ones = [axis for axis, size in enumerate(use.dims(0) or ()) if size == 1]
    return np.array(ones[:count], np.int64) if len(ones) >= count else None


def _new_axes(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    return np.arange(count)


# --- sizes ---


def _new_shape(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    dims, declared = use.dims(0), use.declared()
    if dims is None:
        return None
    total = math.prod(dims)
    if declared is not None and len(declared) == count and math.prod(declared) == total:
        return np.array(declared, np.int64)
    if count >= len(dims):
        return np.array([*dims, *[1] * (count - len(dims))], np.int64)
    if count == 0:
        return np.zeros(0)
    return np.array([*dims[: count - 1], math.prod(dims[count - 1 :])], np.int64)


def _expanded(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    dims, declared = use.dims(0), use.declared()
    if declared is not None and len(declared) == count:
        return np.array(declared, np.int64)
    if dims is None:
        return None
    kept = dims[max(len(dims) - count, 0) :]
    return np.array([*[2] * (count - len(kept)), *kept], np.int64)


def _declared_or_small(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    declared = use.declared()
    if declared is not None and len(declared) == count:
        return np.array(declared, np.int64)
    return rng.integers(1, 5, count)


def _small(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    return rng.integers(1, 4, count)


def _scales(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    scales = rng.choice([1.0, 1.5, 2.0], count)
    # Images: rows and channels are as many as before.
    return np.where(np.arange(count) < (2 if count >= 3 else 0), 1.0, scales)


def _resized(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    dims = use.dims(0)
    if dims is None:
        return None
    axes = use.integers("axes") or range(len(dims))
    if count != len(axes):
        return None
    grown = [
        dims[axis] + (int(rng.integers(0, 6)) if axis >= 2 or len(dims) < 3 else 0) for axis in axes
    ]
    return np.array(grown, np.int64)


def _region(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    return np.repeat([0.0, 1.0], count // 2) if count % 2 == 0 else np.zeros(count)


def _count_of_best(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    size = use.axis(-1)
    return np.full(count, rng.integers(1, min(size, 5) + 1) if size else 1)


def _pads(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    dims = use.dims(0)
    if dims is None:
        return np.ones(count)
    axes = use.value(3)
    sizes = [dims[axis] for axis in axes] if axes is not None and axes.size else list(dims)
    if count != 2 * len(sizes):
        return None
    # A reflection has to find something to reflect.
    return np.minimum(rng.integers(0, 3, count), [max(size - 1, 0) for size in sizes * 2])


def _parts(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    size = use.axis(0)
    if size is None or count == 0:
        return None
    if use.dims(1) == ():
        return np.array([max(size // 2, 1)])
    cuts = np.sort(rng.integers(0, size + 1, count - 1))
    even = np.diff([0, *(size * part // count for part in range(1, count)), size])
    return even if size >= count else np.diff([0, *cuts, size])


def _start(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    sizes = _sliced(use, count)
    return np.zeros(count) if sizes is None else np.minimum(1, np.maximum(sizes - 1, 0))


def _end(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    sizes = _sliced(use, count)
    return np.full(count, 2**31 - 1) if sizes is None else sizes


def _sliced(use: UseInScene, count: int) -> Array | None:
    dims, axes = use.dims(0), use.value(3)
    if dims is None:
        return None
    named = range(count) if axes is None or axes.size != count else axes.tolist()
    return np.array([dims[axis] for axis in named]) if count <= len(dims) else None


def _ones(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    return np.ones(count)


def _range_part(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
    low, high = [(0, 4), (4, 12), (1, 3)][use.use.position]
    return rng.integers(low, high, count)


def _image_size(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    theta = use.dims(0)
    return None if not theta else np.array([theta[0], *rng.integers(2, 6, count - 1)], np.int64)


# --- indices and lengths ---


def _coordinates(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    """Rows that name elements or slices of the data, each once as long as there are enough."""
    dims, shape = use.dims(0), use.dims(1)
    if dims is None or not shape:
        return None
    skipped = use.integer("batch_dims", 0)
    named = dims[skipped : skipped + shape[-1]]
    total, rows = math.prod(named), math.prod(shape[:-1])
    if not total:
        return None
    flat = rng.choice(total, rows, replace=rows > total)
    return np.stack(np.unravel_index(flat, named), axis=-1) if named else np.zeros(0)


def _scattered(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    """Indices along the axis, none of them twice: which of two writes wins is not defined."""
    size, shape = use.axis(0), use.dims(1)
    if size is None or not shape or shape[use.integer("axis", 0)] > size:
        return None
    axis = use.integer("axis", 0)
    order = np.argsort(rng.random((*np.delete(shape, axis), size)), axis=-1)
    return np.moveaxis(order[..., : shape[axis]], -1, axis)


def _unpooled(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    """Places in the output, in the order of the pooled elements, each once."""
    dims = use.dims(0)
    if dims is None:
        return None
    strides = use.integers("strides") or (1,) * (len(dims) - 2)
    sizes = (*dims[:2], *(size * stride for size, stride in zip(dims[2:], strides, strict=False)))
    return np.sort(rng.choice(math.prod(sizes), count, replace=False))


def _unpooled_shape(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    dims, kernel = use.dims(0), use.integers("kernel_shape")
    if dims is None:
        return None
    strides = use.integers("strides") or (1,) * (len(dims) - 2)
    grown = (
        (size - 1) * stride + taps + 1
        for size, stride, taps in zip(dims[2:], strides, kernel, strict=False)
    )
    return np.array([*dims[:2], *grown], np.int64)


def _lengths(position: int, axis: int) -> Maker:
    def make(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
        dims = use.dims(position)
        actual = 1 if use.integer("layout", 0) else use.integer("time_axis", axis)
        return None if not dims else rng.integers(1, dims[actual] + 1, count)

    return make


def _boxes(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    """Regions (x1, y1, x2, y2) inside the image, after a batch index where a row has five."""
    dims, shape = use.dims(0), use.dims(1)
    if dims is None or shape is None or len(shape) != 2 or shape[1] not in {4, 5}:
        return None
    height, width = dims[2:4]
    first = rng.random((shape[0], 2)) * 0.5
    corners = np.concatenate([first, first + 0.1 + 0.4 * rng.random(first.shape)], axis=1)
    boxes = corners * [width - 1, height - 1, width - 1, height - 1]
    batch = rng.integers(0, max(dims[0], 1), (shape[0], 1))
    return boxes if shape[1] == 4 else np.concatenate([batch, boxes], axis=1)


def _between(low: float, high: float) -> Maker:
    def make(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
        return rng.uniform(low, high, count)

    return make


def _exactly(*values: float) -> Maker:
    def make(use: UseInScene, count: int, rng: np.random.Generator) -> Array:
        return np.full(count, values[use.use.position % len(values)])

    return make


_REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

_MAKERS: dict[tuple[str, int], Maker] = {
    ("AffineGrid", 1): _image_size,
    ("Attention", 6): _lengths(1, -2),
    ("BlackmanWindow", 0): _exactly(16),
    ("CenterCropPad", 1): _declared_or_small,
    ("ConstantOfShape", 0): _declared_or_small,
    ("CumProd", 1): _any_axes,
    ("CumSum", 1): _any_axes,
    ("DFT", 1): _exactly(0, 16),
    ("DFT", 2): _exactly(1),
    ("Expand", 1): _expanded,
    ("GRU", 4): _lengths(0, 0),
    ("GatherND", 1): _coordinates,
    ("HammingWindow", 0): _exactly(16),
    ("HannWindow", 0): _exactly(16),
    ("LSTM", 4): _lengths(0, 0),
    ("Loop", 0): _small,
    ("Loop", 1): _ones,
    ("MaxRoiPool", 1): _boxes,
    ("MaxUnpool", 1): _unpooled,
    ("MaxUnpool", 2): _unpooled_shape,
    **{("MelWeightMatrix", i): _exactly(8, 64, 8192, 0, 4096) for i in range(5)},
    ("NonMaxSuppression", 2): _small,
    ("NonMaxSuppression", 3): _between(0.3, 0.7),
    ("NonMaxSuppression", 4): _between(0.0, 0.1),
    ("OneHot", 1): _small,
    ("Pad", 1): _pads,
    ("Pad", 3): _any_axes,
    ("RNN", 4): _lengths(0, 0),
    **{("Range", i): _range_part for i in range(3)},
    **{(f"Reduce{kind}", 1): _any_axes for kind in _REDUCTIONS},
    ("Reshape", 1): _new_shape,
    ("ReverseSequence", 1): _lengths(0, 0),
    ("RoiAlign", 1): _boxes,
    ("STFT", 1): _exactly(4),
    ("STFT", 3): _exactly(16),
    ("Scatter", 1): _scattered,
    ("ScatterElements", 1): _scattered,
    ("ScatterND", 1): _coordinates,
    ("Slice", 1): _start,
    ("Slice", 2): _end,
    ("Slice", 3): _any_axes,
    ("Slice", 4): _ones,
    ("Split", 1): _parts,
    ("SplitToSequence", 1): _parts,
    ("Squeeze", 1): _squeezed_axes,
    ("Tile", 1): _small,
    ("TopK", 1): _count_of_best,
    ("Unsqueeze", 1): _new_axes,
    ("Upsample", 1): _scales,
}
# Where nothing is known of the whole list of sizes, 1 is the size that never asks for much.
_OF_ONES = frozenset({_declared_or_small, _expanded, _new_shape, _scales, _small})


def _resize(use: UseInScene, count: int, rng: np.random.Generator) -> Array | None:
    """Resize has its scales at 1 in opset 10, at 2 (behind the region) later."""
    scales_at = 1 if len(use.node.input) == 2 else 2
    if use.use.position == scales_at:
        return _scales(use, count, rng)
    return _region(use, count, rng) if use.use.position == 1 else _resized(use, count, rng)


_MAKERS.update({("Resize", i): _resize for i in (1, 2, 3)})
