"""Operators over positions: padding, pools, reductions, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.generate.absorbers import MAX_SIZE, size, spatial
from tests.generate.builder import Builder, Dim, Tensor, static


def pad(b: Builder, x: Tensor) -> Tensor | None:
    modes = ["constant"] * 3 + ["reflect", "edge"] + (["wrap"] if b.opset >= 19 else [])
    mode = b.pick(modes)
    if not 1 <= x.rank <= 4 or size(x.shape) > MAX_SIZE // 2:
        return None
    limits = [min(dim.sizes) for dim in x.shape]
    if min(limits) < 1:
        return None
    first = 2 if x.rank > 2 and b.chance(75) else 0
    pads = [0] * (2 * x.rank)
    for i in range(first, x.rank):
        most = min(2, limits[i] - 1) if mode != "constant" else 2
        pads[i], pads[x.rank + i] = b.small(0, most), b.small(0, most)
        if mode == "constant" and b.chance(15) and limits[i] > 2:
            pads[i] = -1
    dims = tuple(_grown(d, pads[i] + pads[x.rank + i]) for i, d in enumerate(x.shape))
    value = b.pick([0.0, 0.0, 0.5, -1.5])
    if b.opset < 11:
        return b.node(
            "Pad", [x], dims, pads=pads, mode=None if mode == "constant" else mode,
            value=value if mode == "constant" and b.chance(70) else None,
        )  # fmt: skip
    inputs: list[Tensor | str] = [x, b.integers(pads)]
    if mode == "constant" and (value or b.chance(40)):
        inputs.append(b.constant(np.array(value), hint="p", plain=True))
    if b.opset >= 18 and b.chance(40):
        axes = [i for i in range(x.rank) if pads[i] or pads[x.rank + i]] or [0]
        inputs[1] = b.integers([pads[i] for i in axes] + [pads[x.rank + i] for i in axes])
        inputs += [""] * (3 - len(inputs)) + [b.integers([axis - x.rank for axis in axes])]
    return b.node("Pad", inputs, dims, mode=mode if mode != "constant" or b.chance(40) else None)


def _grown(dim: Dim, more: int) -> Dim:
    return dim if more == 0 else dim.map(lambda n: n + more)


def pool(b: Builder, x: Tensor) -> Tensor | None:
    """MaxPool and AveragePool with everything they have."""
    if not spatial(b, x):
        return None
    op, axes = b.pick(["MaxPool", "AveragePool"]), x.rank - 2
    kernel = [b.small(1, 3) for _ in range(axes)]
    strides = [b.pick([1, 2, 3]) for _ in range(axes)]
    ceil = 1 if b.opset >= 10 and b.chance(25) else None
    pads = [0] * 2 * axes
    if b.chance(40):
        pads = [b.small(0, kernel[i % axes] - 1) for i in range(2 * axes)]
    apart = b.opset >= (10 if op == "MaxPool" else 19) and b.chance(20)
    dilations = [b.small(1, 2) if apart else 1 for _ in range(axes)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    dims: list[Dim] = []
    for i, dim in enumerate(x.shape[2:]):
        before, both = pads[i], pads[i] + pads[axes + i]
        found = [_pooled(n, reach[i], strides[i], before, both, ceil) for n in dim.sizes]
        if None in found:
            return None
        dims.append(Dim(tuple(n or 0 for n in found), dim.known))
    counted = b.pick([None, 0, 1]) if op == "AveragePool" else None
    return b.node(
        op, [x], (*x.shape[:2], *dims), kernel_shape=kernel, strides=strides,
        pads=pads if any(pads) or b.chance(30) else None, ceil_mode=ceil, count_include_pad=counted,
        dilations=dilations if apart else None,
    )  # fmt: skip


def _pooled(
    n: int, kernel: int, stride: int, before: int, both: int, ceil: int | None
) -> int | None:
    """The length behind a pool; None where a window would see padding only."""
    room = n + both - kernel
    if room < 0:
        return None
    count = (-(-room // stride) if ceil else room // stride) + 1
    for window in range(count):
        start = window * stride - before
        if start + kernel <= 0 or start >= n:
            return None
    return count


def same_pool(b: Builder, x: Tensor) -> Tensor | None:
    if not spatial(b, x) or any(min(d.sizes) < 2 for d in x.shape[2:]):
        return None
    strides = [b.small(1, 2) for _ in range(x.rank - 2)]
    dims = [d.map(lambda n, s=s: -(-n // s)) for d, s in zip(x.shape[2:], strides, strict=True)]
    return b.node(
        b.pick(["MaxPool", "AveragePool"]), [x], (*x.shape[:2], *dims),
        kernel_shape=[2] * (x.rank - 2), strides=strides, auto_pad="SAME_UPPER",
    )  # fmt: skip


def global_pool(b: Builder, x: Tensor) -> Tensor | None:
    if not spatial(b, x):
        return None
    op = b.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    return b.node(op, [x], (*x.shape[:2], *(static(1) for _ in x.shape[2:])))


def reduce(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank < 1 or any(0 in dim.sizes for dim in x.shape):
        return None
    op = b.pick(["ReduceMean", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"])
    axes = sorted(b.rng.sample(range(x.rank), b.small(1, x.rank)))
    if x.rank > 2 and b.chance(70):
        axes = list(range(2, x.rank))
    keep = b.pick([None, 0, 1])
    dims = tuple(
        static(1) if i in axes else d for i, d in enumerate(x.shape) if i not in axes or keep != 0
    )
    given: list[int] | None = [i - x.rank if b.opset >= 11 and b.chance(30) else i for i in axes]
    if len(axes) == x.rank and b.chance(50):
        given = None
    if b.opset >= (13 if op == "ReduceSum" else 18):
        inputs: list[Tensor | str] = [x] if given is None else [x, b.integers(given)]
        return b.node(op, inputs, dims, keepdims=keep)
    return b.node(op, [x], dims, axes=given, keepdims=keep)


def reduce_nothing(b: Builder, x: Tensor) -> Tensor | None:
    """An empty list of axes means all of them, or none."""
    if b.opset < 18 or x.rank < 1:
        return None
    return b.node("ReduceMean", [x, b.integers([])], x.shape, noop_with_empty_axes=1)


def resize(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank != 4 or size(x.shape) > MAX_SIZE // 4 or any(0 in d.sizes for d in x.shape):
        return None
    modes = ["nearest", "linear"] + (["cubic"] if b.opset >= 11 else [])
    mode = b.pick(modes)
    scales = [1.0, 1.0, b.pick([1.0, 2.0, 3.0]), b.pick([2.0, 0.5 if b.opset > 9 else 1.0])]
    if b.chance(10) and mode == "nearest":
        scales[1] = b.pick([2.0, 1.2])
    dims = tuple(
        d if s == 1.0 else d.map(lambda n, s=s: int(np.floor(n * np.float32(s))))
        for d, s in zip(x.shape, scales, strict=True)
    )
    if any(0 in d.sizes for d in dims):
        return None
    if b.opset < 9:
        return b.node("Upsample", [x], dims, mode=mode, scales=scales)
    where = _floats(b, scales)
    if b.opset < 11:
        return b.node("Upsample" if b.opset == 9 else "Resize", [x, where], dims, mode=mode)
    roi = "" if b.opset >= 13 else _floats(b, [])
    coordinates = b.pick([None, "half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
    if b.opset >= 19 and b.chance(20):
        coordinates = "half_pixel_symmetric"
    inputs: list[Tensor | str] = [x, roi, where]
    if all(d.known for d in dims) and b.chance(30) and 1.2 not in scales:
        empty = "" if b.opset >= 13 else _floats(b, [])
        inputs = [x, roi, empty, b.integers([d.length for d in dims])]
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "cubic":
        attributes["exclude_outside"] = b.pick([None, 1])
    if b.opset >= 18 and mode != "nearest" and b.chance(25):
        attributes["antialias"] = 1
    if mode == "linear" and b.opset >= 13 and b.chance(10):
        inputs[1] = _floats(b, [0, 0, -0.25, 0, 1, 1, 1.25, 0.75])
        attributes |= {
            "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 1.5
        }  # fmt: skip
    return b.node("Resize", inputs, dims, **attributes)


def _floats(b: Builder, numbers: list[float]) -> str:
    """A float32 constant, whatever the type of the data."""
    return b.hold("s", np.array(numbers, np.float32))


POSITIONS = [pad, pad, pool, pool, same_pool, global_pool, *[reduce] * 2, reduce_nothing, resize]
