"""The arguments of a call by name, and the checks that translators share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnfold.torch.surrogate import NotUnderstood, Surrogate
from bnfold.torch.trace import Call, Datum

__all__ = [
    "Translate",
    "arguments",
    "integer",
    "integers",
    "length",
    "only_output",
    "rank",
    "tensor",
]

Translate = Callable[[Surrogate, Call], None]


def arguments(call: Call) -> dict[str, Any]:
    """All arguments by the names of the schema, defaults filled in."""
    schema = call.target._schema  # noqa: SLF001 - where torch keeps it
    named: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(call.args):
            named[argument.name] = call.args[position]
        elif argument.name in call.kwargs:
            named[argument.name] = call.kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
        else:
            raise NotUnderstood
    return named


def tensor(value: Any) -> Datum:
    """A tensor of known rank."""
    if not isinstance(value, Datum) or value.shape is None:
        raise NotUnderstood
    return value


def only_output(call: Call) -> Datum:
    """The result of a call that has one, of known rank."""
    if len(call.outputs) != 1:
        raise NotUnderstood
    return tensor(call.outputs[0])


def rank(datum: Datum) -> int:
    """The number of axes."""
    if datum.shape is None:
        raise NotUnderstood
    return len(datum.shape)


def length(datum: Datum, axis: int) -> int:
    """The length of an axis, where it is a number."""
    found = None if datum.shape is None else datum.shape[axis]
    return integer(found)


def integer(value: Any) -> int:
    """A plain int: no symbol, no tensor."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotUnderstood
    return value


def integers(value: Any, count: int | None = None) -> list[int]:
    """A list of plain ints; a single one counts for all of ``count``."""
    if isinstance(value, int):
        value = [value]
    if not isinstance(value, (tuple, list)):
        raise NotUnderstood
    numbers = [integer(item) for item in value]
    if count is not None and len(numbers) == 1:
        numbers *= count
    if count is not None and len(numbers) != count:
        raise NotUnderstood
    return numbers
