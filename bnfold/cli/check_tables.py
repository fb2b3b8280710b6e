"""Comparisons of two models as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnfold.cli.console import printable
from bnfold.cli.layout import columns

if TYPE_CHECKING:
    from bnfold.report import CheckReport, LayerError, Localization, OutputComparison

    Checks = tuple[CheckReport, ...]

__all__ = ["check_tables", "proof_table"]

_LAYERS_BEFORE, _LAYERS_BEHIND = 3, 12


def check_tables(title: str, checks: Checks) -> list[RenderableType]:
    """Return a comparison of two models, and whatever else was asked for.

    Args:
        title: What was compared.
        checks: The comparisons.
    """
    equivalent = all(check.equivalent for check in checks)
    says = ("compute the same", "bold green") if equivalent else ("do NOT compute the same", "red")
    tables: list[RenderableType] = [
        Text.assemble((printable(title), "bold"), " ", says),
        proof_table(checks),
    ]
    for part in (_placement, _agreement, _oracle, _tf32, _expected):
        table = part(checks)
        tables += [table] if table.row_count else []
    for provider in dict.fromkeys(check.provider for check in checks):
        found = [c.localization for c in checks if c.provider == provider and c.localization]
        # All levels of a provider share one.
        tables += _localization(found[0]) if found else []
    return tables


def proof_table(checks: Checks) -> Table:
    """Return the worst output of each check, and every one that fails."""
    table = columns("proof", "level", "output", "difference", "noise", "ratio", "allowed", "")
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


def _placement(checks: Checks) -> Table:
    table = columns("nodes of the reference", "on")
    for nodes in {str(check.nodes): check.nodes or {} for check in checks}.values():
        if set(nodes) - {"CPUExecutionProvider"}:
            for provider, count in nodes.items():
                table.add_row(str(count), Text(printable(provider)))
    return table


def _agreement(checks: Checks) -> Table:
    table = columns("level", "output", "same class")
    for check in checks:
        for output in check.outputs:
            share = output.argmax_agreement
            # That all rows agree is what one expects.
            if share is not None and share < 1.0:
                row = Text(check.level), Text(printable(output.name)), f"{100 * share:.4g} %"
                table.add_row(*row)
    return table


def _oracle(checks: Checks) -> Table:
    table = columns("level", "in float64", "reference", "candidate", "nearer", "")
    for check in checks:
        for output in check.outputs:
            opinion = output.oracle
            if opinion is not None:
                table.add_row(
                    Text(check.level),
                    Text(printable(output.name)),
                    _number(opinion.reference),
                    _number(opinion.candidate),
                    opinion.nearer or "",
                    Text(printable(opinion.detail or "")),
                )
    return table


def _tf32(checks: Checks) -> Table:
    table = columns("level", "with TF32", "difference", "noise", "ratio")
    for check in checks:
        for output in check.tf32 or ():
            table.add_row(
                Text(check.level),
                Text(printable(output.name)),
                _number(output.difference),
                _number(output.noise),
                _number(output.ratio),
            )
    return table


def _expected(checks: Checks) -> Table:
    table = columns("level", "against expected outputs", "feeds", "reference", "candidate")
    for check in checks:
        for each in check.expected:
            table.add_row(
                Text(check.level),
                Text(printable(each.output)),
                str(each.feeds),
                f"{_number(each.reference)} {'agrees' if each.reference_agrees else 'DIFFERS'}",
                f"{_number(each.candidate)} {'agrees' if each.candidate_agrees else 'DIFFERS'}",
            )
    return table


def _localization(found: Localization) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if found.first is not None:
        first = found.first
        parts.append(
            Text.assemble(
                ("first difference: ", "bold"),
                printable(f"'{first.tensor}', {_made_by(first)}"),
            )
        )
    if found.detail:
        parts.append(Text(printable(found.detail)))
    table = columns("tensor", "made by", "difference", "noise", "ratio", "")
    for layer in _near_the_first(found):
        table.add_row(
            Text(printable(layer.tensor)),
            Text(printable(_made_by(layer))),
            _number(layer.difference),
            _number(layer.noise),
            _number(layer.ratio),
            Text(printable(layer.detail or ("BEYOND NOISE" if layer.beyond else ""))),
        )
    return [*parts, table] if found.layers else parts


def _near_the_first(found: Localization) -> list[LayerError]:
    """Return the layers around the first difference; the JSON form has all of them."""
    at = found.layers.index(found.first) if found.first in found.layers else 0
    start = max(0, at - _LAYERS_BEFORE)
    return list(found.layers[start : at + _LAYERS_BEHIND])


def _made_by(layer: LayerError) -> str:
    ours = f"{layer.candidate_operator or 'constant'} '{layer.candidate_node or ''}'"
    theirs = f"{layer.reference_operator or 'constant'} '{layer.reference_node or ''}'"
    return ours if ours == theirs else f"{ours} (reference: {theirs})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
