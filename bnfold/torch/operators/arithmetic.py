"""Elementwise arithmetic, activations, selections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bnfold.torch.operators.arguments import Translate, arguments, only_output, tensor
from bnfold.torch.surrogate import KINDS, NotUnderstood, Surrogate
from bnfold.torch.trace import Call, Datum

__all__ = ["OPERATORS"]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotUnderstood
    return float(value)


def _binary(graph: Surrogate, call: Call) -> None:
    given, result = arguments(call), only_output(call)
    left, right = given.get("self"), given.get("other")
    if given.get("rounding_mode") is not None:
        raise NotUnderstood
    op = _BINARY[call.op]
    if call.op == "rsub":
        left, right = right, left
    factor = _number(given.get("alpha", 1))
    if factor != 1.0 and isinstance(right, Datum):
        if call.op == "rsub":
            raise NotUnderstood
        scaled = graph.between(result, right.shape, "scaled")
        multiply = graph.node("Mul", [None, _scalar(graph, factor, result)], [scaled])
        graph.parameter(multiply, 0, _same_type(right, result))
        node = graph.node(op, [None, scaled], [result])
        graph.parameter(node, 0, _same_type(left, result))
        return
    if factor != 1.0:
        right = _number(right) * factor
    node = graph.node(op, [None, None], [result])
    for index, operand in enumerate((left, right)):
        if isinstance(operand, Datum):
            graph.parameter(node, index, _same_type(operand, result))
        else:
            graph.graph.connect(node, index, _scalar(graph, _number(operand), result))


def _same_type(value: Any, result: Datum) -> Datum:
    """An operand that is not converted on the way."""
    datum = tensor(value)
    if datum.dtype != result.dtype:
        raise NotUnderstood
    return datum


def _scalar(graph: Surrogate, number: float, like: Datum) -> Any:
    kind = KINDS.get(like.dtype)
    if kind is None:
        raise NotUnderstood
    return graph.constant(np.array(number, np.float64), kind)


_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "rsub": "Sub",
           "multiply": "Mul", "subtract": "Sub", "divide": "Div", "true_divide": "Div"}  # fmt: skip


def _unary(op: str) -> Translate:
    def translate(graph: Surrogate, call: Call) -> None:
        source = tensor(call.args[0] if call.args else None)
        graph.node(op, [graph.value(source)], [only_output(call)])

    return translate


def _leaky_relu(graph: Surrogate, call: Call) -> None:
    source = tensor(call.args[0])
    slope = _number(arguments(call).get("negative_slope", 0.01))
    graph.node("LeakyRelu", [graph.value(source)], [only_output(call)], alpha=slope)


def _prelu(graph: Surrogate, call: Call) -> None:
    source, weight = tensor(call.args[0]), tensor(call.args[1])
    graph.block(weight, f'is also read by "{call.name}" (prelu)')
    graph.node("PRelu", [graph.value(source), graph.value(weight)], [only_output(call)])


def _clamp(graph: Surrogate, call: Call) -> None:
    """Clamping at zero from below is a Relu; at any other bound nothing passes."""
    given = arguments(call)
    low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
    bounds = [-math.inf if low is None else _number(low), math.inf if high is None else high]
    if bounds[0] != 0.0 or _number(bounds[1]) != math.inf:
        raise NotUnderstood
    graph.node("Relu", [graph.value(tensor(call.args[0]))], [only_output(call)])


def _threshold(graph: Surrogate, call: Call) -> None:
    given = arguments(call)
    if _number(given["threshold"]) != 0.0 or _number(given["value"]) != 0.0:
        raise NotUnderstood
    graph.node("Relu", [graph.value(tensor(call.args[0]))], [only_output(call)])


def _where(graph: Surrogate, call: Call) -> None:
    given, result = arguments(call), only_output(call)
    if not isinstance(given.get("self"), Datum) or not isinstance(given.get("other"), Datum):
        raise NotUnderstood
    condition = tensor(given["condition"])
    graph.block(condition, "is also read as a condition")
    node = graph.node("Where", [graph.value(condition), None, None], [result])
    graph.parameter(node, 1, _same_type(given["self"], result))
    graph.parameter(node, 2, _same_type(given["other"], result))


OPERATORS: dict[str, Translate] = {
    **dict.fromkeys(_BINARY, _binary),
    "neg": _unary("Neg"),
    "negative": _unary("Neg"),
    "relu": _unary("Relu"),
    "abs": _unary("Abs"),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "hardtanh": _clamp,
    "threshold": _threshold,
    "where": _where,
}
