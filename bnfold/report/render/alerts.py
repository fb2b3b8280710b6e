"""What a reader has to see first: failures, what could be folded still, channels in trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.report.folds import BRANCH, REASONS, Reason
from bnfold.report.render.text import counted, number, provider_name

__all__ = ["ERROR", "NOTE", "WARNING", "Alert", "alerts_of", "missed_sites", "models_of"]

ERROR, WARNING, NOTE = "error", "warning", "note"

_REMEDIES = {
    Reason.OVERRIDABLE_INITIALIZER: "--freeze-initializers folds them if no caller replaces them",
    Reason.PADDING_SHIFT: "--ones-channel may fold them",
    Reason.EXCLUDED: "--keep names them",
    Reason.TRAINING_MODE: "export the model in evaluation mode",
    Reason.UNKNOWN_SHAPE: "export the model with the shapes that it needs",
}
"""How a kept site can still be folded, by its reason."""


@dataclass(frozen=True)
class Alert:
    """One thing to look at.

    Attributes:
        severity: ``error``, ``warning`` or ``note``.
        message: One sentence, as plain text.
        section: Where the report says more: ``proof``, ``sites``, ``statistics``, ``drift``,
            ``latency``, or None.
        reason: The reason code of the sites that it is about, or None.
    """

    severity: str
    message: str
    section: str | None = None
    reason: str | None = None


def models_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of single models: those of ``models``, or the report itself."""
    models = report.get("models") or ()
    if any(isinstance(each, dict) for each in models):
        return list(models)
    return [dict(report)]


def alerts_of(
    model: Mapping[str, Any],
    *,
    require_folded: bool = False,
    elsewhere: frozenset[str] = frozenset(),
) -> list[Alert]:
    """Return what there is to look at in the object of one model, the worst first.

    Args:
        model: The object of one model, of any verb.
        require_folded: True if kept sites are failures.
        elsewhere: Names of sites that are folded in other models of the same run.
    """
    found = [
        *_failure(model),
        *_differences(model),
        *(_missed(model) if require_folded else ()),
        *_kept(model, elsewhere),
        *_statistics(model.get("statistics") or ()),
        *_drift(model),
        *_latency(model.get("speeds") or ()),
        *(Alert(WARNING, text) for text in model.get("warnings") or ()),
        *(Alert(NOTE, text) for text in model.get("hints") or ()),
    ]
    order = (ERROR, WARNING, NOTE)
    return sorted(dict.fromkeys(found), key=lambda alert: order.index(alert.severity))


def missed_sites(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the kept sites that nobody asked to keep."""
    return [
        site
        for site in model.get("sites") or ()
        if site["verdict"] == "kept"
        and site["kind"] != BRANCH
        and site["reason"] != Reason.EXCLUDED.value
    ]


def _failure(model: Mapping[str, Any]) -> Iterator[Alert]:
    error = model.get("error")
    if error is not None:
        hint = f" Hint: {error['hint']}" if error["hint"] else ""
        yield Alert(ERROR, f"{error['message']}.{hint}")


def _differences(model: Mapping[str, Any]) -> Iterator[Alert]:
    for check in model.get("checks") or ():
        where = f"on {provider_name(check['provider'])}, level {check['level']}"
        if check["detail"]:
            yield Alert(ERROR, f"Not equivalent {where}: {check['detail']}", "proof")
        for output in check["outputs"]:
            yield from _output(output, where)
        for text in check["warnings"]:
            yield Alert(WARNING, text, "proof")
        for each in check["expected"]:
            if not each["candidate_agrees"]:
                also = "" if each["reference_agrees"] else ", and neither is the reference"
                message = f"Output '{each['output']}' is not the expected one {where}{also}"
                yield Alert(WARNING, message, "proof")


def _output(output: Mapping[str, Any], where: str) -> Iterator[Alert]:
    name, detail = output["name"], output["detail"]
    if not output["equivalent"]:
        what = detail or (
            f"{number(output['difference'])} apart, {number(output['allowed'])} allowed"
        )
        yield Alert(ERROR, f"Not equivalent {where}: output '{name}', {what}", "proof")
    elif output.get("unstable"):
        yield Alert(WARNING, f"Output '{name}' is {detail or 'unstable'} {where}", "proof")
    agreement = output["argmax_agreement"]
    if agreement is not None and agreement < 1:
        share = f"{100 * (1 - agreement):.2g} %"
        yield Alert(
            WARNING, f"Output '{name}' names another class in {share} of rows {where}", "proof"
        )


def _missed(model: Mapping[str, Any]) -> Iterator[Alert]:
    missed = len(missed_sites(model))
    if missed:
        yield Alert(ERROR, f"--require-folded: {counted(missed, 'site')} kept", "sites")


def _kept(model: Mapping[str, Any], elsewhere: frozenset[str]) -> Iterator[Alert]:
    kept = [
        site
        for site in model.get("sites") or ()
        if site["verdict"] == "kept" and site["kind"] != BRANCH
    ]
    counts = Counter(site["reason"] for site in kept)
    for reason, remedy in _REMEDIES.items():
        count = counts.pop(reason.value, 0)
        if count:
            message = f"{counted(count, 'site')} kept, {reason.value}: {REASONS[reason]}; {remedy}"
            severity = NOTE if reason is Reason.EXCLUDED else WARNING
            yield Alert(severity, message, "sites", reason.value)
    if counts:
        listed = ", ".join(f"{code} ({count})" for code, count in counts.most_common())
        message = f"{counted(counts.total(), 'site')} kept that nothing here can take: {listed}"
        yield Alert(NOTE, message, "sites", next(iter(counts)) if len(counts) == 1 else None)
    others = [site["name"] for site in kept if site["name"] in elsewhere]
    if others:
        yield Alert(
            WARNING,
            f"{counted(len(others), 'site')} kept here and folded in another model: "
            + _listed(others),
            "sites",
        )


def _statistics(norms: Sequence[Mapping[str, Any]]) -> Iterator[Alert]:
    yield from _channels(norms, "statistics")
    broken = [norm["name"] for norm in norms if norm["not_finite"]]
    if broken:
        yield Alert(WARNING, f"Statistics that are not finite: {_listed(broken)}", "statistics")
    untouched = [norm["name"] for norm in norms if norm["never_updated"]]
    if untouched:
        message = f"Statistics as before training, mean 0 and variance 1: {_listed(untouched)}"
        yield Alert(WARNING, message, "statistics")


def _channels(norms: Sequence[Mapping[str, Any]], section: str) -> Iterator[Alert]:
    dead = {norm["name"]: {*norm["dead_scale"], *norm["dead_variance"]} for norm in norms}
    noisy = {norm["name"]: set(norm["noisy"]) for norm in norms}
    for channels, one, many in (
        (dead, "dead channel", "dead channels"),
        (noisy, "channel that amplifies noise", "channels that amplify noise"),
    ):
        names = [name for name, found in channels.items() if found]
        if names:
            count = counted(sum(map(len, channels.values())), one, many)
            yield Alert(WARNING, f"{count} in {_listed(names)}", section)


def _drift(model: Mapping[str, Any]) -> Iterator[Alert]:
    norms = model.get("norms") or ()
    yield from _channels(norms, "drift")
    constant = [norm["name"] for norm in norms if norm["kept_channels"]]
    if constant:
        message = (
            f"Channels that are constant in the data keep their statistics: {_listed(constant)}"
        )
        yield Alert(WARNING, message, "drift")
    kept = Counter(norm["reason"] for norm in model.get("kept") or ())
    for code, count in kept.items():
        message = f"{counted(count, 'normalization')} kept as it was: {code}"
        yield Alert(NOTE, message, "drift")


def _latency(speeds: Sequence[Mapping[str, Any]]) -> Iterator[Alert]:
    for speed in speeds:
        if speed["verdict"] == "slower":
            message = f"{speed['model']} is slower than the first model: {speed['ratio']:.3f} times"
            yield Alert(WARNING, message, "latency")


def _listed(names: Sequence[str], most: int = 3) -> str:
    """Quote the first names, and say how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
