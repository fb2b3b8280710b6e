"""Markdown: what it says, and that names out of models are inert in it."""

from __future__ import annotations

from typing import Any

import html5lib
import pytest
from markdown_it import MarkdownIt

from bnfold.report.render.markdown import MOST_CHARACTERS, MOST_ROWS, to_markdown

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "a|b",
    "``` `x` ```",
    "![x](http://evil.example/x.png)",
    "<!-- -->--><b>",
    "back\\slash\\|",
    "__init__",
    "</code><script>1</script>",
    "line\nbreak\r\n# heading",
    "\x00\x1b[31m\x7f\u202e",
    "*a* _b_ ~~c~~ [d](e) &lt;",
]


def site(name: str, **parts: Any) -> dict[str, Any]:
    kept = {
        "name": name,
        "kind": "BatchNormalization",
        "graph": "main",
        "channels": 3,
        "verdict": "kept",
        "direction": None,
        "into": [],
        "through": [],
        "reason": "fan_out",
        "detail": f'"{name}" is also used elsewhere',
    }
    return {**kept, **parts}


def model(*sites: dict[str, Any], **parts: Any) -> dict[str, Any]:
    folded = sum(each["verdict"] == "folded" for each in sites)
    return {
        "schema_version": 1,
        "bnfold": "0",
        "model": "a.onnx",
        "output": "b.onnx",
        "summary": {
            "sites": len(sites),
            "folded": folded,
            "kept": len(sites) - folded,
            "merged": 0,
            "nodes_before": 9,
            "nodes_after": 7,
            "bytes_before": 2000,
            "bytes_after": 1000,
        },
        "sites": list(sites),
        "checks": [],
        "hints": [],
        **parts,
    }


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
    error = {
        "kind": "ModelError",
        "message": "@all #1 https://x.example www.x.example",
        "hint": None,
    }
    markdown = to_markdown(model(error={**error, "exit_code": 2}))
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
    folded = site(
        "gone", verdict="folded", reason=None, detail=None, into=["conv"], through=["relu"]
    )
    markdown = to_markdown(model(folded, site("stays")))
    assert markdown.index("`stays`") < markdown.index("`gone`")
    assert "into `conv` through `relu`" in markdown
