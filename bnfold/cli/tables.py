"""Reports as tables for people, on stderr."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.cli.console import printable
from bnfold.report import BRANCH

if TYPE_CHECKING:
    from bnfold.benchmark.report import BenchReport, Speed
    from bnfold.report import CheckReport, FoldReport, OutputComparison, Verdict

__all__ = ["bench_tables", "check_tables", "fold_tables", "print_tables"]

MANY = 16
"""More rows than this are grouped."""
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


def fold_tables(report: FoldReport, *, every_site: bool = False) -> list[RenderableType]:
    """Return what there is to see of one model.

    Args:
        report: What was found and done.
        every_site: One row for each site, however many.
    """
    tables: list[RenderableType] = [_title(report)]
    if report.folded:
        tables.append(_folded(report.folded, grouped=_many(report.folded, every_site=every_site)))
    if report.kept:
        tables.append(_kept(report.kept, grouped=_many(report.kept, every_site=every_site)))
    if report.checks:
        tables.append(_proof(report.checks))
    tables.append(_outcome(report))
    return tables


def check_tables(title: str, checks: tuple[CheckReport, ...]) -> list[RenderableType]:
    """Return a comparison of two models: the worst output of each check, and every one that fails.

    Args:
        title: What was compared.
        checks: The comparisons.
    """
    equivalent = all(check.equivalent for check in checks)
    says = ("compute the same", "bold green") if equivalent else ("do NOT compute the same", "red")
    return [Text.assemble((printable(title), "bold"), " ", says), _proof(checks)]


def bench_tables(report: BenchReport) -> list[RenderableType]:
    """Return latencies, one table for each setting, and what the models cost besides time."""
    tables: list[RenderableType] = []
    settings = list(dict.fromkeys(map(_conditions, report.speeds)))
    for conditions in settings:
        tables.append(Text(printable(conditions), style="bold"))
        table = _table("model", "median", "5 % to 95 %", "samples/s", "ratio", "99 % interval", "")
        for speed in report.speeds:
            if _conditions(speed) == conditions:
                _add_speed(table, speed)
        tables.append(table)
    if report.footprints:
        table = _table("model", "load", "memory")
        for footprint in report.footprints:
            table.add_row(
                Text(printable(footprint.model)),
                f"{footprint.load_ms:.1f} ms",
                _size(footprint.memory_bytes),
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


def _many(sites: Sequence[Verdict], *, every_site: bool) -> bool:
    return len(sites) > MANY and not every_site


def _title(report: FoldReport) -> Text:
    title = Text(printable(report.model or "model"), style="bold")
    sites = [site for site in report.sites if site.kind != BRANCH]
    folded = [site for site in sites if site.folded]
    merged = len(report.merged)
    done = report.output is not None
    text = ": no batch normalization found"
    if sites:
        text = f": {'folded' if done else 'would fold'} {len(folded)} of {len(sites)}"
    if merged:
        branches = "1 branch" if merged == 1 else f"{merged} branches"
        text += f", {'merged' if done else 'would merge'} {branches}"
    color = "green" if len(folded) == len(sites) else "yellow"
    return title.append(text, style=f"not bold {color}" if sites else "not bold")


def _folded(sites: Sequence[Verdict], *, grouped: bool) -> Table:
    if grouped:
        table = _table("folded", "operator", "direction")
        counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        for site in sites:
            counts[site.kind, site.direction or ""] += 1
        for (kind, direction), count in counts.items():
            table.add_row(str(count), Text(printable(kind)), direction)
        return table
    table = _table("folded", "operator", "channels", "into")
    for site in sites:
        into = ", ".join(site.into)
        if site.through:
            into += f" through {', '.join(site.through)}"
        channels = "" if site.channels is None else str(site.channels)
        table.add_row(_name(site), Text(printable(site.kind)), channels, Text(printable(into)))
    return table


def _kept(sites: Sequence[Verdict], *, grouped: bool) -> Table:
    if not grouped:
        table = _table("kept", "operator", "reason", "because")
        for site in sites:
            table.add_row(
                _name(site),
                Text(printable(site.kind)),
                Text(site.reason or "", style="yellow"),
                Text(printable(site.detail or "")),
            )
        return table
    table = _table("kept", "operator", "reason", "for example")
    groups: defaultdict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for site in sites:
        groups[site.kind, site.reason or ""].append(site)
    for (kind, reason), members in groups.items():
        example = f"{members[0].name}: {members[0].detail or ''}"
        table.add_row(
            str(len(members)),
            Text(printable(kind)),
            Text(reason, style="yellow"),
            Text(printable(example)),
        )
    return table


def _proof(checks: tuple[CheckReport, ...]) -> Table:
    table = _table("proof", "level", "output", "difference", "noise", "ratio", "allowed", "")
    for check in checks:
        shown = _worth_showing(check)
        for output in shown:
            _add_output(table, check, output)
        if check.detail or not shown:
            verdict = _verdict(equivalent=check.equivalent, detail=check.detail)
            table.add_row(_provider(check), Text(check.level), *[""] * 5, verdict)
        if shown and len(shown) < len(check.outputs):
            table.add_row("", "", Text(f"and {len(check.outputs) - len(shown)} more", style="dim"))
    return table


def _worth_showing(check: CheckReport) -> list[OutputComparison]:
    """Return the outputs that differ; if none does, the one that comes closest to it."""
    if check.detail or not check.outputs:
        return []
    wrong = [output for output in check.outputs if not output.equivalent]
    return wrong or [max(check.outputs, key=lambda each: each.difference / (each.allowed or 1.0))]


def _add_output(table: Table, check: CheckReport, output: OutputComparison) -> None:
    table.add_row(
        _provider(check),
        Text(check.level),
        Text(printable(output.name)),
        f"{output.difference:.2g}",
        f"{output.noise:.2g}",
        "" if output.ratio is None else f"{output.ratio:.2g}",
        f"{output.allowed:.2g}",
        _verdict(equivalent=output.equivalent, detail=output.detail),
    )


def _provider(check: CheckReport) -> Text:
    return Text(printable(check.provider.removesuffix("ExecutionProvider")))


def _verdict(*, equivalent: bool, detail: str | None) -> Text:
    verdict = "equivalent" if equivalent else "DIFFERENT"
    return Text(
        verdict if detail is None else f"{verdict}: {printable(detail)}",
        style="green" if equivalent else "bold red",
    )


def _outcome(report: FoldReport) -> Text:
    line = f"nodes {report.nodes_before} -> {report.nodes_after}"
    if report.bytes_before is not None and report.bytes_after is not None:
        line += f", size {_size(report.bytes_before)} -> {_size(report.bytes_after)}"
    if report.output is None:
        return Text(printable(line))
    if report.output == report.model:
        line += ", replaced" if report.folded else ", left as it was"
    else:
        line += f", written to {report.output}"
    if report.folded and not report.checks:
        line += " without a check"
    return Text(printable(line))


def _name(site: Verdict) -> Text:
    name = site.name if site.graph == "main" else f"{site.name} (in {site.graph})"
    return Text(printable(name))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
