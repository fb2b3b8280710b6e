"""Markdown: what it says, and that names out of models are inert in it."""

from __future__ import annotations

import html5lib
import pytest
from markdown_it import MarkdownIt

from bnfold.report.render.markdown import MOST_CHARACTERS, MOST_ROWS, to_markdown
from tests.report.samples import ERROR, HOSTILE, SAMPLES, folded, model, site


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_code_and_nothing_else(name: str) -> None:
    plain, hostile = (
        rendered(to_markdown(model(site(each, into=[each]), model=each))) for each in ("x", name)
    )
    assert tags(hostile) == tags(plain)


def tags(html: str) -> list[str]:
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    return [element.tag for element in tree.iter() if isinstance(element.tag, str)]


def test_nobody_is_mentioned_and_nothing_is_linked() -> None:
    error = {**ERROR, "message": "@all #1 https://x.example www.x.example"}
    markdown = to_markdown(model(error=error))
    assert "@all" not in markdown
    assert "#1" not in markdown
    assert "://" not in markdown
    assert "www.x" not in markdown


def test_many_sites_are_cut_and_counted() -> None:
    count = 40
    markdown = to_markdown(model(*(site(f"bn{i}") for i in range(MOST_ROWS + count))))
    assert f"and {count} more" in markdown
    assert "`bn49`" in markdown
    assert "`bn50`" not in markdown


def test_a_comment_is_not_too_long_for_github() -> None:
    sites = [site(f"stage/{i}/" + "n" * 80) for i in range(MOST_ROWS)]
    markdown = to_markdown({"schema_version": 1, "bnfold": "0", "models": [model(*sites)] * 20})
    assert len(markdown) < MOST_CHARACTERS + 200
    assert "other forms" in markdown


def test_kept_sites_come_first() -> None:
    markdown = to_markdown(model(folded("gone", "conv", through=("relu",)), site("stays")))
    assert markdown.index("`stays`") < markdown.index("`gone`")
    assert "into `conv` through `relu`" in markdown


@pytest.mark.parametrize("name", SAMPLES)
def test_every_report_says_what_it_is_about(name: str) -> None:
    report = SAMPLES[name]
    heading = to_markdown(report).splitlines()[0]
    about = report.get("model") or report.get("reference") or report["models"][0]
    assert heading.startswith("## ")
    assert " :" not in heading
    assert (about if isinstance(about, str) else "4 models") in heading


def test_a_failure_is_seen_at_once() -> None:
    first = to_markdown(SAMPLES["rich"]).splitlines()[0]
    assert first == "## ❌ bnfold optimize: `a b.onnx`"
    assert "1 of 4 models failed" in to_markdown(SAMPLES["several"]).splitlines()[0]
