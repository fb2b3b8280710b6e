"""How tables look, and that they go to stderr."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.report.render.text import size

__all__ = ["columns", "print_tables", "size"]

PLAIN_WIDTH = 160
"""Columns where stderr is not a terminal."""


def print_tables(tables: Iterable[RenderableType]) -> None:
    """Print on stderr; colours on a terminal only, and not where ``NO_COLOR`` is set."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for position, part in enumerate(tables):
        margin = 2 if position else 0
        if isinstance(part, Text):
            console.print(" " * margin, part, sep="", soft_wrap=True)
        else:
            console.print(Padding(part, (0, 0, 0, margin), expand=False))


def columns(*names: str) -> Table:
    """Return an empty table with these columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
