"""Text of reports: names out of models are shown, never obeyed."""

from __future__ import annotations

from typing import Any

__all__ = ["counted", "number", "printable", "provider_name", "readable", "size"]


def printable(text: str) -> str:
    """Return the text with line breaks, escapes and other control characters spelled out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def readable(value: Any) -> Any:
    """Return a JSON value with every string in it `printable`, keys included.

    What is left has no character that XML, HTML or UTF-8 forbids, and none that turns the
    direction of text.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    return value


def number(value: float | None) -> str:
    """Return a measured number with two digits; JSON has null for what is not finite."""
    if value is None:
        return "not finite"
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.2g}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 site`` or ``2 sites``."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def provider_name(provider: str) -> str:
    """Return ``CPU`` for ``CPUExecutionProvider``."""
    return provider.removesuffix("ExecutionProvider")
