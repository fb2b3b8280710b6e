"""Arguments of a model's factory, as the command line takes them."""

from __future__ import annotations

import ast
from typing import Any

from bnfold.errors import InputError

__all__ = ["parse_arch_args"]


def parse_arch_args(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read ``key=value`` pairs; values are Python literals, or else strings.

    Raises:
        InputError: One has no ``=``.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(
                f"--arch-args: '{pair}' is not of the form key=value",
                hint="for example --arch-args num_classes=10",
            )
        try:
            arguments[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            arguments[key] = text
    return arguments
