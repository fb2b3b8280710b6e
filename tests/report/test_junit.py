"""JUnit XML: which tests there are, which of them fail, and that every name can be written."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from junitparser import JUnitXml

from bnfold.report.render.junit import to_junit
from tests.report.samples import HOSTILE, RUN, SAMPLES, folded, model, output, rich, site
from tests.report.samples import check as checked

Cases = dict[str, ET.Element]


def cases(report: dict[str, Any]) -> Cases:
    """The test cases by name."""
    document = ET.fromstring(to_junit(report).encode())  # noqa: S314 - our own
    return {case.get("name", ""): case for case in document.iter("testcase")}


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    """What became of each test case."""
    kinds = ("failure", "error", "skipped")
    return {
        name: next((kind for kind in kinds if case.find(kind) is not None), "passed")
        for name, case in cases(report).items()
    }


def test_a_model_that_folds() -> None:
    report = model(
        folded("bn", "conv", through=("relu",)), site("other"), checks=[checked(output())]
    )
    assert outcomes(report) == {"folded": "passed", "equivalent on CPU, default": "passed"}
    found = cases(report)["folded"]
    assert {p.get("name"): p.get("value") for p in found.iter("property")}[
        "kept other"
    ] == "fan_out"
    said = found.findtext("system-out", "")
    assert "bn (BatchNormalization): folded backward into conv through relu" in said


def test_kept_sites_fail_where_all_have_to_go() -> None:
    sites = folded("bn", "conv"), site("other"), site("asked", reason="excluded")
    report = {**model(*sites), "run": {**RUN, "require_folded": True}}
    failure = cases(report)["folded"].find("failure")
    assert failure is not None
    assert failure.get("message") == "--require-folded: 1 site kept"
    assert failure.text is not None
    assert failure.text.startswith("other (")


def test_what_is_not_equivalent_fails_where_it_was_found() -> None:
    assert outcomes(rich()) == {
        "folded": "skipped",
        "equivalent on CPU, disable_all": "passed",
        "equivalent on CUDA, default": "failure",
    }
    said = cases(rich())["equivalent on CUDA, default"].find("failure")
    assert said is not None
    assert "logits: DIFFERENT, D 5e-06" in (said.text or "")


def test_errors() -> None:
    assert outcomes(SAMPLES["failed"]) == {"finished": "error"}
    error = cases(SAMPLES["failed"])["finished"].find("error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("ModelError", "a.onnx: not ONNX")
    assert error.text == "hint: try another"


def test_the_other_verbs() -> None:
    assert outcomes(SAMPLES["recalibration"]) == {"recalibrated": "passed"}
    assert outcomes(SAMPLES["benchmark"]) == {"timed on CPU, batch 8, 2 threads": "passed"}
    assert "failure" in outcomes(SAMPLES["comparison"]).values()


@pytest.mark.parametrize("name", SAMPLES)
def test_others_can_read_it(name: str) -> None:
    document = JUnitXml.fromstring(to_junit(SAMPLES[name]).encode())
    models = SAMPLES[name].get("models", [{}])
    assert len(list(document)) == (len(models) if isinstance(models[0], dict) else 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_name_can_be_written(name: str) -> None:
    checks = [checked(output(name, equivalent=False, detail=name), warnings=[name])]
    report = {**model(site(name), folded(name, name), checks=checks), "model": name}
    plain, hostile = (
        ET.fromstring(to_junit(each).encode())  # noqa: S314
        for each in ({**report, "model": "x"}, report)
    )
    assert [each.tag for each in plain.iter()] == [each.tag for each in hostile.iter()]
