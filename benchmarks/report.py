"""What was measured, as Markdown tables and plots."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.fold_cost import COPY
from benchmarks.peers import OURS, versions

__all__ = [
    "cost_plot",
    "cost_table",
    "latency_plot",
    "latency_table",
    "machine",
    "replace_part",
]

Row = dict[str, Any]


def machine() -> str:
    """Return versions, machine and day, as a sentence."""
    found = ", ".join(f"{tool} {version}" for tool, version in versions().items())
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}), "
        f"Python {platform.python_version()}, {found}. "
        f"Measured on {dt.datetime.now(dt.UTC):%Y-%m-%d}."
    )


def latency_table(rows: Iterable[Row]) -> str:
    """Return one line for each result of each tool."""
    lines = [
        "| network | made by | nodes | BN | equal | D/noise | median, ms | times bnfold (99 %) "
        "| fold, s | fold, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['network']} | {row['tool']} |"
        if "ms" not in row:
            lines.append(f"{start} | | failed: {row['error']} | | | | | |")
            continue
        against = row.get("against_ours")
        ratio = "" if against is None else "{:.2f} ({:.2f} to {:.2f})".format(*against)
        equal = {True: "yes", False: "**no**", None: "not run"}[row["equivalent"]]
        noise = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
        cost = f"{row['fold_seconds']:.2f} | {row['fold_mb']:.0f}" if "fold_mb" in row else " | "
        lines.append(
            f"{start} {row['nodes']} | {row['norms']} | {equal} | {noise} | {row['ms']:.2f} "
            f"| {ratio} | {cost} |"
        )
    return "\n".join(lines)


def cost_table(rows: Iterable[Row]) -> str:
    """Return one line for each tool on each model."""
    lines = ["| model | tool | s | times bnfold | memory, MB |", "|---|---|---|---|---|"]
    for row in rows:
        start = f"| {_title(row)} | {row['tool']} |"
        if "error" in row:
            lines.append(f"{start} failed: {row['error']} | | |")
            continue
        ratio = "" if row["tool"] == OURS else f"{row['times_ours']:.2f}"
        seconds = f"{row['seconds']:.3f}" if row["seconds"] < 1 else f"{row['seconds']:.2f}"
        lines.append(f"{start} {seconds} | {ratio} | {row['memory_mb']:.0f} |")
    return "\n".join(lines)


def _title(row: Row) -> str:
    if row["kind"] == "help":
        return "`--help`"
    if row["kind"] == "nodes":
        return f"{row['nodes']:,} nodes"
    return f"{row['megabytes']:,} MB" + (", external data" if row["kind"] == "external" else "")


def latency_plot(rows: Iterable[Row], path: Path) -> None:
    """Plot how much longer the results of the other tools run, with the intervals."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if "against_ours" in row]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    tools = list(dict.fromkeys(row["tool"] for row in rows))
    figure = Figure(figsize=(9, 0.45 * len(networks) + 1.5), layout="constrained")
    axes = figure.subplots()
    for number, tool in enumerate(tools):
        mine = [row for row in rows if row["tool"] == tool]
        ratios = [row["against_ours"] for row in mine]
        offset = (number - (len(tools) - 1) / 2) * 0.8 / len(tools)
        axes.errorbar(
            [ratio for ratio, _, _ in ratios],
            [networks.index(row["network"]) + offset for row in mine],
            xerr=[
                [ratio - low for ratio, low, _ in ratios],
                [high - ratio for ratio, _, high in ratios],
            ],
            fmt="o",
            markersize=3,
            linewidth=1,
            label=tool,
        )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"])
    axes.set_yticks(range(len(networks)), networks)
    axes.invert_yaxis()
    axes.set_xlabel("latency, times that of bnfold's result (99 % interval)")
    axes.grid(axis="x", linewidth=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def cost_plot(rows: Iterable[Row], path: Path) -> None:
    """Plot time and memory of a fold against the size of the model."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if "megabytes" in row and "seconds" in row]
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, label in zip(panels, ("seconds", "memory_mb"), ("s", "MB"), strict=True):
        for tool in dict.fromkeys(row["tool"] for row in rows):
            points = sorted((row["megabytes"], row[key]) for row in rows if row["tool"] == tool)
            style = {COPY: {"color": "grey", "linestyle": ":"}, OURS: {"color": "black"}}
            axes.plot(*zip(*points, strict=True), marker="o", label=tool, **style.get(tool, {}))
        axes.set(xscale="log", yscale="log", xlabel="size of the model, MB", ylabel=label)
        axes.grid(linewidth=0.3)
    panels[0].legend(fontsize="small", loc="upper left")
    panels[0].set_title("time of the whole process")
    panels[1].set_title("largest resident memory")
    figure.savefig(path, metadata={"Date": None})


def replace_part(page: str, name: str, text: str) -> str:
    """Put a text between the two comments that name it."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"the page has no place for: {name}")
    return pattern.sub(lambda _: begin + text + end, page)
