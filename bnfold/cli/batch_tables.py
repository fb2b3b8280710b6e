"""Many models in short: a line for each, and a table of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from bnfold.cli.console import printable
from bnfold.cli.layout import columns, size

__all__ = ["model_line", "summary_tables"]

_COLOURS = {"written": "green", "up to date": "green", "inspected": "green"}
_BY_EXIT_CODE = {3: "not equivalent", 130: "interrupted"}


def model_line(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the object of one model in one line."""
    line = Text(printable(str(found["model"])), style="bold")
    parts = [f"folded {_folded(found)}", _equivalent(found), _outcome(found), _seconds(found)]
    return [line.append(": " + ", ".join(filter(None, parts)), style="not bold")]


def summary_tables(objects: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return the objects of all models, one row for each, and how many came to what."""
    table = columns("model", "folded", "merged", "equivalent", "size", "seconds", "outcome")
    counts: Counter[str] = Counter()
    for found in objects:
        outcome = _outcome(found)
        counts[outcome] += 1
        table.add_row(
            Text(printable(str(found["model"]))),
            _folded(found),
            str(found.get("summary", {}).get("merged", "")),
            _equivalent(found),
            _size(found),
            _seconds(found).removesuffix(" s"),
            Text(outcome, style=_COLOURS.get(outcome, "red")),
        )
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return [Text(f"{len(objects)} models", style="bold"), table, Text(said)]


def _outcome(found: Mapping[str, Any]) -> str:
    if "error" in found:
        code = found["error"]["exit_code"]
        return _BY_EXIT_CODE.get(code, f"failed ({code})")
    if found.get("up_to_date"):
        return "up to date"
    return "inspected" if found["output"] is None else "written"


def _folded(found: Mapping[str, Any]) -> str:
    summary = found.get("summary")
    return f"{summary['folded']} of {summary['sites']}" if summary else ""


def _equivalent(found: Mapping[str, Any]) -> str:
    checks = found["checks"]
    if not checks:
        return ""
    return "equivalent" if all(check["equivalent"] for check in checks) else "not equivalent"


def _size(found: Mapping[str, Any]) -> str:
    summary = found.get("summary", {})
    before, after = summary.get("bytes_before"), summary.get("bytes_after")
    return "" if before is None or after is None else f"{size(before)} -> {size(after)}"


def _seconds(found: Mapping[str, Any]) -> str:
    return f"{found['seconds']:.1f} s"
