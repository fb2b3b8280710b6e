"""Reports as Markdown (GitHub's): for a comment on a pull request, or the summary of a job.

What a model names is code; where a name holds a character that could end the code or the cell it
stands in, all such characters are character references, which are never structure in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from bnfold.report.render.alerts import ERROR, NOTE, WARNING, Alert, alerts_of, models_of
from bnfold.report.render.overview import elsewhere, headline, title, verb_of
from bnfold.report.render.text import number, provider_name, readable, size

__all__ = ["to_markdown"]

MOST_ROWS = 50
"""Rows of a table; the other forms have all of them."""

MOST_MODELS = 200
"""Rows of the table of models."""

MOST_CHARACTERS = 60_000
"""GitHub takes comments of 65,536 characters."""

Item = TypeVar("Item")

_SIGNS = {ERROR: "❌", WARNING: "⚠️", NOTE: "🔹"}
_PLAIN_CODE = re.compile(r"[\w ./:,;=+()%'\"#@~^!?*{}\[\]$-]+")
_SPECIAL = re.compile(r"[&<>|`*\\\[\]~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown: a summary table, then details that open.

    Args:
        report: The object of a run, as ``--json`` prints it, of any verb and of any number of
            models.

    Returns:
        About 60,000 characters at most; what does not fit is left out, and a line says so.
    """
    report = readable(report)
    models = models_of(report)
    folded_elsewhere = elsewhere(models)
    required = bool((report.get("run") or {}).get("require_folded"))
    alerts = [
        alerts_of(model, require_folded=required, elsewhere=folded_elsewhere) for model in models
    ]
    alone = len(models) == 1
    parts = [_heading(report, models, alerts)]
    if not alone:
        parts.append(_overview(models, alerts))
    origin = list(_origin(report))
    length = sum(map(len, (*parts, *origin)))
    for part in _body(models, alerts, alone=alone):
        length += len(part)
        if length > MOST_CHARACTERS:
            parts.append("More is in the other forms of this report.")
            break
        parts.append(part)
    return "\n\n".join(part for part in (*parts, *origin) if part) + "\n"


def _body(
    models: Sequence[Mapping[str, Any]], alerts: Sequence[list[Alert]], *, alone: bool
) -> Iterator[str]:
    for model, its_alerts in zip(models, alerts, strict=True):
        yield from _summary(model, its_alerts, alone=alone)
    for model in models:
        yield from _details(model, alone=alone)


def _heading(
    report: Mapping[str, Any], models: Sequence[Mapping[str, Any]], alerts: Sequence[list[Alert]]
) -> str:
    worst = [each.severity for some in alerts for each in some]
    sign = _SIGNS[ERROR] if ERROR in worst else _SIGNS[WARNING] if WARNING in worst else "✅"
    program = f"bnfold {verb_of(report)}".strip()
    if len(models) == 1:
        return f"## {sign} {program}: {code(title(models[0]))}"
    failed = sum(any(each.severity == ERROR for each in some) for some in alerts)
    outcome = f"{failed} of {len(models)} models failed" if failed else f"{len(models)} models"
    return f"## {sign} {program}: {outcome}"


def _overview(models: Sequence[Mapping[str, Any]], alerts: Sequence[list[Alert]]) -> str:
    def cells(pair: tuple[Mapping[str, Any], list[Alert]]) -> Sequence[str]:
        model, its_alerts = pair
        severity = _worst(its_alerts)
        sign = _SIGNS[severity] if severity in {ERROR, WARNING} else "✅"
        summary = model.get("summary") or {}
        nodes = ""
        if "nodes_before" in summary:
            nodes = f"{summary['nodes_before']} → {summary['nodes_after']}"
        return sign, code(title(model)), text(headline(model)), nodes

    pairs = list(zip(models, alerts, strict=True))
    if len(pairs) > MOST_MODELS:  # then at least those that need somebody are there
        pairs.sort(key=lambda pair: (ERROR, WARNING, NOTE).index(_worst(pair[1])))
    return _table(("", "model", "outcome", "nodes"), pairs, cells, most=MOST_MODELS)


def _worst(alerts: Sequence[Alert]) -> str:
    return alerts[0].severity if alerts else NOTE


def _summary(model: Mapping[str, Any], alerts: Sequence[Alert], *, alone: bool) -> Iterator[str]:
    shown = alerts if alone else [each for each in alerts if each.severity == ERROR]
    if not alone and not shown:
        return
    yield text(f"{headline(model)}.") if alone else f"### {code(title(model))}"
    yield "\n".join(f"- {_SIGNS[each.severity]} {text(each.message)}" for each in shown)
    if alone:
        yield _proof(model)
        yield _sizes(model)


def _proof(model: Mapping[str, Any]) -> str:
    def cells(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Sequence[str]:
        check, output = pair
        return (
            text(provider_name(check["provider"])),
            text(check["level"]),
            code(output["name"]),
            number(output["difference"]),
            number(output["noise"]),
            _optional(output["ratio"]),
            number(output["allowed"]),
            "✅ equivalent" if output["equivalent"] else "❌ **different**",
        )

    pairs = [(check, output) for check in model.get("checks") or () for output in check["outputs"]]
    pairs.sort(key=lambda pair: bool(pair[1]["equivalent"]))
    names = ("provider", "level", "output", "D", "noise", "D / noise", "allowed", "verdict")
    return _table(names, pairs, cells)


def _sizes(model: Mapping[str, Any]) -> str:
    summary = model.get("summary") or {}
    if "nodes_before" not in summary:
        return ""
    rows = [("nodes", str(summary["nodes_before"]), str(summary["nodes_after"]))]
    before, after = summary["bytes_before"], summary["bytes_after"]
    if before is not None and after is not None:
        rows.append(("file size", size(before), size(after)))
    counts = model.get("operators") or {}
    first, last = counts.get("before") or {}, counts.get("after") or {}
    for operator in dict.fromkeys([*first, *last]):
        one, other = first.get(operator, 0), last.get(operator, 0)
        if one != other:
            rows.append((code(operator), str(one), str(other)))
    return _table(("", "before", "after"), rows, lambda row: row)


def _details(model: Mapping[str, Any], *, alone: bool) -> Iterator[str]:
    name = "" if alone else f" of {code(title(model))}"
    for heading, table in (
        ("Sites", _sites(model.get("sites") or ())),
        ("Layers", _layers(model)),
        ("Drift", _drift(model.get("norms") or ())),
        ("Latency", _latency(model.get("speeds") or ())),
    ):
        if table:
            yield f"<details><summary>{heading}{name}</summary>\n\n{table}\n\n</details>"


def _sites(sites: Sequence[Mapping[str, Any]]) -> str:
    def cells(site: Mapping[str, Any]) -> Sequence[str]:
        channels = "" if site["channels"] is None else str(site["channels"])
        return code(site["name"]), text(site["kind"]), channels, site["verdict"], _path(site)

    kept_first = sorted(sites, key=lambda site: bool(site["verdict"] == "folded"))
    return _table(("site", "operator", "channels", "verdict", "path or reason"), kept_first, cells)


def _path(site: Mapping[str, Any]) -> str:
    if site["reason"] is not None:
        return f"**{site['reason']}**: {text(site['detail'] or '')}"
    into = ", ".join(map(code, site["into"]))
    through = ", ".join(map(code, site["through"]))
    return f"into {into}" + (f" through {through}" if through else "") if into else ""


def _layers(model: Mapping[str, Any]) -> str:
    """The layers that are beyond noise; the curve of all is in the HTML form."""

    def cells(layer: Mapping[str, Any]) -> Sequence[str]:
        return (
            code(layer["tensor"]),
            text(layer["candidate_operator"] or "constant"),
            number(layer["difference"]),
            number(layer["noise"]),
            _optional(layer["ratio"]),
        )

    found = {
        layer["tensor"]: layer
        for check in model.get("checks") or ()
        for layer in (check["localization"] or {}).get("layers", ())
        if layer["beyond"]
    }
    names = ("tensor beyond noise", "made by", "D", "noise", "D / noise")
    return _table(names, list(found.values()), cells)


def _drift(norms: Sequence[Mapping[str, Any]]) -> str:
    def cells(norm: Mapping[str, Any]) -> Sequence[str]:
        return (
            code(norm["name"]),
            str(norm["channels"]),
            number(norm["kl"]),
            number(norm["mean_shift"]),
            number(norm["log_variance_ratio"]),
        )

    names = ("normalization", "channels", "KL (nats)", "mean shift (sd)", "log variance ratio")
    return _table(names, norms, cells)


def _latency(speeds: Sequence[Mapping[str, Any]]) -> str:
    def cells(speed: Mapping[str, Any]) -> Sequence[str]:
        latency = speed["latency_ms"]
        return (
            code(speed["model"]),
            text(provider_name(speed["provider"])),
            "" if speed["batch"] is None else str(speed["batch"]),
            f"{latency['median']:.3g} ms",
            f"{latency['p5']:.3g} to {latency['p95']:.3g}",
            "" if speed["ratio"] is None else f"{speed['ratio']:.3f}",
            speed["verdict"] or "",
        )

    names = ("model", "provider", "batch", "median", "5 % to 95 %", "ratio", "")
    return _table(names, speeds, cells)


def _origin(report: Mapping[str, Any]) -> Iterator[str]:
    run = report.get("run") or {}
    environment = run.get("environment") or report.get("environment") or {}
    versions = ", ".join(f"{key} {value}" for key, value in environment.items())
    if run.get("command") and len(run["command"]) <= MOST_CHARACTERS // 10:
        fence = "`" * max(3, 1 + _longest_run("`", run["command"]))
        yield f"{fence}sh\n{run['command']}\n{fence}"
    yield f"<sub>{text(versions or 'bnfold ' + report['bnfold'])}</sub>"


def _table(
    names: Sequence[str],
    items: Sequence[Item],
    cells: Callable[[Item], Sequence[str]],
    most: int = MOST_ROWS,
) -> str:
    """Return a table with a row for each of the first items; nothing without items."""
    if not items:
        return ""
    lines = [_row(names), _row("---" for _ in names), *(_row(cells(i)) for i in items[:most])]
    if len(items) > most:
        lines.append(_row([f"and {len(items) - most} more", *("" for _ in names[1:])]))
    return "\n".join(lines)


def _optional(value: float | None) -> str:
    return "" if value is None else number(value)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def code(name: str) -> str:
    """Return a name as code that ends where the name ends, in tables too."""
    if not name.strip():
        return "(no name)"
    if _PLAIN_CODE.fullmatch(name):
        return f"`{name}`"
    safe = re.sub(r"[^\w ]|_", lambda found: f"&#{ord(found[0])};", name)
    return f"<code>{safe}</code>"


def text(sentence: str) -> str:
    """Return plain text: nothing in it is markup, a link, or a mention of somebody."""
    inert = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", sentence)
    return re.sub(r"[@#](?=\w)", r"\g<0><!-- -->", inert)


def _longest_run(char: str, sentence: str) -> int:
    return max(map(len, re.findall(f"{re.escape(char)}+", sentence)), default=0)
