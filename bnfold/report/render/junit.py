"""Reports as JUnit XML, which GitLab, Jenkins and others show: one suite for each model.

The tests of a suite are ``folded`` (the sites in its properties and its output), ``equivalent`` for
each provider and level, ``recalibrated``, and ``timed`` for each latency. A site that is kept is no
failure, unless the run required that all of them go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from junitparser import (
    Error,
    Failure,
    JUnitXml,
    Properties,
    Property,
    Skipped,
    TestCase,
    TestSuite,
)
from junitparser.junitparser import FinalResult

from bnfold.report.render.alerts import missed_sites, models_of
from bnfold.report.render.overview import headline, title, verb_of
from bnfold.report.render.text import counted, number, provider_name, readable

__all__ = ["to_junit"]


def to_junit(report: Mapping[str, Any]) -> str:
    """Return a report as JUnit XML.

    Args:
        report: The object of a run, of any verb and of any number of models.
    """
    report = readable(report)
    run = report.get("run") or {}
    document = JUnitXml(f"bnfold {verb_of(report)}".strip())
    for model in models_of(report):
        suite = TestSuite(title(model))
        for name, value in (run.get("environment") or {}).items():
            suite.add_property(name, value)
        if run.get("command"):
            suite.add_property("command", run["command"])
        suite.add_testcases(_cases(model, required=bool(run.get("require_folded"))))
        if run.get("date"):
            suite.timestamp = run["date"].removesuffix("+00:00")
        document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text = bytes(document.tostring()).decode("utf-8")  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _cases(model: Mapping[str, Any], *, required: bool) -> list[TestCase]:
    cases = [
        *_folded(model, required=required),
        *_equivalent(model),
        *_recalibrated(model),
        *_timed(model.get("speeds") or ()),
    ]
    error = model.get("error")
    if error is not None:
        failed = any(case.is_failure for case in cases)
        if not failed:
            cases = [*cases, _case(model, "finished", _problem(Error, error))]
    return cases


def _folded(model: Mapping[str, Any], *, required: bool) -> Iterator[TestCase]:
    if "sites" not in model:
        return
    results: list[FinalResult] = []
    missed = missed_sites(model)
    if required and missed:
        message = f"--require-folded: {counted(len(missed), 'site')} kept"
        results.append(_result(Failure, message, "KeptSites", _lines(missed)))
    elif model.get("error") is not None:
        results.append(Skipped("nothing was written"))
    case = _case(model, "folded", *results)
    kept = [site for site in model["sites"] if site["verdict"] == "kept"]
    reasons = {f"kept {site['name']}": site["reason"] for site in kept}
    _add_properties(case, {**model["summary"], **reasons})
    case.system_out = "\n".join([headline(model), *_lines(model["sites"])])
    case.time = model.get("seconds") or 0.0
    yield case


def _lines(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{site['name']} ({site['kind']}): {_outcome(site)}" for site in sites]


def _outcome(site: Mapping[str, Any]) -> str:
    if site["verdict"] == "kept":
        return f"kept, {site['reason']}: {site['detail'] or ''}"
    through = f" through {', '.join(site['through'])}" if site["through"] else ""
    return f"folded {site['direction'] or ''} into {', '.join(site['into'])}{through}"


def _equivalent(model: Mapping[str, Any]) -> Iterator[TestCase]:
    for check in model.get("checks") or ():
        name = f"equivalent on {provider_name(check['provider'])}, {check['level']}"
        lines = [_distance(output) for output in check["outputs"]]
        results: list[FinalResult] = []
        if not check["equivalent"]:
            wrong = [output for output in check["outputs"] if not output["equivalent"]]
            names = ", ".join(f"'{output['name']}'" for output in wrong)
            message = check["detail"] or f"not equivalent: {names}"
            results.append(_result(Failure, message, "NotEquivalent", lines))
        case = _case(model, name, *results)
        case.system_out = "\n".join([*lines, *check["warnings"]])
        yield case


def _distance(output: Mapping[str, Any]) -> str:
    """Say in one line how far an output is from the reference."""
    line = (
        f"{output['name']}: {'equivalent' if output['equivalent'] else 'DIFFERENT'}, "
        f"D {number(output['difference'])}, noise {number(output['noise'])}, "
        f"allowed {number(output['allowed'])}"
    )
    return f"{line}: {output['detail']}" if output["detail"] else line


def _recalibrated(model: Mapping[str, Any]) -> Iterator[TestCase]:
    if "norms" not in model:
        return
    case = _case(model, "recalibrated")
    case.system_out = "\n".join(
        [f"{norm['name']}: KL {number(norm['kl'])} nats" for norm in model["norms"]]
        + [f"{norm['name']}: kept, {norm['reason']}" for norm in model["kept"]]
    )
    yield case


def _timed(speeds: Sequence[Mapping[str, Any]]) -> Iterator[TestCase]:
    for speed in speeds:
        batch = "" if speed["batch"] is None else f", batch {speed['batch']}"
        threads = f", {speed['threads']} threads" if speed["threads"] else ""
        provider = provider_name(speed["provider"])
        case = TestCase(f"timed on {provider}{batch}{threads}", speed["model"])
        case.time = speed["latency_ms"]["median"] / 1000
        _add_properties(case, {key: speed[key] for key in ("ratio", "verdict", "throughput")})
        yield case


def _case(model: Mapping[str, Any], name: str, *results: FinalResult) -> TestCase:
    case = TestCase(name, title(model))
    case.result = list(results)
    return case


def _problem(kind: type[FinalResult], error: Mapping[str, Any]) -> FinalResult:
    hint = [f"hint: {error['hint']}"] if error["hint"] else []
    return _result(kind, error["message"], error["kind"], hint)


def _result(kind: type[FinalResult], message: str, name: str, lines: Iterable[str]) -> FinalResult:
    result = kind(message, name)
    result.text = "\n".join(lines)
    return result


def _add_properties(case: TestCase, values: Mapping[str, Any]) -> None:
    properties = Properties()  # type: ignore[no-untyped-call]
    for name, value in values.items():
        if value is not None:
            properties.add_property(Property(name, str(value)))
    case.append(properties)  # type: ignore[no-untyped-call]
