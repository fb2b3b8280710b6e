"""Linear branches on one tensor that meet in a tree of additions, and what only looks like that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.generate.absorbers import MAX_SIZE, divisors, size, spatial
from tests.generate.builder import Builder, Tensor, static
from tests.generate.sites import batchnorm, broadcast


@dataclass(frozen=True)
class Window:
    """What all branches of a block agree in: they look around the same place."""

    reach: int
    begin: int
    end: int
    stride: int


def branches(b: Builder, x: Tensor) -> Tensor | None:
    """A block of parallel convolutions, as in RepVGG, ACNet or a diverse branch block."""
    if not spatial(b, x) or size(x.shape) > MAX_SIZE // 4:
        return None
    windows = [_window(b) for _ in x.shape[2:]]
    room = [w.begin + w.end - w.reach for w in windows]
    if any(min(d.sizes) + r < 0 for d, r in zip(x.shape[2:], room, strict=True)):
        return None
    outputs = x.length(1) if b.chance(70) else b.small(1, 4)
    makers: list[Callable[..., Tensor | None]] = [
        _conv, _conv, _conv, _point, _normed, _pool, _itself, _deep, _scaled, _odd,
    ]  # fmt: skip
    parts: list[Tensor] = []
    for _ in range(b.small(2, 4)):
        part = b.pick(makers)(b, x, windows, outputs)
        if part is not None:
            parts.append(part)
    return _tree(b, parts)


def _window(b: Builder) -> Window:
    reach = b.pick([1, 2, 3, 3, 3, 4])
    same = b.chance(60)
    begin = reach // 2 if same else b.small(0, 2)
    end = reach - 1 - reach // 2 if same else b.small(0, 2)
    return Window(reach, begin, end, b.pick([1, 1, 1, 2]))


def _conv(
    b: Builder, x: Tensor, windows: Sequence[Window], outputs: int, *, groups: int | None = None
) -> Tensor | None:
    """A convolution whose kernel lies anywhere in the window."""
    channels = x.length(1)
    kernel, dilations, begin, end = [], [], [], []
    for w in windows:
        dilation = b.pick([1, 1, 1, 2])
        most = (w.reach - 1) // dilation + 1
        k = most if b.chance(50) else b.small(1, most)
        spare = w.reach - ((k - 1) * dilation + 1)
        first = spare // 2 if b.chance(70) else b.small(0, spare)
        if w.begin < first or w.end < spare - first:
            return None
        kernel.append(k)
        dilations.append(dilation)
        begin.append(w.begin - first)
        end.append(w.end - (spare - first))
    if groups is None:
        common = [d for d in divisors(channels) if outputs % d == 0]
        groups = b.pick([1, b.pick(common), common[-1]])
    assert groups is not None
    strides = [w.stride for w in windows]
    return _emit(b, x, outputs, groups, kernel, strides, dilations, begin, end)


def _emit(  # noqa: PLR0917
    b: Builder, x: Tensor, outputs: int, groups: int, kernel: list[int], strides: list[int],
    dilations: list[int], begin: list[int], end: list[int],
) -> Tensor | None:  # fmt: skip
    pads = begin + end
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    dims = [
        d.map(lambda n, i=i: (n + begin[i] + end[i] - reach[i]) // strides[i] + 1)
        for i, d in enumerate(x.shape[2:])
    ]
    if any(min(d.sizes) < 1 for d in dims):
        return None
    weight = b.normal(outputs, x.length(1) // groups, *kernel)
    if b.chance(5):
        weight = weight * 0
    inputs: list[Tensor | str] = [x, b.constant(weight, hint="w")]
    if b.chance(40):
        inputs.append(b.constant(b.normal(outputs), hint="b"))
    same = all(s == 1 for s in strides) and all(
        p + q == r - 1 for p, q, r in zip(begin, end, reach, strict=True)
    )
    auto = None
    if same and dilations == [1] * len(kernel):
        if begin == [(r - 1) // 2 for r in reach] and b.chance(15):
            auto = "SAME_UPPER"
        elif begin == [r // 2 for r in reach] and b.chance(15):
            auto = "SAME_LOWER"
    attributes: dict[str, Any] = {
        "group": groups if groups > 1 else None,
        "strides": strides if any(s > 1 for s in strides) or b.chance(30) else None,
        "dilations": dilations if any(d > 1 for d in dilations) else None,
        "pads": pads if auto is None and (any(pads) or b.chance(30)) else None,
        "auto_pad": auto,
        "kernel_shape": kernel if b.chance(70) else None,
    }
    y = b.node("Conv", inputs, (x.shape[0], static(outputs), *dims), **attributes)
    return (batchnorm(b, y) or y) if b.chance(50) else y


def _point(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    """A 1x1 convolution at the centre, if the window has one."""
    begin = [w.begin - w.reach // 2 for w in windows]
    end = [w.end - (w.reach - 1 - w.reach // 2) for w in windows]
    if min(*begin, *end, 0) < 0:
        return None
    ones = [1] * len(windows)
    return _emit(b, x, outputs, 1, ones, [w.stride for w in windows], ones, begin, end)


def _keeps(windows: Sequence[Window]) -> bool:
    return all(w.stride == 1 and w.begin + w.end == w.reach - 1 for w in windows)


def _normed(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    return batchnorm(b, x) if _keeps(windows) and outputs == x.length(1) else None


def _itself(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    """The tensor itself, also where its single channel would be broadcast."""
    if not _keeps(windows) or outputs != x.length(1):
        return x if b.chance(20) and x.length(1) == 1 and _keeps(windows) else None
    return x if b.chance(70) else b.node(b.pick(["Identity", "Neg"]), [x], x.shape)


def _pool(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    """An average, with padding counted or not."""
    if outputs != x.length(1) or any(w.begin >= w.reach or w.end >= w.reach for w in windows):
        return None
    begin, end = [w.begin for w in windows], [w.end for w in windows]
    dims = [
        d.map(lambda n, w=w: (n + w.begin + w.end - w.reach) // w.stride + 1)
        for d, w in zip(x.shape[2:], windows, strict=True)
    ]
    ceil = 1 if b.opset >= 10 and b.chance(20) else None
    whole = all(
        (n + w.begin + w.end - w.reach) % w.stride == 0
        for d, w in zip(x.shape[2:], windows, strict=True)
        for n in d.sizes
    )
    return b.node(
        "AveragePool", [x], (*x.shape[:2], *dims), kernel_shape=[w.reach for w in windows],
        strides=[w.stride for w in windows], pads=begin + end,
        count_include_pad=b.pick([None, 0, 1, 1, 1]), ceil_mode=ceil if whole else None,
    )  # fmt: skip


def _deep(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    """A pointwise convolution and then one over the window, or the other way round."""
    ones, zeros = [1] * len(windows), [0] * len(windows)
    middle = b.pick([outputs, b.small(1, 3)])
    if b.chance(30):
        first = _conv(b, x, windows, middle)
        return (
            None if first is None else _emit(b, first, outputs, 1, ones, ones, ones, zeros, zeros)
        )
    if b.chance(50):  # the padding comes first
        begin, end = [w.begin for w in windows], [w.end for w in windows]
        first = _emit(b, x, middle, 1, ones, ones, ones, begin, end)
        windows = [Window(w.reach, 0, 0, w.stride) for w in windows]
    else:
        first = _emit(b, x, middle, 1, ones, ones, ones, zeros, zeros)
    if first is None:
        return None
    if b.chance(25) and middle == outputs:
        return _pool(b, first, windows, outputs)
    return _conv(b, first, windows, outputs)


def _scaled(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    """A branch times a number, or times one number for each channel."""
    y = b.pick([_conv, _itself, _pool])(b, x, windows, outputs)
    if y is None:
        return None
    ones = (1,) * (x.rank - 2)
    shape = b.pick([(), (1,), (y.length(1), *ones)])
    return b.node("Mul", [y, b.constant(b.normal(*shape))], y.shape)


def _odd(b: Builder, x: Tensor, windows: Sequence[Window], outputs: int) -> Tensor | None:
    """What must not be merged: not linear, another place, a shift of one position."""
    match b.small(0, 3):
        case 0:
            y = _conv(b, x, windows, outputs)
            return None if y is None else b.node(b.pick(["Relu", "Abs"]), [y], y.shape)
        case 1:
            y = b.node("Relu", [x], x.shape)
            return _conv(b, y, windows, outputs)
        case 2:
            moved = [
                Window(w.reach, w.begin + 1, w.end - 1, w.stride) if w.end > 0 else w
                for w in windows
            ]
            return _conv(b, x, moved, outputs)
    fitting = [y for y in b.pool if y.rank == x.rank]
    return b.pick(fitting) if fitting else None


def _tree(b: Builder, parts: list[Tensor]) -> Tensor | None:
    """All parts that fit, added in any order, with signs, numbers and other tensors between."""
    if not parts:
        return None
    if b.chance(15):
        parts.append(b.pick(b.pool))
    shape = parts[0].shape
    found = [part for part in parts if broadcast(shape, part.shape) is not None]
    b.rng.shuffle(found)
    while len(found) > 1:
        one, two = found.pop(b.small(0, len(found) - 1)), found.pop()
        both = broadcast(one.shape, two.shape)
        if both is None or size(both) > MAX_SIZE:
            found.append(one)
            continue
        op = b.pick(["Add", "Add", "Add", "Sub", "Sum"])
        if op == "Sum" and b.opset < 8:
            op = "Add"
        result = b.node(op, [one, two], both)
        if b.chance(8):
            zero = b.constant(np.zeros(()) if b.chance(50) else b.normal(), hint="z")
            result = b.node("Add", [result, zero], both)
        if b.chance(4):
            result = b.node("Neg", [result], both)
        found.insert(0, result)
    return found[0]


def transposed(b: Builder, x: Tensor) -> Tensor | None:
    """Parallel transposed convolutions."""
    if not spatial(b, x) or size(x.shape) > MAX_SIZE // 8:
        return None
    axes, channels = x.rank - 2, x.length(1)
    outputs = channels if b.chance(50) else b.small(1, 3)
    stride = [b.small(1, 2) for _ in range(axes)]
    offset = [b.small(0, 1) for _ in range(axes)]
    grown = [b.small(1, 3) for _ in range(axes)]
    dims = [d.map(lambda n, i=i: (n - 1) * stride[i] + grown[i]) for i, d in enumerate(x.shape[2:])]
    parts: list[Tensor] = []
    for _ in range(b.small(2, 3)):
        kernel, pads_begin, pads_end, extra = [], [], [], []
        for i in range(axes):
            begin = b.small(0, offset[i])
            k = b.small(begin + 1, 4)
            rest = k - begin - grown[i]
            if -rest >= max(stride[i], 1):
                k, rest = k - rest, 0
            kernel.append(k)
            pads_begin.append(begin)
            pads_end.append(max(rest, 0))
            extra.append(max(-rest, 0))
        groups = b.pick([1, b.pick([d for d in divisors(channels) if outputs % d == 0])])
        weight = b.normal(channels, outputs // groups, *kernel)
        inputs: list[Tensor | str] = [x, b.constant(weight, hint="w")]
        if b.chance(50):
            inputs.append(b.constant(b.normal(outputs), hint="b"))
        part = b.node(
            "ConvTranspose", inputs, (x.shape[0], static(outputs), *dims),
            group=groups if groups > 1 else None, strides=stride, kernel_shape=kernel,
            pads=pads_begin + pads_end, output_padding=extra if any(extra) else None,
        )  # fmt: skip
        parts.append((batchnorm(b, part) or part) if b.chance(30) else part)
    if b.chance(40) and outputs == channels:
        parts.append(batchnorm(b, x) if b.chance(50) else x)  # type: ignore[arg-type]
    return _tree(b, [part for part in parts if part is not None])


def matrices(b: Builder, x: Tensor) -> Tensor | None:
    """Parallel and consecutive matrix products, low-rank ones among them."""
    if x.rank < 2 or not x.has(-1) or x.length(-1) == 0 or size(x.shape) > MAX_SIZE // 2:
        return None
    inner = x.length(-1)
    outputs = inner if b.chance(50) else b.small(1, 4)
    shape = (*x.shape[:-1], static(outputs))
    parts: list[Tensor] = []
    for _ in range(b.small(2, 4)):
        match b.small(0, 5):
            case 0 if outputs == inner:
                parts.append(x)
            case 1:
                rank = b.small(1, 3)
                low = _times(b, x, rank, (*x.shape[:-1], static(rank)))
                parts.append(_times(b, low, outputs, shape))
            case 2 if outputs == inner:
                parts.append(b.node("Mul", [x, b.constant(b.normal(inner))], x.shape))
            case _:
                parts.append(_times(b, x, outputs, shape))
    return _tree(b, parts)


def _times(b: Builder, x: Tensor, outputs: int, shape: tuple[Any, ...]) -> Tensor:
    inner = x.length(-1)
    if x.rank == 2 and b.chance(50):
        flipped = b.chance(40)
        weight = b.normal(outputs, inner) if flipped else b.normal(inner, outputs)
        inputs: list[Tensor | str] = [x, b.constant(weight, hint="w")]
        if b.chance(60) or b.opset < 11:
            inputs.append(b.constant(b.normal(*b.pick([(outputs,), (1, outputs), ()])), hint="b"))
        return b.node(
            "Gemm", inputs, shape, transB=int(flipped) or None,
            alpha=b.pick([None, None, 0.5]), beta=b.pick([None, None, -2.0]),
        )  # fmt: skip
    y = b.node("MatMul", [x, b.constant(b.normal(inner, outputs), hint="w")], shape)
    return b.node("Add", [y, b.constant(b.normal(outputs), hint="b")], shape) if b.chance(30) else y


BRANCHES = [*[branches] * 6, transposed, transposed, matrices, matrices]
