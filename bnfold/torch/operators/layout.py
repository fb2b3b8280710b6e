"""Operators that move elements: reshapes, transposes, joins, cuts, pads, copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.torch.operators.arguments import (
    Translate,
    arguments,
    integer,
    integers,
    length,
    only_output,
    rank,
    tensor,
)
from bnfold.torch.surrogate import KINDS, NotUnderstood, Surrogate
from bnfold.torch.trace import Call, Datum

__all__ = ["OPERATORS"]


def _source(call: Call) -> Datum:
    return tensor(call.args[0] if call.args else None)


def _identity(graph: Surrogate, call: Call) -> None:
    graph.node("Identity", [graph.value(_source(call))], [only_output(call)])


def _dropout(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    if given.get("train", given.get("training")) is not False:
        raise NotUnderstood
    graph.node("Identity", [graph.value(_source(call))], [tensor(call.outputs[0])])


def _cast(graph: Surrogate, call: Call) -> None:
    source, result = _source(call), only_output(call)
    if source.dtype == result.dtype:
        graph.node("Identity", [graph.value(source)], [result])
        return
    kind = KINDS.get(result.dtype)
    if kind is None:
        raise NotUnderstood
    graph.node("Cast", [graph.value(source)], [result], to=kind)


def _reshape(graph: Surrogate, call: Call) -> None:
    if _source(call).dtype != only_output(call).dtype:
        raise NotUnderstood  # view.dtype reads the same bits as other numbers
    graph.node("Reshape", [graph.value(_source(call))], [only_output(call)])


def _squeeze(graph: Surrogate, call: Call) -> None:
    source, result = _source(call), only_output(call)
    given = arguments(call)
    if "dim" not in given:
        _reshape(graph, call)
        return
    axes = [axis % rank(source) for axis in integers(given["dim"])] if rank(source) else []
    axes = [axis for axis in axes if source.shape is not None and source.shape[axis] == 1]
    if rank(source) - len(axes) != rank(result):
        raise NotUnderstood
    if axes:
        graph.node("Squeeze", [graph.value(source), graph.integers(axes)], [result])
    else:
        graph.node("Identity", [graph.value(source)], [result])


def _unsqueeze(graph: Surrogate, call: Call) -> None:
    source, result = _source(call), only_output(call)
    axis = integer(arguments(call)["dim"]) % rank(result)
    graph.node("Unsqueeze", [graph.value(source), graph.integers([axis])], [result])


def _permuted(graph: Surrogate, call: Call, order: Sequence[int]) -> None:
    graph.node("Transpose", [graph.value(_source(call))], [only_output(call)], perm=list(order))


def _permute(graph: Surrogate, call: Call) -> None:
    source = _source(call)
    order = [axis % rank(source) for axis in integers(arguments(call)["dims"], rank(source))]
    _permuted(graph, call, order)


def _transpose(graph: Surrogate, call: Call) -> None:
    source, given = _source(call), arguments(call)
    if "dim0" not in given:
        raise NotUnderstood
    order = list(range(rank(source)))
    one, other = (integer(given[name]) % rank(source) for name in ("dim0", "dim1"))
    order[one], order[other] = order[other], order[one]
    _permuted(graph, call, order)


def _t(graph: Surrogate, call: Call) -> None:
    _permuted(graph, call, range(rank(_source(call)))[::-1])


def _moved(graph: Surrogate, call: Call) -> None:
    source, given = _source(call), arguments(call)
    names = ("source", "destination")
    start, end = ([axis % rank(source) for axis in integers(given[name])] for name in names)
    rest = iter([axis for axis in range(rank(source)) if axis not in start])
    placed = dict(zip(end, start, strict=True))
    _permuted(graph, call, [placed[i] if i in placed else next(rest) for i in range(rank(source))])


def _expand(graph: Surrogate, call: Call) -> None:
    graph.node("Expand", [graph.value(_source(call))], [only_output(call)])


def _cat(graph: Surrogate, call: Call) -> None:
    given, result = arguments(call), only_output(call)
    parts = [tensor(part) for part in given["tensors"]]
    if any(rank(part) != rank(result) or part.dtype != result.dtype for part in parts):
        raise NotUnderstood
    axis = integer(given["dim"]) % rank(result)
    node = graph.node("Concat", [None] * len(parts), [result], axis=axis)
    for index, part in enumerate(parts):
        graph.parameter(node, index, part)


def _stack(graph: Surrogate, call: Call) -> None:
    given, result = arguments(call), only_output(call)
    parts = [tensor(part) for part in given["tensors"]]
    if any(part.dtype != result.dtype for part in parts):
        raise NotUnderstood
    axis = integer(given["dim"]) % rank(result)
    lifted = []
    for index, part in enumerate(parts):
        shape = list(part.shape or ())
        shape.insert(axis, 1)
        value = graph.between(result, shape, f"part{index}")
        graph.node("Unsqueeze", [graph.value(part), graph.integers([axis])], [value])
        lifted.append(value)
    graph.node("Concat", lifted, [result], axis=axis)


def _split(graph: Surrogate, call: Call) -> None:
    """Chunk and split: what is there says how long each part is."""
    source, given = _source(call), arguments(call)
    axis = integer(given["dim"]) % rank(source)
    sizes = given.get("split_size", given.get("split_sizes"))
    whole = source.shape[axis] if source.shape is not None else None
    if isinstance(sizes, (tuple, list)):
        lengths = integers(sizes)
    elif not isinstance(whole, int):
        raise NotUnderstood
    else:
        each = -(-whole // integer(given["chunks"])) if "chunks" in given else integer(sizes)
        lengths = [min(each, whole - start) for start in range(0, whole, each)]
    if len(lengths) != len(call.outputs):
        raise NotUnderstood
    graph.node(
        "Split", [graph.value(source), graph.integers(lengths)], list(call.outputs), axis=axis
    )


def _unbind(graph: Surrogate, call: Call) -> None:
    source = _source(call)
    axis = integer(arguments(call)["dim"]) % rank(source)
    for index, result in enumerate(call.outputs):
        if result is not None:
            _pick(graph, source, result, axis, index)


def _select(graph: Surrogate, call: Call) -> None:
    source, given = _source(call), arguments(call)
    axis = integer(given["dim"]) % rank(source)
    _pick(graph, source, only_output(call), axis, integer(given["index"]))


def _pick(graph: Surrogate, source: Datum, result: Datum, axis: int, index: int) -> None:
    shape = list(source.shape or ())
    shape[axis] = 1
    value = graph.between(result, shape, f"part{index}")
    end = index + 1 if index != -1 else np.iinfo(np.int64).max
    bounds = [graph.integers([number]) for number in (index, end, axis)]
    graph.node("Slice", [graph.value(source), *bounds], [value])
    graph.node("Squeeze", [value, graph.integers([axis])], [result])


def _slice(graph: Surrogate, call: Call) -> None:
    source, given = _source(call), arguments(call)
    axis = integer(given["dim"]) % rank(source)
    largest = np.iinfo(np.int64).max
    start = 0 if given["start"] is None else integer(given["start"])
    if "length" in given:  # narrow
        end, step = start + integer(given["length"]), 1
    else:
        end = largest if given["end"] is None else integer(given["end"])
        step = integer(given["step"])
    bounds = [graph.integers([number]) for number in (start, end, axis, step)]
    graph.node("Slice", [graph.value(source), *bounds], [only_output(call)])


def _index_select(graph: Surrogate, call: Call) -> None:
    source, given = _source(call), arguments(call)
    axis = integer(given["dim"]) % rank(source)
    chosen = tensor(given["index"])
    if chosen.tensor is None:
        raise NotUnderstood
    indices = graph.integers([int(i) for i in chosen.tensor.reshape(-1)])
    graph.block(chosen, "is also read as indices")
    graph.node("Gather", [graph.value(source), indices], [only_output(call)], axis=axis)


def _pad(graph: Surrogate, call: Call) -> None:
    source, given = _source(call), arguments(call)
    flat = integers(given.get("pad", given.get("padding")))
    mode = _MODES[call.op] if call.op in _MODES else _MODES.get(str(given.get("mode")))
    if mode is None or len(flat) % 2:
        raise NotUnderstood
    begins, ends = [0] * rank(source), [0] * rank(source)
    for place in range(len(flat) // 2):
        axis = rank(source) - 1 - place
        begins[axis], ends[axis] = flat[2 * place], flat[2 * place + 1]
    inputs = [graph.value(source), graph.integers([*begins, *ends])]
    fill = given.get("value")
    if mode == "constant" and fill:
        if not isinstance(fill, (int, float)):
            raise NotUnderstood
        kind = KINDS.get(source.dtype, 0)
        inputs.append(graph.constant(np.array(fill, np.float64), kind))
    graph.node("Pad", inputs, [only_output(call)], mode=mode)


_MODES = {
    "constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap",
    "constant_pad_nd": "constant", "zero_pad2d": "constant",
    "reflection_pad1d": "reflect", "reflection_pad2d": "reflect", "reflection_pad3d": "reflect",
    "replication_pad1d": "edge", "replication_pad2d": "edge", "replication_pad3d": "edge",
}  # fmt: skip


def _pixel_shuffle(graph: Surrogate, call: Call) -> None:
    factor = integer(arguments(call)["upscale_factor"])
    source = _source(call)
    if rank(source) != 4:
        raise NotUnderstood
    graph.node(
        "DepthToSpace", [graph.value(source)], [only_output(call)], blocksize=factor, mode="CRD"
    )


def _pixel_unshuffle(graph: Surrogate, call: Call) -> None:
    """(N, C, H r, W r) -> (N, C, H, r, W, r) -> (N, C, r, r, H, W) -> (N, C r r, H, W)."""
    factor = integer(arguments(call)["downscale_factor"])
    source = _source(call)
    if rank(source) != 4 or source.shape is None:
        raise NotUnderstood
    n, c = source.shape[:2]
    h, w = length(source, 2) // factor, length(source, 3) // factor
    steps = [(n, c, h, factor, w, factor), (n, c, factor, factor, h, w)]
    _shuffle(graph, call, steps, [0, 1, 3, 5, 2, 4])


def _channel_shuffle(graph: Surrogate, call: Call) -> None:
    """(N, g k, ...) -> (N, g, k, ...) -> (N, k, g, ...) -> (N, k g, ...)."""
    source, groups = _source(call), integer(arguments(call)["groups"])
    shape = source.shape
    if shape is None or len(shape) < 3:
        raise NotUnderstood
    each, rest = length(source, 1) // groups, shape[2:]
    steps = [(shape[0], groups, each, *rest), (shape[0], each, groups, *rest)]
    _shuffle(graph, call, steps, [0, 2, 1, *range(3, len(rest) + 3)])


def _shuffle(
    graph: Surrogate, call: Call, steps: Sequence[tuple[int | str, ...]], order: list[int]
) -> None:
    result = only_output(call)
    before = graph.between(result, steps[0], "split")
    after = graph.between(result, steps[1], "moved")
    graph.node("Reshape", [graph.value(_source(call))], [before])
    graph.node("Transpose", [before], [after], perm=order)
    graph.node("Reshape", [after], [result])


def _shape(graph: Surrogate, call: Call) -> None:
    graph.node("Shape", [graph.value(_source(call))], list(call.outputs))


OPERATORS: dict[str, Translate] = {
    **dict.fromkeys(
        ("alias", "clone", "contiguous", "detach", "lift_fresh", "positive"), _identity
    ),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"),
        _reshape,
    ),
    **dict.fromkeys(("sym_size", "sym_numel", "size"), _shape),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "t": _t,
    "movedim": _moved,
    "expand": _expand,
    "expand_as": _expand,
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _split,
    "unbind": _unbind,
    "select": _select,
    "slice": _slice,
    "narrow": _slice,
    "index_select": _index_select,
    **dict.fromkeys(("pad", *_MODES), _pad),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
}
