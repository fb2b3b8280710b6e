"""Operators that move elements: shapes, axes, joining and cutting."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from tests.generate.absorbers import MAX_SIZE, divisors, pointwise, size
from tests.generate.builder import Builder, Dim, Shape, Tensor, static


def reshape_to(b: Builder, x: Tensor, shape: Shape, numbers: list[int]) -> Tensor:
    return b.node("Reshape", [x, b.integers(numbers)], shape)


def reshape(b: Builder, x: Tensor) -> Tensor | None:
    """Split an axis, or merge two, with 0 and -1 where they are legal."""
    split = [i for i, d in enumerate(x.shape) if d.known and d.length > 1]
    merge = [i for i in range(x.rank - 1) if x.has(i, i + 1)]
    dims = list(x.shape)
    if split and x.rank < 5 and b.chance(50):
        axis = b.pick(split)
        first = b.pick(divisors(x.length(axis)))
        dims[axis : axis + 1] = [static(first), static(x.length(axis) // first)]
    elif merge:
        axis = b.pick(merge)
        dims[axis : axis + 2] = [static(x.length(axis) * x.length(axis + 1))]
    if b.chance(10) and x.rank < 5:
        dims.insert(b.small(0, len(dims)), static(1))
    numbers = _spell(b, x, dims)
    return None if numbers is None else reshape_to(b, x, tuple(dims), numbers)


def _spell(b: Builder, x: Tensor, dims: list[Dim]) -> list[int] | None:
    """The target of a Reshape: lengths, 0 for an axis that stays in its place, one -1."""
    numbers: list[int | None] = [dim.length if dim.known else None for dim in dims]
    for axis, dim in enumerate(dims):
        same = axis < x.rank and x.shape[axis].sizes == dim.sizes
        if same and (not dim.known or b.chance(30)):
            numbers[axis] = 0
    unknown = [axis for axis, number in enumerate(numbers) if number is None]
    if len(unknown) > 1 or any(0 in dim.sizes for dim in x.shape):
        return None
    if not unknown and b.chance(50) and numbers:
        unknown = [b.small(0, len(numbers) - 1)]
    for axis in unknown:
        numbers[axis] = -1
    return [-1 if number is None else number for number in numbers]


def flatten(b: Builder, x: Tensor) -> Tensor | None:
    axis = b.small(0, x.rank)
    parts = [x.shape[:axis], x.shape[axis:]]
    dims = tuple(_product(part) for part in parts)
    given = axis - x.rank if axis < x.rank and b.opset >= 11 and b.chance(30) else axis
    return b.node("Flatten", [x], dims, axis=None if given == 1 and b.chance(50) else given)


def _product(dims: Shape) -> Dim:
    sizes = tuple(math.prod(each) for each in zip(*(d.sizes for d in dims), strict=True))
    return Dim(sizes, all(d.known for d in dims)) if dims else static(1)


def shuffle(b: Builder, x: Tensor) -> Tensor | None:
    """ShuffleNet's channel shuffle."""
    if not 3 <= x.rank <= 4 or not x.has(1) or not all(d.known for d in x.shape[2:]):
        return None
    groups = b.pick(divisors(x.length(1)))
    rest, lengths = x.shape[2:], [d.length for d in x.shape[2:]]
    inner = x.length(1) // groups
    batch = -1 if not x.has(0) else x.length(0)
    split = (x.shape[0], static(groups), static(inner), *rest)
    value = reshape_to(b, x, split, [0 if b.chance(50) else batch, groups, inner, *lengths])
    perm = [0, 2, 1, *range(3, len(split))]
    value = b.node("Transpose", [value], tuple(split[i] for i in perm), perm=perm)
    return reshape_to(b, value, x.shape, [batch, groups * inner, *lengths])


def transpose(b: Builder, x: Tensor) -> Tensor | None:
    if not x.rank:
        return None
    perm: list[int] | None = list(range(x.rank))
    if b.chance(20):
        perm = None
    else:
        b.rng.shuffle(perm)
    order = perm if perm is not None else list(range(x.rank))[::-1]
    return b.node("Transpose", [x], tuple(x.shape[i] for i in order), perm=perm)


def unsqueeze(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank > 3:
        return None
    count = b.small(1, 2)
    axes = b.rng.sample(range(x.rank + count), count)
    dims = list(x.shape)
    for axis in sorted(axes):
        dims.insert(axis, static(1))
    exact = b.kind == TensorProto.FLOAT or b.opset >= 13
    if not exact:
        axes.sort()  # the reference evaluator inserts them one by one as they come
    if exact and b.opset >= 11 and b.chance(30):
        axes = [axis - len(dims) for axis in axes]
    return _with_axes(b, "Unsqueeze", x, tuple(dims), axes)


def squeeze(b: Builder, x: Tensor) -> Tensor | None:
    ones = [i for i, d in enumerate(x.shape) if d.known and d.length == 1]
    if not ones:
        return None
    axes = ones if b.chance(40) else [b.pick(ones)]
    dims = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    everything = axes == ones and all(min(d.sizes) > 1 for d in dims) and b.chance(40)
    if b.opset >= 11 and b.chance(30):
        axes = [axis - x.rank for axis in axes]
    return _with_axes(b, "Squeeze", x, dims, None if everything else axes)


def _with_axes(b: Builder, op: str, x: Tensor, dims: Shape, axes: list[int] | None) -> Tensor:
    """Axes are an attribute before opset 13, an input since."""
    if b.opset < 13:
        return b.node(op, [x], dims, axes=axes)
    return b.node(op, [x] if axes is None else [x, b.integers(axes)], dims)


def expand(b: Builder, x: Tensor) -> Tensor | None:
    if b.opset < 8 or size(x.shape) > MAX_SIZE // 4:
        return None
    target, dims = [], []
    for dim in x.shape:
        length = b.small(1, 3) if dim.known and dim.length == 1 else 1
        target.append(length)
        dims.append(static(length) if length > 1 else dim)
    if x.rank < 4 and b.chance(30):
        target.insert(0, b.small(1, 2))
        dims.insert(0, static(target[0]))
    return b.node("Expand", [x, b.integers(target)], tuple(dims))


def concat(b: Builder, x: Tensor) -> Tensor | None:
    """Along any axis: tensors that fit, the same one twice, a new branch, a constant."""
    if x.rank == 0 or size(x.shape) > MAX_SIZE // 2:
        return None
    axis = 1 if x.rank > 1 and b.chance(70) else b.small(0, x.rank - 1)
    fitting = [
        y for y in b.pool
        if y.rank == x.rank and all(i == axis or p.sizes == q.sizes
                                    for i, (p, q) in enumerate(zip(x.shape, y.shape, strict=True)))
    ]  # fmt: skip
    parts: list[Tensor] = [x]
    for _ in range(b.small(1, 2)):
        branch = pointwise(b, x) if b.chance(40) else None
        parts.append(branch or b.pick(fitting))
    others = [dim for i, dim in enumerate(x.shape) if i != axis]
    if all(dim.known for dim in others) and b.chance(20):
        shape = (*x.shape[:axis], static(b.small(1, 2)), *x.shape[axis + 1 :])
        parts.append(Tensor(b.constant(b.normal(*(d.length for d in shape))), shape, b.kind))
    b.rng.shuffle(parts)
    sizes = tuple(sum(each) for each in zip(*(p.shape[axis].sizes for p in parts), strict=True))
    joined = Dim(sizes, all(p.shape[axis].known for p in parts))
    given = axis - x.rank if b.opset >= 11 and b.chance(30) else axis
    return b.node("Concat", parts, (*x.shape[:axis], joined, *x.shape[axis + 1 :]), axis=given)


def channel_axis(b: Builder, x: Tensor) -> int | None:
    axis = 1 if x.rank > 1 and b.chance(70) else b.small(0, max(x.rank - 1, 0))
    return axis if axis < x.rank and x.has(axis) and x.length(axis) > 1 else None


def split(b: Builder, x: Tensor) -> Tensor | None:
    axis = channel_axis(b, x)
    if axis is None:
        return None
    length = x.length(axis)
    even = [n for n in divisors(length) if 1 < n <= 3]
    if even and b.chance(50):
        lengths = [length // even[0]] * even[0]
    else:
        first = b.small(1, length - 1)
        lengths = [first, length - first]
    shapes = [(*x.shape[:axis], static(n), *x.shape[axis + 1 :]) for n in lengths]
    given = axis - x.rank if b.opset >= 11 and b.chance(30) else axis
    equal = len(set(lengths)) == 1 and b.chance(50)
    inputs: list[Tensor | str] = [x]
    attributes: dict[str, object] = {"axis": given}
    if not equal and b.opset < 13:
        attributes["split"] = lengths
    elif not equal:
        inputs.append(b.integers(lengths))
    elif b.opset >= 18:
        attributes["num_outputs"] = len(lengths)
    result = b.node("Split", inputs, shapes, **attributes)
    if b.chance(15):  # an output that nobody wants has no name
        unused = b.pool.pop()
        if unused is result:
            b.pool.append(unused)
        else:
            b.nodes[-1].output[:] = ["" if n == unused.name else n for n in b.nodes[-1].output]
    return result


def slice_(b: Builder, x: Tensor) -> Tensor | None:
    axes = sorted({axis for axis in (channel_axis(b, x), channel_axis(b, x)) if axis is not None})
    if not axes:
        return None
    starts, ends, steps, dims = [], [], [], list(x.shape)
    for axis in axes:
        length = x.length(axis)
        step = b.pick([1, 1, 1, 2, -1, -2]) if b.opset >= 10 else 1
        start, end = sorted((b.small(0, length - 1), b.small(1, length)))
        if start == end:
            end = start + 1
        picked = range(length)[start:end:step] if step > 0 else range(end - 1, start - 1, step)
        low, high = (start, end) if step > 0 else (end - 1, start - 1)
        if step < 0 and high < 0:
            high = -(1 << 31)
        elif b.chance(30):
            low, high = low - length, (high - length if high < length else 1 << 31)
        if step > 0 and end == length and b.chance(30):
            high = (1 << 63) - 1
        starts.append(low)
        ends.append(high)
        steps.append(step)
        dims[axis] = static(len(picked))
    given = [axis - x.rank if b.opset >= 10 and b.chance(30) else axis for axis in axes]
    if b.opset < 10:
        return b.node("Slice", [x], tuple(dims), starts=starts, ends=ends, axes=given)
    inputs: list[Tensor | str] = [x, b.integers(starts), b.integers(ends), b.integers(given)]
    if any(step != 1 for step in steps) or b.chance(30):
        inputs.append(b.integers(steps))
    return b.node("Slice", inputs, tuple(dims))


def gather(b: Builder, x: Tensor) -> Tensor | None:
    axis = channel_axis(b, x)
    if axis is None or x.rank > 4:
        return None
    length = x.length(axis)
    match b.small(0, 4):
        case 0:
            indices, shape = [b.small(0, length - 1)], ()
        case 1:
            indices, shape = [b.small(0, length - 1) for _ in range(4)], (2, 2)
        case 2:
            indices = [b.small(0, length - 1) for _ in range(b.small(1, 3))]
            shape = (len(indices),)
        case _:
            indices = b.rng.sample(range(length), b.small(1, length))
            shape = (len(indices),)
    if b.opset >= 11 and b.chance(30):
        indices = [i - length if b.chance(50) else i for i in indices]
    if shape == (2, 2):
        name = b.fresh("i")
        held = b.integers(indices)
        b.append("Reshape", [held, b.integers([2, 2])], [name])
    else:
        name = b.integers(indices, scalar=shape == ())
    dims = (*x.shape[:axis], *(static(n) for n in shape), *x.shape[axis + 1 :])
    given = axis - x.rank if b.chance(30) else axis
    return b.node("Gather", [x, name], dims, axis=given)


def depth(b: Builder, x: Tensor) -> Tensor | None:
    """DepthToSpace in both modes, and SpaceToDepth."""
    if x.rank != 4 or not x.has(1):
        return None
    high, wide = x.shape[2:]
    if x.length(1) % 4 == 0 and b.chance(60):
        mode = b.pick([None, "DCR", "CRD"]) if b.opset >= 11 else None
        dims = (
            x.shape[0],
            static(x.length(1) // 4),
            *(d.map(lambda n: n * 2) for d in (high, wide)),
        )
        return b.node("DepthToSpace", [x], dims, blocksize=2, mode=mode)
    if any(size % 2 for d in (high, wide) for size in d.sizes):
        return None
    dims = (x.shape[0], static(x.length(1) * 4), *(d.map(lambda n: n // 2) for d in (high, wide)))
    return b.node("SpaceToDepth", [x], dims, blocksize=2)


def shuffle_pixels(b: Builder, x: Tensor) -> Tensor | None:
    """PixelShuffle as its exporters write it: a Reshape, a Transpose and a Reshape."""
    if x.rank != 4 or not x.has(1, 2, 3) or x.length(1) % 4:
        return None
    c, h, w = x.length(1) // 4, x.length(2), x.length(3)
    batch = x.length(0) if x.has(0) else -1
    dims = (x.shape[0], *(static(n) for n in (c, 2, 2, h, w)))
    value = reshape_to(b, x, dims, [batch, c, 2, 2, h, w])
    perm = [0, 1, 4, 2, 5, 3]
    value = b.node("Transpose", [value], tuple(dims[i] for i in perm), perm=perm)
    whole = (x.shape[0], *(static(n) for n in (c, 2 * h, 2 * w)))
    return reshape_to(b, value, whole, [batch, c, 2 * h, 2 * w])


def identity(b: Builder, x: Tensor) -> Tensor:
    return b.node("Identity", [x], x.shape)


def dropout(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 12:
        return b.node("Dropout", [x], x.shape, ratio=b.pick([None, 0.3]))
    inputs: list[Tensor | str] = [x]
    if b.chance(50):
        inputs.append(b.constant(b.normal() * 0 + 0.25, hint="ratio", plain=True))
        if b.chance(40):
            inputs.append(b.hold("training", np.array(False)))
    return b.node("Dropout", inputs, x.shape)


def flatten_by_shape(b: Builder, x: Tensor) -> Tensor | None:
    """What exporters write for a flatten: the target is computed from the shape."""
    if x.rank < 2 or b.opset < 10 or any(0 in dim.sizes for dim in x.shape):
        return None
    names = [b.fresh(hint) for hint in ("shape", "batch", "target")]
    x.uses += 1
    b.append("Shape", [x.name], names[:1])
    b.append("Gather", [names[0], b.integers([0])], names[1:2])
    b.append("Concat", [names[1], b.integers([-1])], names[2:], axis=0)
    return b.node("Reshape", [x, names[2]], (x.shape[0], _product(x.shape[1:])))


def there_and_back(b: Builder, x: Tensor) -> Tensor | None:
    """Casts to a wider type and back, or to the type it has."""
    if b.opset < 9:
        return None
    wider = TensorProto.DOUBLE
    value = b.node("Cast", [x], x.shape, kind=wider, to=wider)
    return b.node("Cast", [value], x.shape, to=b.kind)


CARRIERS = [
    *[reshape] * 3, flatten, shuffle, *[transpose] * 3, unsqueeze, squeeze, expand, *[concat] * 3,
    *[split] * 2, *[slice_] * 2, gather, gather, depth, depth, shuffle_pixels, identity, dropout,
    there_and_back, flatten_by_shape,
]  # fmt: skip
