"""Benchmarks as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnfold.cli.console import printable
from bnfold.cli.layout import columns, size

if TYPE_CHECKING:
    from bnfold.benchmark.report import BenchReport, Speed

__all__ = ["bench_tables"]


def bench_tables(report: BenchReport) -> list[RenderableType]:
    """Return latencies, one table for each setting, and what the models cost besides time."""
    tables: list[RenderableType] = []
    settings = list(dict.fromkeys(map(_conditions, report.speeds)))
    for conditions in settings:
        tables.append(Text(printable(conditions), style="bold"))
        table = columns("model", "median", "5 % to 95 %", "samples/s", "ratio", "99 % interval", "")
        for speed in report.speeds:
            if _conditions(speed) == conditions:
                _add_speed(table, speed)
        tables.append(table)
    if report.footprints:
        table = columns("model", "load", "memory")
        for footprint in report.footprints:
            table.add_row(
                Text(printable(footprint.model)),
                f"{footprint.load_ms:.1f} ms",
                size(footprint.memory_bytes),
            )
        tables += [Text("load time, and memory for loading and one run", style="bold"), table]
    return tables


def _conditions(speed: Speed) -> str:
    setting = speed.setting
    shapes = [f"{name} {'x'.join(map(str, shape))}" for name, shape in setting.shapes.items()]
    provider = setting.provider.replace("ExecutionProvider", "")
    threads = f"{setting.threads} threads, " if setting.threads else ""
    return f"{provider}, level {setting.level}, {threads}{', '.join(shapes) or 'no inputs'}"


def _add_speed(table: Table, speed: Speed) -> None:
    latency, interval = speed.latency, speed.interval
    styles = {"faster": "green", "slower": "red"}
    table.add_row(
        Text(printable(speed.model)),
        f"{latency.median:.3g} ms",
        f"{latency.low:.3g} to {latency.high:.3g}",
        "" if speed.throughput is None else f"{speed.throughput:.4g}",
        "" if speed.ratio is None else f"{speed.ratio:.3f}",
        "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        Text(speed.verdict or "", style=styles.get(speed.verdict or "", "dim")),
    )
