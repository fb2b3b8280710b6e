"""What a report says in one line for each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bnfold.report.folds import BRANCH
from bnfold.report.render.text import counted

__all__ = ["elsewhere", "headline", "title", "verb_of"]


def verb_of(report: Mapping[str, Any]) -> str:
    """Return the verb that made a report; nothing for a report of Python."""
    return str((report.get("run") or {}).get("verb") or "")


def title(model: Mapping[str, Any]) -> str:
    """Return what the object of one model is about."""
    if "reference" in model:
        return f"{model['reference']} and {model['candidate']}"
    if model.get("models"):
        return " and ".join(dict.fromkeys(map(str, model["models"])))
    return model.get("model") or "model"


def headline(model: Mapping[str, Any]) -> str:
    """Return the outcome for one model, as plain text without a full stop."""
    if model.get("error") is not None and not (model.get("checks") or model.get("summary")):
        return f"failed: {model['error']['kind']}"
    parts = []
    summary = model.get("summary") or {}
    if "folded" in summary:
        planned = model.get("output") is None and not model.get("checks")
        verb = "would fold" if planned else "folded"
        parts.append(
            f"{verb} {summary['folded']} of {summary['sites']}"
            if summary["sites"]
            else "no batch normalization found"
        )
        if summary["merged"]:
            parts.append(f"merged {counted(summary['merged'], 'branch', 'branches')}")
    if "renewed" in summary:
        parts.append(f"renewed {summary['renewed']} of {summary['norms']} normalizations")
    if model.get("checks"):
        parts.append(_proved(model["checks"]))
    if model.get("error") is not None:
        parts.append("nothing written" if "model" in model else "not finished")
    if model.get("up_to_date"):
        parts.append("was up to date")
    if "speeds" in model:
        parts.append(_timed(model["speeds"]))
    return ", ".join(parts) or "nothing to report"


def elsewhere(models: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names of sites that are folded in some of several models."""
    if len(models) < 2:
        return frozenset()
    return frozenset(
        site["name"]
        for model in models
        for site in model.get("sites") or ()
        if site["verdict"] == "folded" and site["kind"] != BRANCH
    )


def _proved(checks: Sequence[Mapping[str, Any]]) -> str:
    same = all(check["equivalent"] for check in checks)
    return "computes the same" if same else "does NOT compute the same"


def _timed(speeds: Sequence[Mapping[str, Any]]) -> str:
    others = [speed for speed in speeds if speed["verdict"]]
    if not others:
        return counted(len(speeds), "latency", "latencies")
    if len(others) == 1:
        return f"{others[0]['verdict']}: {others[0]['ratio']:.3f} times the latency"
    verdicts = Counter(speed["verdict"] for speed in others)
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
