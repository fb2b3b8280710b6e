"""What each part of the page shows, made ready for its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bnfold.report.folds import BRANCH
from bnfold.report.render.alerts import ERROR, NOTE, WARNING, Alert, alerts_of, models_of
from bnfold.report.render.html.plots import LogScale
from bnfold.report.render.overview import elsewhere, headline, title, verb_of
from bnfold.report.render.text import counted, number, size

__all__ = ["Figure", "ModelView", "Page", "SiteView", "page_of"]

_NEAR_BEFORE, _NEAR_BEHIND = 3, 12


@dataclass(frozen=True)
class Figure:
    """One number at the top.

    Attributes:
        label: What it is.
        value: The number, as text.
        note: What else there is to say of it.
        share: How much of a bar it fills, from 0 to 1, or None for no bar.
        tone: ``good``, ``bad``, ``fair`` or nothing.
    """

    label: str
    value: str
    note: str = ""
    share: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class SiteView:
    """One row of the table of sites.

    Attributes:
        found: The site as the report has it.
        verdict: ``folded``, ``kept``, ``merged`` or ``apart``.
        statistics: What is known of its statistics, or None.
        trouble: What is wrong with its channels, in a few words each.
    """

    found: Mapping[str, Any]
    verdict: str
    statistics: Mapping[str, Any] | None
    trouble: tuple[str, ...]


@dataclass(frozen=True)
class ModelView:
    """One model.

    Attributes:
        anchor: Prefix of the identifiers of its sections.
        found: Its object in the report.
        alerts: What there is to look at, the worst first.
    """

    anchor: str
    found: Mapping[str, Any]
    alerts: Sequence[Alert]

    @property
    def title(self) -> str:
        """What it is about."""
        return title(self.found)

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        return headline(self.found)

    @property
    def tone(self) -> str:
        """``bad`` where something failed, ``fair`` where there are warnings, else ``good``."""
        severity = self.alerts[0].severity if self.alerts else NOTE
        return {ERROR: "bad", WARNING: "fair", NOTE: "good"}[severity]

    @property
    def status(self) -> str:
        """The outcome in one word or two."""
        checks = self.found.get("checks") or ()
        if any(not check["equivalent"] for check in checks):
            return "Not equivalent"
        if self.found.get("error") is not None:
            return "Failed"
        if self.tone == "bad":
            return "Not met"
        return "Equivalent" if checks else "Done"

    @cached_property
    def sections(self) -> dict[str, str]:
        """The headings of the sections that have something to show, by their name."""
        shown = {
            "proof": ("Proof", self.found.get("checks")),
            "layers": ("Error by layer", self.localizations),
            "sites": ("Sites", self.sites),
            "operators": ("Operators", self.operators),
            "drift": ("Drift of the statistics", self.found.get("norms")),
            "kept": ("Normalizations kept", self.found.get("kept")),
            "latency": ("Latency", self.settings),
            "footprint": ("Load time and memory", self.found.get("footprints")),
        }
        return {name: heading for name, (heading, content) in shown.items() if content}

    def section_of(self, alert: Alert) -> str | None:
        """Return the section in which the report says more, if it is shown."""
        name = {"statistics": "sites"}.get(alert.section or "", alert.section)
        return name if name in self.sections else None

    @cached_property
    def figures(self) -> list[Figure]:
        """The numbers at the top."""
        return [*_fold_figures(self.found), *self._check_figures(), *_other_figures(self.found)]

    def _check_figures(self) -> Iterator[Figure]:
        outputs = [each for check in self.found.get("checks") or () for each in check["outputs"]]
        ratios = [each["ratio"] for each in outputs if each["ratio"] is not None]
        if ratios:
            wrong = not all(each["equivalent"] for each in outputs)
            note = "correct folds lie between 1 and 2.5"
            yield Figure("Worst D / noise", number(max(ratios)), note, tone="bad" if wrong else "")

    @property
    def worst_ratio(self) -> str:
        """The largest D / noise of all outputs, as text."""
        return next((f.value for f in self._check_figures()), "")

    @cached_property
    def sites(self) -> list[SiteView]:
        """The sites, in the order of the report."""
        known = {
            (norm["graph"], node): norm
            for norm in self.found.get("statistics") or ()
            for node in norm["nodes"]
        }
        return [
            SiteView(site, _verdict(site), norm, tuple(_trouble(norm)) if norm else ())
            for site in self.found.get("sites") or ()
            for norm in (known.get((site["graph"], site["name"])),)
        ]

    @cached_property
    def verdicts(self) -> dict[str, int]:
        """How many sites there are of each verdict."""
        return dict(Counter(site.verdict for site in self.sites))

    @cached_property
    def reasons(self) -> dict[str, int]:
        """How many sites were kept for each reason."""
        return dict(Counter(site.found["reason"] for site in self.sites if site.found["reason"]))

    @cached_property
    def scale(self) -> LogScale:
        """The scale of the gauges of all outputs."""
        keys = ("difference", "noise", "allowed")
        outputs = [each for check in self.found["checks"] for each in check["outputs"]]
        return LogScale.over((each[key] for each in outputs for key in keys), 0.0, 220.0)

    @cached_property
    def operators(self) -> list[tuple[str, int, int]]:
        """Operator, number before, number after; what changed first."""
        counts = self.found.get("operators")
        if counts is None:
            return []
        before, after = counts["before"], counts["after"]
        rows = [(op, before.get(op, 0), after.get(op, 0)) for op in {**before, **after}]
        return sorted(rows, key=lambda row: (row[1] == row[2], -max(row[1:]), row[0]))

    @cached_property
    def localizations(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The localization of each provider; all levels of a provider share one."""
        found = {
            check["provider"]: check["localization"]
            for check in reversed(self.found.get("checks") or ())
            if check["localization"] is not None
        }
        return list(found.items())

    @staticmethod
    def near_the_first(localization: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Return the layers around the first difference."""
        layers, first = localization["layers"], localization["first"]
        at = layers.index(first) if first in layers else 0
        return list(layers[max(0, at - _NEAR_BEFORE) : at + _NEAR_BEHIND])

    @cached_property
    def _drift_scale(self) -> LogScale:
        norms = self.found["norms"]
        return LogScale.over((norm[key] for norm in norms for key in ("kl", "kl_max")), 0.0, 1.0)

    def drift_shares(self, norm: Mapping[str, Any]) -> tuple[float, float]:
        """Return the lengths of the bars of a normalization: its drift, and its worst channel's."""
        return self._drift_scale(norm["kl"]), self._drift_scale(norm["kl_max"])

    @cached_property
    def settings(self) -> list[tuple[str, list[Mapping[str, Any]]]]:
        """The latencies under each setting."""
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for speed in self.found.get("speeds") or ():
            groups.setdefault(_conditions(speed), []).append(speed)
        return list(groups.items())


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        report: The object of the run.
        models: One view for each model.
    """

    report: Mapping[str, Any]
    models: Sequence[ModelView]

    @property
    def verb(self) -> str:
        """The verb that was run, or nothing."""
        return verb_of(self.report)

    @property
    def run(self) -> Mapping[str, Any]:
        """How the report came about; empty for a report of Python."""
        return self.report.get("run") or {}

    @property
    def environment(self) -> Mapping[str, str]:
        """Versions and machine."""
        return self.run.get("environment") or self.report.get("environment") or {}

    @property
    def tones(self) -> dict[str, int]:
        """How many models there are of each tone, the worst first."""
        counts = Counter(model.tone for model in self.models)
        return {tone: counts[tone] for tone in ("bad", "fair", "good") if counts[tone]}


def page_of(report: Mapping[str, Any]) -> Page:
    """Return the views of a report."""
    objects = models_of(report)
    others = elsewhere(objects)
    required = bool((report.get("run") or {}).get("require_folded"))
    views = [
        ModelView(f"m{number}", each, alerts_of(each, require_folded=required, elsewhere=others))
        for number, each in enumerate(objects, 1)
    ]
    return Page(report, views)


def _fold_figures(found: Mapping[str, Any]) -> Iterator[Figure]:
    summary = found.get("summary") or {}
    if "folded" not in summary:
        return
    folded, sites = summary["folded"], summary["sites"]
    note = f"{summary['kept']} kept" if summary["kept"] else ("all of them" if sites else "none")
    if summary["merged"]:
        note += f", {counted(summary['merged'], 'branch', 'branches')} merged"
    tone = "good" if folded == sites else "fair"
    value = f"{folded} of {sites}"
    yield Figure("Sites folded", value, note, folded / sites if sites else None, tone)
    before, after = summary["nodes_before"], summary["nodes_after"]
    yield Figure("Nodes", f"{before} → {after}", _change(before, after))
    before, after = summary["bytes_before"], summary["bytes_after"]
    if before is not None and after is not None:
        yield Figure("File size", f"{size(before)} → {size(after)}", _change(before, after))


def _other_figures(found: Mapping[str, Any]) -> Iterator[Figure]:
    summary = found.get("summary") or {}
    if "renewed" in summary:
        renewed, norms = summary["renewed"], summary["norms"]
        note = f"{summary['kept']} kept" if summary["kept"] else "all of them"
        value = f"{renewed} of {norms}"
        yield Figure("Renewed", value, note, renewed / norms if norms else None, "good")
        note = f"in {counted(summary['batches'], 'batch', 'batches')}"
        yield Figure("Samples", str(summary["samples"]), note)
        if found["norms"]:
            norm = found["norms"][0]
            yield Figure("Largest drift", f"{number(norm['kl'])} nats", norm["name"])
    for speed in found.get("speeds") or ():
        if speed["ratio"] is not None:
            tones = {"faster": "good", "slower": "bad"}
            low, high = speed["interval"]
            note = f"{speed['verdict']}, {low:.3f} to {high:.3f}"
            yield Figure(
                "Latency ratio", f"{speed['ratio']:.3f}", note, tone=tones.get(speed["verdict"], "")
            )


def _change(before: int, after: int) -> str:
    if before == after or not before:
        return "unchanged" if before == after else ""
    return f"{100 * (after - before) / before:+.1f} %"


def _verdict(site: Mapping[str, Any]) -> str:
    if site["kind"] == BRANCH:
        return "merged" if site["verdict"] == "folded" else "apart"
    return str(site["verdict"])


def _trouble(norm: Mapping[str, Any]) -> Iterator[str]:
    dead = {*norm["dead_scale"], *norm["dead_variance"]}
    for count, what in (
        (len(dead), "dead"),
        (len(norm["noisy"]), "amplify noise"),
        (len(norm["not_finite"]), "not finite"),
    ):
        if count:
            yield f"{count} {what}"
    if norm["never_updated"]:
        yield "never updated"


def _conditions(speed: Mapping[str, Any]) -> str:
    shapes = ", ".join(
        f"{name} {'x'.join(map(str, shape))}" for name, shape in speed["shapes"].items()
    )
    provider = str(speed["provider"]).removesuffix("ExecutionProvider")
    threads = f", {counted(speed['threads'], 'thread')}" if speed["threads"] else ""
    return f"{provider}, level {speed['level']}{threads}, {shapes or 'no inputs'}"
