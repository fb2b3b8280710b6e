"""Sizes that hang on others: exporters name a dimension ``past + sequence``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

__all__ = ["evaluate", "symbols_of"]

_ARITHMETIC = (
    *(ast.Name, ast.Constant, ast.BinOp, ast.Load),
    *(ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div),
)


def evaluate(dim: str, sizes: Mapping[Any, int]) -> int:
    """Return the size that a symbol or an expression stands for; a negative one is 0.

    Args:
        dim: A symbol, or an expression that :func:`symbols_of` takes apart.
        sizes: Sizes by symbol: of this one, or of all in the expression.
    """
    if dim in sizes:
        return sizes[dim]
    return max(_value(ast.parse(dim, mode="eval").body, sizes), 0)


def symbols_of(dim: str) -> set[str]:
    """Return the symbols of a size such as ``past + 1``; a plain name is its own only symbol."""
    try:
        tree = ast.parse(dim, mode="eval")
    except (SyntaxError, ValueError):
        return {dim}
    nodes = list(ast.walk(tree.body))
    constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
    if not all(isinstance(node, _ARITHMETIC) for node in nodes) or any(
        not isinstance(constant, int) for constant in constants
    ):
        return {dim}
    return {node.id for node in nodes if isinstance(node, ast.Name)} or {dim}


def _value(node: ast.expr, sizes: Mapping[Any, int]) -> int:
    match node:
        case ast.Name(name):
            return sizes[name]
        case ast.Constant(int(value)):
            return value
        case ast.BinOp(left, operator, right):
            first, second = _value(left, sizes), _value(right, sizes)
            match operator:
                case ast.Add():
                    return first + second
                case ast.Sub():
                    return first - second
                case ast.Mult():
                    return first * second
                case _:
                    return first // max(second, 1)
        case _:
            return 1
