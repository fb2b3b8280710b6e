"""Folds as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnfold.cli.check_tables import proof_table
from bnfold.cli.console import printable
from bnfold.cli.drift_tables import statistics_table
from bnfold.cli.layout import columns, size

if TYPE_CHECKING:
    from bnfold.report import FoldReport, Verdict

__all__ = ["fold_tables"]

MANY = 16
"""More rows than this are grouped."""


def fold_tables(
    report: FoldReport, *, every_site: bool = False, statistics: bool = False
) -> list[RenderableType]:
    """Return what there is to see of one model.

    Args:
        report: What was found and done.
        every_site: One row for each site, however many.
        statistics: Show the statistics of normalizations, where they are known.
    """
    tables: list[RenderableType] = [_title(report)]
    gone = report.folded + report.merged
    if gone:
        tables.append(_folded(gone, grouped=_many(gone, every_site=every_site)))
    if report.kept:
        tables.append(_kept(report.kept, grouped=_many(report.kept, every_site=every_site)))
    if report.apart:
        tables.append(_kept(report.apart, grouped=len(report.apart) > 1 and not every_site))
    if statistics and report.statistics is not None:
        tables.append(statistics_table(report.statistics))
    if report.checks:
        tables.append(proof_table(report.checks))
    tables.append(_outcome(report))
    return tables


def _many(sites: Sequence[Verdict], *, every_site: bool) -> bool:
    return len(sites) > MANY and not every_site


def _title(report: FoldReport) -> Text:
    title = Text(printable(report.model or "model"), style="bold")
    folded, sites = len(report.folded), len(report.folded) + len(report.kept)
    merged = len(report.merged)
    done = report.output is not None
    text = ": no batch normalization found"
    if sites:
        text = f": {'folded' if done else 'would fold'} {folded} of {sites}"
    if merged:
        branches = "1 branch" if merged == 1 else f"{merged} branches"
        text += f", {'merged' if done else 'would merge'} {branches}"
    color = "green" if folded == sites else "yellow"
    return title.append(text, style=f"not bold {color}" if sites else "not bold")


def _folded(sites: Sequence[Verdict], *, grouped: bool) -> Table:
    if grouped:
        table = columns("folded", "operator", "direction")
        counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        for site in sites:
            counts[site.kind, site.direction or ""] += 1
        for (kind, direction), count in counts.items():
            table.add_row(str(count), Text(printable(kind)), direction)
        return table
    table = columns("folded", "operator", "channels", "into")
    for site in sites:
        into = ", ".join(site.into)
        if site.through:
            into += f" through {', '.join(site.through)}"
        channels = "" if site.channels is None else str(site.channels)
        table.add_row(_name(site), Text(printable(site.kind)), channels, Text(printable(into)))
    return table


def _kept(sites: Sequence[Verdict], *, grouped: bool) -> Table:
    if not grouped:
        table = columns("kept", "operator", "reason", "because")
        for site in sites:
            table.add_row(
                _name(site),
                Text(printable(site.kind)),
                Text(site.reason or "", style="yellow"),
                Text(printable(site.detail or "")),
            )
        return table
    table = columns("kept", "operator", "reason", "for example")
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


def _outcome(report: FoldReport) -> Text:
    line = f"nodes {report.nodes_before} -> {report.nodes_after}"
    if report.bytes_before is not None and report.bytes_after is not None:
        line += f", size {size(report.bytes_before)} -> {size(report.bytes_after)}"
    if report.output is None:
        return Text(printable(line))
    if report.output == report.model:
        line += ", replaced" if report.folded or report.merged else ", left as it was"
    else:
        line += f", written to {report.output}"
    if (report.folded or report.merged) and not report.checks:
        line += " without a check"
    return Text(printable(line))


def _name(site: Verdict) -> Text:
    name = site.name if site.graph == "main" else f"{site.name} (in {site.graph})"
    return Text(printable(name))
