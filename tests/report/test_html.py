"""The HTML page: valid, closed in itself, accessible, and inert whatever a model names."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest

from bnfold.report.render import html
from bnfold.report.render.html import to_html
from tests.report.samples import HOSTILE, SAMPLES, folded, model, output, rich, site, statistics
from tests.report.samples import check as checked

CSS = (Path(html.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
REPORTS = pytest.mark.parametrize("name", SAMPLES)


def parsed(page: str) -> Element:
    """The page as elements; any error of HTML is one of the test."""
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    return tree


@functools.cache
def sample(name: str) -> Element:
    return parsed(to_html(SAMPLES[name]))


def elements(page: Element) -> list[Element]:
    return [element for element in page.iter() if isinstance(element.tag, str)]


def named(name: str) -> dict[str, Any]:
    """A report in which everything that a model can name has this name."""
    sites = [
        folded(name, name, through=(name,)),
        site(name, kind=name, graph=name, detail=name),
    ]
    outputs = [output(name, detail=name, equivalent=False)]
    return {
        **rich(),
        **model(*sites, checks=[checked(*outputs, detail=name, warnings=[name])]),
        "model": name,
        "hints": [name],
        "operators": {"before": {name: 1}, "after": {}},
        "statistics": [statistics(name, dead_scale=[0])],
    }


@REPORTS
def test_valid(name: str) -> None:
    sample(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_and_nothing_else(name: str) -> None:
    harmless = "x" + "/" * name.count("/")
    plain, hostile = (elements(parsed(to_html(named(each)))) for each in (harmless, name))
    kinds = [
        Counter((each.tag, *sorted(each.attrib)) for each in some) for some in (plain, hostile)
    ]
    assert kinds[0] == kinds[1]


@REPORTS
def test_it_refers_to_nothing_outside(name: str) -> None:
    for element in elements(sample(name)):
        for attribute in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
            value = element.get(attribute, "#")
            assert value.startswith("#") or value == "data:,", value
        assert "style" not in element.attrib
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert "http" not in to_html(SAMPLES[name]).replace("http-equiv", "")


@REPORTS
def test_links_lead_somewhere(name: str) -> None:
    found = elements(sample(name))
    names = [element.get("id") for element in found if "id" in element.attrib]
    assert len(names) == len(set(names))
    links = [element.get("href", "")[1:] for element in found if element.tag == "a"]
    described = [element.get("aria-labelledby") for element in found]
    assert set(links) <= set(names)
    assert {each for each in described if each} <= set(names)


@REPORTS
def test_readers_of_the_screen_are_told_everything(name: str) -> None:
    page = sample(name)
    inside_labels = {id(field) for label in page.iter("label") for field in label.iter()}
    for element in elements(page):
        if element.tag in {"input", "select"}:
            assert id(element) in inside_labels
        if element.tag == "th":
            assert element.get("scope") in {"col", "row"}
        if element.tag.endswith("svg"):
            assert element.get("aria-label") or element.get("aria-hidden")
        if element.get("tabindex") is not None:
            assert (element.get("tabindex"), element.get("role")) == ("0", "group")
            assert element.get("aria-label")
    levels = [int(each.tag[1]) for each in elements(page) if re.fullmatch("h[1-6]", each.tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_policy_allows_what_is_there() -> None:
    page = sample("rich")
    policy = next(each for each in page.iter("meta") if each.get("http-equiv")).get("content", "")
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        (element,) = page.iter(tag)
        digest = hashlib.sha256((element.text or "").encode()).digest()
        assert f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy


def test_what_is_shown_of_each_verb() -> None:
    for name, headings in {
        "rich": ["Proof", "Error by layer", "Sites", "Operators", "To see it again"],
        "comparison": ["Proof", "To see it again"],
        "recalibration": ["Drift of the statistics", "Normalizations kept", "To see it again"],
        "benchmark": ["Latency", "Load time and memory", "To see it again"],
        "failed": ["To see it again"],
    }.items():
        page = sample(name)
        assert [text(each) for each in page.iter("h2")] == headings


def test_alerts_stand_on_top_the_worst_first() -> None:
    page = sample("rich")
    alerts = [text(each) for each in page.iter("li") if "alert" in each.get("class", "")]
    kinds = [alert.split()[0] for alert in alerts]
    assert kinds == sorted(kinds, key=["Failure", "Warning", "Note"].index)
    for part in (
        "nothing was written",
        "output 'logits'",
        "another class in 2 % of rows",
        "Output 'mask' is unstable",
        "--ones-channel",
        "2 dead channels",
    ):
        assert any(part in alert for alert in alerts), part


def test_every_site_has_its_path_and_histograms() -> None:
    report = rich(40)
    page = parsed(to_html(report))
    rows = [each for each in page.iter("tr") if each.get("data-verdict")]
    assert len(rows) == 40
    for row, expected in zip(rows, report["sites"], strict=True):
        shown = text(row)
        assert row.get("data-verdict") == expected["verdict"]
        assert row.get("data-reason") == expected["reason"]
        for part in (expected["name"], *expected["into"], *expected["through"]):
            assert part in shown
        assert shown.count("of 8 channels") == 2


def test_the_command_can_be_copied_into_a_shell() -> None:
    page = sample("rich")
    (command,) = page.iter("pre")
    assert text(command) == "bnfold optimize 'a b.onnx' --report r.html"


def text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def colours(scheme: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})\b", scheme))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_contrast(scheme: int) -> None:
    """At least 4.5 to 1, as WCAG 2 asks for at level AA."""
    found = colours(re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[scheme])
    pairs = [*product(("text", "muted", "accent"), ("page", "card", "soft"))]
    pairs += [(tone, f"{tone}-soft") for tone in ("good", "bad", "fair")]
    pairs += [*product(("good", "bad", "fair"), ("card",))]
    for front, back in pairs:
        one, other = sorted((luminance(found[front]), luminance(found[back])))
        assert (other + 0.05) / (one + 0.05) >= 4.5, (front, back)
