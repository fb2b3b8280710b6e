"""Expressions in exported programs: PyTorch evaluates them as Python, and SymPy computes with them.

So they may be arithmetic alone, and no more of it than takes SymPy a moment: a tower of powers
ends no more than a program can.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence

__all__ = ["is_harmless"]

MAX_BITS = 4096
"""How long the constants of an expression may become."""

MAX_TERMS = 1024
"""How many terms an expression may have when it is multiplied out."""

_ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name),
    *(ast.Constant, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Load),
    *(ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_FUNCTIONS = {
    *("Abs", "Add", "And", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or", "CeilDiv"),
    *("CeilToInt", "CleanDiv", "Eq", "Equality", "Float", "FloatPow", "FloatTrueDiv", "FloorDiv"),
    *("FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv", "Integer", "LShift"),
    *("Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne", "Not", "Or"),
    *("Piecewise", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational", "RoundToInt"),
    *("StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt"),
    *("Tuple", "Unequality", "Where", "ceiling", "dim", "floor", "len", "size", "sqrt", "stride"),
    "storage_offset",
}
_ASSUMPTIONS = {
    "commutative",
    "integer",
    "negative",
    "nonnegative",
    "positive",
    "precision",
    "real",
}
_SUMS = {"Add", "Tuple"}
_POWERS = {"FloatPow", "LShift", "Pow", "PowByNatural"}
_NUMBERS = {"Float", "Integer"}
_PRODUCTS = {"Mul", "Rational", "Symbol", *_NUMBERS}

_Size = tuple[int, float]
"""Terms of an expression, and bits of its longest constant."""

_ENDLESS: _Size = (MAX_TERMS + 1, math.inf)


def is_harmless(text: object) -> bool:
    """Whether a text is an expression of names, sizes and functions of shapes, quickly computed.

    Raises:
        RecursionError: It is nested too deeply.
    """
    if not isinstance(text, str):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, MemoryError):
        return False
    if not all(map(_is_arithmetic, ast.walk(tree))):
        return False
    terms, bits = _size(tree.body)
    return terms <= MAX_TERMS and bits <= MAX_BITS


def _is_arithmetic(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name.startswith("_"):
            return False
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _FUNCTIONS
        case ast.Call():
            return False
        case ast.keyword():
            return node.arg in _ASSUMPTIONS
        case ast.Constant(value=str(text)):  # SymPy evaluates text that it is given, again
            return text.isidentifier() and not text.startswith("_")
    return isinstance(node, _ALLOWED)


def _size(node: ast.AST) -> _Size:
    match node:
        case ast.Constant(value=int(number)):
            return 1, number.bit_length()
        case ast.UnaryOp():
            return _size(node.operand)
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            return _sum(parts)
        case ast.Compare():
            return _sum([node.left, *node.comparators])
        case ast.Subscript():
            return _sum([node.value, node.slice])
        case ast.BinOp(left=left, right=right):
            if not (_is_number(left) and _is_number(right)):
                return _ENDLESS  # of a tuple or a text, which repeats
            match node.op:
                case ast.Add() | ast.Sub():
                    return _sum([left, right])
                case ast.Pow() | ast.LShift():
                    return _power(left, right)
            return _product([left, right])
        case ast.Call():
            return _size_of_call(node)
    return 1, 1


def _size_of_call(node: ast.Call) -> _Size:
    match node.func, node.args:
        case ast.Name(id=name), [base, exponent] if name in _POWERS:
            return _power(base, exponent)
        case ast.Name(id=name), parts if name in _SUMS:
            return _sum(parts)
        case ast.Name(id=name), parts if name in _PRODUCTS:
            return _product(parts)
    return _cases(node.args)


def _is_number(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str()) | ast.Tuple() | ast.List() | ast.Attribute():
            return False
        case ast.Call(func=ast.Name(id="Tuple") | ast.Attribute()):
            return False
        case ast.Subscript(value=inner):
            return not isinstance(inner, ast.Tuple | ast.List)
    return True


def _sum(parts: Sequence[ast.AST]) -> _Size:
    sizes = [_size(part) for part in parts]
    return sum(terms for terms, _ in sizes), max((bits for _, bits in sizes), default=0) + 1


def _product(parts: Sequence[ast.AST]) -> _Size:
    sizes = [_size(part) for part in parts]
    return math.prod(terms for terms, _ in sizes), sum(bits for _, bits in sizes)


def _cases(parts: Sequence[ast.AST]) -> _Size:
    """The size of a function, which SymPy may take apart by what each argument can be."""
    terms, bits = _product(parts)
    return terms * 2 ** sum(_number(part) is None for part in parts), bits


def _power(base: ast.AST, exponent: ast.AST) -> _Size:
    (terms, bits), times = _size(base), _number(exponent)
    if times is None or abs(times) > MAX_BITS:
        return _ENDLESS
    return terms ** max(math.ceil(abs(times)), 1), bits * max(abs(times), 1)


def _number(node: ast.AST) -> float | None:
    match node:
        case ast.Constant(value=bool() | int() | float() as number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            negated = _number(operand)
            return None if negated is None else -negated
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _NUMBERS:
            return _number(argument)
        case ast.Call(func=ast.Name(id="Rational"), args=[ast.Constant(value=int(over)), _]):
            return float(over)
    return None
