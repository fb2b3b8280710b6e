"""Statistics of batch normalizations as tables: their drift, and what the file alone shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnfold.cli.console import printable
from bnfold.cli.layout import columns

if TYPE_CHECKING:
    from bnfold.recalibrate.report import NormDrift, NormKept, NormStatistics, RecalibrationReport

__all__ = ["drift_tables", "statistics_table"]

MANY = 16
"""Of more rows than this only so many are shown."""


def drift_tables(report: RecalibrationReport, *, every_norm: bool = False) -> list[RenderableType]:
    """Return what there is to see of a recalibration, the largest drift first.

    Args:
        report: What was found and done.
        every_norm: One row for each normalization, however many.
    """
    count = len(report.norms)
    title = Text(printable(report.model), style="bold")
    title.append(f": {count} of {count + len(report.kept)} renewed", style="not bold green")
    tables: list[RenderableType] = [title]
    shown = report.norms if every_norm else report.norms[:MANY]
    table = columns(
        "drift", "channels", "values", "KL", "worst", "mean shift", "variance ratio", "channels"
    )
    for norm in shown:
        _add_drift(table, norm)
    if len(shown) < count:
        table.add_row(Text(f"and {count - len(shown)} with less; -v shows them", style="dim"))
    tables.append(table)
    if report.kept:
        tables.append(_kept(report.kept, every_norm=every_norm))
    batches = "1 batch" if report.batches == 1 else f"{report.batches} batches"
    provider = report.provider.replace("ExecutionProvider", "")
    line = f"{report.samples} samples in {batches} on {provider}, {report.mode}"
    if report.momentum != 1:
        line += f", momentum {report.momentum:g}"
    tables.append(Text(printable(f"{line}, written to {report.output}")))
    return tables


def statistics_table(norms: Sequence[NormStatistics]) -> Table:
    """Return what can be seen of normalizations without data."""
    table = columns("statistics", "channels", "mean", "variance", "|gamma|", "gain", "channels")
    for norm in norms:
        notes = _notes(norm.dead_scale, norm.dead_variance, norm.noisy)
        if norm.not_finite:
            notes.insert(0, f"{len(norm.not_finite)} not finite or negative")
        if norm.never_updated:
            notes.insert(0, "never updated: mean 0 and variance 1 everywhere")
        table.add_row(
            Text(printable(norm.name)),
            str(norm.channels),
            _range(norm.mean),
            _range(norm.variance),
            _range(norm.gamma),
            "" if norm.largest_gain is None else f"{norm.largest_gain:.3g}",
            Text(", ".join(notes), style="yellow"),
        )
    return table


def _add_drift(table: Table, norm: NormDrift) -> None:
    notes = _notes(norm.dead_scale, norm.dead_variance, norm.noisy)
    if norm.kept_channels:
        notes.append(f"{len(norm.kept_channels)} constant, kept")
    ratio = norm.log_variance_ratio
    times = f"{math.exp(ratio):.3g}" if abs(ratio) < 100 else f"e^{ratio:.3g}"
    table.add_row(
        Text(printable(norm.name)),
        str(norm.channels),
        str(norm.values),
        f"{norm.kl:.2g}",
        "" if norm.worst_channel is None else f"{norm.kl_max:.2g} in {norm.worst_channel}",
        f"{norm.mean_shift:.2g}",
        times,
        Text(", ".join(notes), style="yellow"),
    )


def _kept(kept: Sequence[NormKept], *, every_norm: bool) -> Table:
    if len(kept) <= MANY or every_norm:
        table = columns("kept", "reason", "because")
        for norm in kept:
            reason = Text(norm.reason, style="yellow")
            table.add_row(Text(printable(norm.name)), reason, Text(printable(norm.detail)))
        return table
    table = columns("kept", "reason", "for example")
    examples = {norm.reason: norm for norm in reversed(kept)}
    for code, count in Counter(norm.reason for norm in kept).items():
        detail = Text(printable(examples[code].detail))
        table.add_row(str(count), Text(code, style="yellow"), detail)
    return table


def _notes(
    dead_scale: tuple[int, ...], dead_variance: tuple[int, ...], noisy: tuple[int, ...]
) -> list[str]:
    """Say how many channels are in trouble, and of which kind."""
    dead = sorted({*dead_scale, *dead_variance})
    notes = [f"{len(dead)} dead"] if dead else []
    return [*notes, f"{len(noisy)} amplify noise"] if noisy else notes


def _range(values: tuple[float, float] | None) -> str:
    return "" if values is None else f"{values[0]:.3g} to {values[1]:.3g}"
