"""Reports as Markdown (GitHub's): for a comment on a pull request, or the summary of a job.

What a model names is code; where a name holds a character that could end the code or the cell it
stands in, all such characters are character references, which are never structure in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bnfold.report.render.alerts import ERROR, NOTE, WARNING, Alert, alerts_of, models_of
from bnfold.report.render.overview import elsewhere, headline, title, verb_of
from bnfold.report.render.text import number, provider_name, readable, size

__all__ = ["to_markdown"]

MOST_ROWS = 50
"""Rows of a table; the other forms have all of them."""

MOST_CHARACTERS = 60_000
"""GitHub takes comments of 65,536 characters."""

_SIGNS = {ERROR: "❌", WARNING: "⚠️", NOTE: "🔹"}
_PLAIN_CODE = re.compile(r"[\w ./:,;=+()%'\"#@~^!?*{}\[\]$-]+")
_SPECIAL = re.compile(r"[&<>|`*\\\[\]~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown: a summary table, then details that open.

    Args:
        report: The object of a run, as ``--json`` prints it, of any verb and of any number of
            models.

    Returns:
        At most 60,000 characters, unless there are hundreds of models; details that do not fit
        are left out, and a line says so.
    """
    report = readable(report)
    models = models_of(report)
    folded_elsewhere = elsewhere(models)
    required = bool((report.get("run") or {}).get("require_folded"))
    alerts = [
        alerts_of(model, require_folded=required, elsewhere=folded_elsewhere) for model in models
    ]
    parts = [_heading(report, models, alerts)]
    if len(models) > 1:
        parts.append(_overview(models, alerts))
    for model, its_alerts in zip(models, alerts, strict=True):
        parts += _summary(model, its_alerts, alone=len(models) == 1)
    length = sum(map(len, parts))
    for model in models:
        for detail in _details(model, alone=len(models) == 1):
            length += len(detail)
            if length > MOST_CHARACTERS:
                return _joined([*parts, "More details are in the other forms of this report."])
            parts.append(detail)
    return _joined([*parts, *_origin(report)])


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(
    report: Mapping[str, Any], models: Sequence[Mapping[str, Any]], alerts: Sequence[list[Alert]]
) -> str:
    worst = [each.severity for some in alerts for each in some]
    sign = _SIGNS[ERROR] if ERROR in worst else _SIGNS[WARNING] if WARNING in worst else "✅"
    verb = verb_of(report)
    if len(models) == 1:
        return f"## {sign} bnfold {verb}: {code(title(models[0]))}"
    failed = sum(any(each.severity == ERROR for each in some) for some in alerts)
    outcome = f"{failed} of {len(models)} models failed" if failed else f"{len(models)} models"
    return f"## {sign} bnfold {verb}: {outcome}"


def _overview(models: Sequence[Mapping[str, Any]], alerts: Sequence[list[Alert]]) -> str:
    rows = []
    for model, its_alerts in zip(models, alerts, strict=True):
        severity = its_alerts[0].severity if its_alerts else None
        sign = _SIGNS[severity] if severity in {ERROR, WARNING} else "✅"
        summary = model.get("summary") or {}
        nodes = ""
        if "nodes_before" in summary:
            nodes = f"{summary['nodes_before']} → {summary['nodes_after']}"
        rows.append((sign, code(title(model)), text(headline(model)), nodes))
    return _table(("", "model", "outcome", "nodes"), rows, most=len(rows))


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
    rows = [
        (
            text(provider_name(check["provider"])),
            check["level"],
            code(output["name"]),
            number(output["difference"]),
            number(output["noise"]),
            "" if output["ratio"] is None else number(output["ratio"]),
            number(output["allowed"]),
            "✅ equivalent" if output["equivalent"] else "❌ **different**",
        )
        for check in model.get("checks") or ()
        for output in sorted(check["outputs"], key=lambda each: bool(each["equivalent"]))
    ]
    return _table(
        ("provider", "level", "output", "D", "noise", "D / noise", "allowed", "verdict"), rows
    )


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
    return _table(("", "before", "after"), rows)


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
    kept_first = sorted(sites, key=lambda site: site["verdict"] == "folded")
    rows = [
        (
            code(site["name"]),
            text(site["kind"]),
            "" if site["channels"] is None else str(site["channels"]),
            site["verdict"],
            _path(site),
        )
        for site in kept_first
    ]
    return _table(("site", "operator", "channels", "verdict", "path or reason"), rows)


def _path(site: Mapping[str, Any]) -> str:
    if site["reason"] is not None:
        return f"**{site['reason']}**: {text(site['detail'] or '')}"
    into = ", ".join(map(code, site["into"]))
    through = ", ".join(map(code, site["through"]))
    return f"into {into}" + (f" through {through}" if through else "") if into else ""


def _layers(model: Mapping[str, Any]) -> str:
    """The layers that are beyond noise; the curve of all is in the HTML form."""
    found = {
        layer["tensor"]: layer
        for check in model.get("checks") or ()
        for layer in (check["localization"] or {}).get("layers", ())
        if layer["beyond"]
    }
    rows = [
        (
            code(layer["tensor"]),
            text(layer["candidate_operator"] or "constant"),
            number(layer["difference"]),
            number(layer["noise"]),
            "" if layer["ratio"] is None else number(layer["ratio"]),
        )
        for layer in found.values()
    ]
    return _table(("tensor beyond noise", "made by", "D", "noise", "D / noise"), rows)


def _drift(norms: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            code(norm["name"]),
            str(norm["channels"]),
            number(norm["kl"]),
            number(norm["mean_shift"]),
            number(norm["log_variance_ratio"]),
        )
        for norm in norms
    ]
    names = ("normalization", "channels", "KL (nats)", "mean shift (sd)", "log variance ratio")
    return _table(names, rows)


def _latency(speeds: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            code(speed["model"]),
            text(provider_name(speed["provider"])),
            "" if speed["batch"] is None else str(speed["batch"]),
            f"{speed['latency_ms']['median']:.3g} ms",
            f"{speed['latency_ms']['p5']:.3g} to {speed['latency_ms']['p95']:.3g}",
            "" if speed["ratio"] is None else f"{speed['ratio']:.3f}",
            speed["verdict"] or "",
        )
        for speed in speeds
    ]
    return _table(("model", "provider", "batch", "median", "5 % to 95 %", "ratio", ""), rows)


def _origin(report: Mapping[str, Any]) -> Iterator[str]:
    run = report.get("run") or {}
    environment = run.get("environment") or report.get("environment") or {}
    versions = ", ".join(f"{key} {value}" for key, value in environment.items())
    if run.get("command"):
        fence = "`" * max(3, 1 + _longest_run("`", run["command"]))
        yield f"{fence}sh\n{run['command']}\n{fence}"
    yield f"<sub>{text(versions or 'bnfold ' + report['bnfold'])}</sub>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], most: int = MOST_ROWS) -> str:
    if not rows:
        return ""
    lines = [_row(names), _row("---" for _ in names), *map(_row, rows[:most])]
    if len(rows) > most:
        lines.append(_row([f"and {len(rows) - most} more", *("" for _ in names[1:])]))
    return "\n".join(lines)


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
