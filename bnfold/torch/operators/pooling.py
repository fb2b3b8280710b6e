"""Pools, reductions, resizing."""

from __future__ import annotations

import torch

from bnfold.torch.operators.arguments import (
    Translate,
    arguments,
    integers,
    only_output,
    rank,
    tensor,
)
from bnfold.torch.surrogate import NotUnderstood, Surrogate
from bnfold.torch.trace import Call, Datum

__all__ = ["OPERATORS"]


def _input(call: Call, *, spatial: int | None = None) -> Datum:
    source = tensor(call.args[0] if call.args else None)
    if spatial is not None and rank(source) != spatial + 2:
        raise NotUnderstood  # without a batch axis, axis 1 is no channel
    return source


def _average_pool(graph: Surrogate, call: Call) -> None:
    """Without padding every window averages what is there, also with ceil_mode."""
    spatial = int(call.op[len("avg_pool")])
    source, given = _input(call, spatial=spatial), arguments(call)
    if given.get("divisor_override") is not None:
        raise NotUnderstood
    pads = integers(given["padding"], spatial) * 2
    counted = bool(given["count_include_pad"]) and any(pads)
    graph.node(
        "AveragePool",
        [graph.value(source)],
        [only_output(call)],
        kernel_shape=integers(given["kernel_size"], spatial),
        pads=pads,
        count_include_pad=int(counted),
    )


def _adaptive_average_pool(graph: Surrogate, call: Call) -> None:
    spatial = int(call.op.split("pool")[1][0])
    source = _input(call, spatial=spatial)
    graph.node("AveragePool", [graph.value(source)], [only_output(call)], pads=[0] * 2 * spatial)


def _max_pool(graph: Surrogate, call: Call) -> None:
    spatial = int(call.op.split("pool")[1][0])
    source = _input(call, spatial=spatial)
    graph.node("MaxPool", [graph.value(source)], list(call.outputs))


def _reduction(graph: Surrogate, call: Call, op: str) -> None:
    source, result, given = _input(call), tensor(call.outputs[0]), arguments(call)
    if source.dtype != result.dtype or given.get("dtype") not in (None, result.dtype):
        raise NotUnderstood
    axes = given.get("dim")
    chosen = list(range(rank(source))) if axes is None else integers(axes)
    chosen = [axis % rank(source) for axis in chosen] or list(range(rank(source)))
    keep = int(bool(given.get("keepdim", False)))
    inputs = [graph.value(source), graph.integers(chosen)]
    graph.node(op, inputs, [result], keepdims=keep)


def _mean(graph: Surrogate, call: Call) -> None:
    _reduction(graph, call, "ReduceMean")


def _sum(graph: Surrogate, call: Call) -> None:
    _reduction(graph, call, "ReduceSum")


def _amax(graph: Surrogate, call: Call) -> None:
    _reduction(graph, call, "ReduceMax")


def _amin(graph: Surrogate, call: Call) -> None:
    _reduction(graph, call, "ReduceMin")


def _max(graph: Surrogate, call: Call) -> None:
    """Max and min along an axis, where nobody reads the indices."""
    schema = str(call.target._schema.name)  # noqa: SLF001 - where torch keeps it
    operands = [value for value in call.args if isinstance(value, Datum)]
    if len(operands) == 2 or (len(call.outputs) > 1 and call.outputs[1] is not None):
        if len(operands) == 2 and len(call.outputs) == 1:
            _extremum(graph, call)
            return
        raise NotUnderstood
    _reduction(graph, call, "ReduceMax" if schema.endswith("max") else "ReduceMin")


def _extremum(graph: Surrogate, call: Call) -> None:
    left, right = tensor(call.args[0]), tensor(call.args[1])
    result = only_output(call)
    if left.dtype != result.dtype or right.dtype != result.dtype:
        raise NotUnderstood
    node = graph.node("Max" if "max" in call.op else "Min", [None, None], [result])
    graph.parameter(node, 0, left)
    graph.parameter(node, 1, right)


def _resize(graph: Surrogate, call: Call) -> None:
    """Every mode of torch interpolates with weights that sum to 1, and leaves axes 0 and 1."""
    source, result = _input(call), only_output(call)
    axes = list(range(2, rank(source)))
    if source.dtype is torch.uint8:
        raise NotUnderstood
    graph.node("Resize", [graph.value(source)], [result], axes=axes)


OPERATORS: dict[str, Translate] = {
    **{f"avg_pool{n}d": _average_pool for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _adaptive_average_pool for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _adaptive_average_pool for n in (2, 3)},
    **{f"max_pool{n}d": _max_pool for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _max_pool for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _max_pool for n in (1, 2, 3)},
    "mean": _mean,
    "sum": _sum,
    "amax": _amax,
    "amin": _amin,
    "max": _max,
    "min": _max,
    "maximum": _extremum,
    "minimum": _extremum,
    **dict.fromkeys(
        (
            "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
            "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
            "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
            "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
        ),
        _resize,
    ),
}  # fmt: skip
