"""Convolutions and matrix products."""

from __future__ import annotations

from typing import Any

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
from bnfold.torch.surrogate import NotUnderstood, Surrogate
from bnfold.torch.trace import Call, Datum

__all__ = ["OPERATORS"]


def _conv(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    weight = tensor(given["weight"])
    spatial = rank(weight) - 2
    padding = given["padding"]
    stride = integers(given["stride"], spatial)
    dilation = integers(given["dilation"], spatial)
    if padding == "valid":
        pads = [0] * (2 * spatial)
    elif padding == "same":
        reach = [d * (length(weight, 2 + i) - 1) for i, d in enumerate(dilation)]
        pads = [each // 2 for each in reach] + [each - each // 2 for each in reach]
    else:
        pads = integers(padding, spatial) * 2
    options = {"strides": stride, "dilations": dilation, "pads": pads}
    _convolution(graph, call, "Conv", given, options)


def _conv_transpose(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    spatial = rank(tensor(given["weight"])) - 2
    options = {
        "strides": integers(given["stride"], spatial),
        "dilations": integers(given["dilation"], spatial),
        "pads": integers(given["padding"], spatial) * 2,
        "output_padding": integers(given["output_padding"], spatial),
    }
    _convolution(graph, call, "ConvTranspose", given, options)


def _either(graph: Surrogate, call: Call) -> None:
    """aten.convolution, into which the others are decomposed."""
    given = arguments(call)
    if given["transposed"]:
        _conv_transpose(graph, call)
    else:
        _conv(graph, call)


def _convolution(
    graph: Surrogate, call: Call, op: str, given: dict[str, Any], options: dict[str, list[int]]
) -> None:
    source, weight = tensor(given["input"]), tensor(given["weight"])
    result, groups = only_output(call), integer(given["groups"])
    if rank(source) != rank(weight) or not rank(weight) > 2:
        raise NotUnderstood
    channels = length(weight, 1) * groups if op == "ConvTranspose" else length(weight, 0)
    node = graph.node(op, [graph.value(source), None], [result], group=groups, **options)
    graph.parameter(node, 1, weight)
    if given["bias"] is None:
        graph.created(node, 2, weight, channels, zeros=False)
    else:
        graph.parameter(node, 2, tensor(given["bias"]))


def _linear(graph: Surrogate, call: Call) -> None:
    """X W' + b, as a MatMul and an Add: that is how it acts at every rank."""
    given = arguments(call)
    source, weight, bias = tensor(given["input"]), tensor(given["weight"]), given["bias"]
    _product(graph, call, (source, weight, bias), transposed=True)


def _addmm(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    if given["alpha"] != 1 or given["beta"] != 1:
        raise NotUnderstood
    bias, source, weight = (tensor(given[name]) for name in ("self", "mat1", "mat2"))
    if rank(bias) != 1:
        raise NotUnderstood
    _product(graph, call, (source, weight, bias), transposed=False)


def _product(
    graph: Surrogate, call: Call, operands: tuple[Datum, Datum, Datum | None], *, transposed: bool
) -> None:
    source, weight, bias = operands
    result = only_output(call)
    if rank(source) < 2 or rank(weight) != 2:
        raise NotUnderstood
    product = graph.between(result, result.shape, "product")
    matmul = graph.node("MatMul", [graph.value(source), None], [product])
    graph.parameter(matmul, 1, weight, transposed=transposed)
    add = graph.node("Add", [product, None], [result])
    if bias is None:
        graph.created(add, 1, weight, length(weight, 0 if transposed else 1), zeros=True)
    else:
        graph.parameter(add, 1, bias)


def _mm(graph: Surrogate, call: Call) -> None:
    """A product with a constant matrix on the right is a linear layer without a bias."""
    left, right = (tensor(value) for value in list(call.args)[:2])
    if right.tensor is None or left.tensor is not None:
        _matmul(graph, call)
    else:
        _product(graph, call, (left, right, None), transposed=False)


def _matmul(graph: Surrogate, call: Call) -> None:
    left, right = (tensor(value) for value in list(call.args)[:2])
    if min(rank(left), rank(right)) < 2:
        raise NotUnderstood
    node = graph.node("MatMul", [None, None], [only_output(call)])
    graph.parameter(node, 0, left)
    graph.parameter(node, 1, right)


OPERATORS: dict[str, Translate] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "conv_transpose1d": _conv_transpose,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose3d": _conv_transpose,
    "convolution": _either,
    "linear": _linear,
    "addmm": _addmm,
    "mm": _mm,
    "bmm": _matmul,
    "matmul": _matmul,
}
