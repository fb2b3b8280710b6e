"""The site builds without a warning, and is read without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bnfold
import bnfold.torch
from tests.docs.pages import DOCS, ROOT

pytest.importorskip("sphinx", reason="the site is built with the extra 'docs'")

BUILD = "sphinx-build -W --keep-going -n -b html docs docs/_build"
LOADS = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src"}
PLAIN_LINKS = {"canonical", "license", "author", "help", "next", "prev", "index", "search"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = BUILD.split()[1:-1]
    result = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


class Page(HTMLParser):
    """What a page loads, and its formulas."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.formulas = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.formulas += tag == "math"
        wanted = attributes.get(LOADS.get(tag, ""))
        if wanted and attributes.get("rel") not in PLAIN_LINKS:
            self.loaded.append(wanted)


def test_every_page_is_there(site: Path) -> None:
    made = {path.stem for path in site.glob("*.html")} - {"genindex", "py-modindex", "search"}
    assert made == {path.stem for path in DOCS.glob("*.md")}


def test_nothing_comes_from_the_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        for wanted in Page(path).loaded:
            assert not re.match(r"(\w+:)?//", wanted), (path.name, wanted)
            assert wanted.startswith("data:") or (path.parent / wanted.split("?")[0]).is_file()
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text("utf-8")), style


def test_formulas_are_mathml(site: Path) -> None:
    page = site / "mathematics.html"
    assert Page(page).formulas > 50
    assert "$" not in re.sub(
        r"<(script|style|pre).*?</\1>", "", page.read_text("utf-8"), flags=re.S
    )


def test_all_of_the_api_is_there(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    public = {f"bnfold.{name}" for name in bnfold.__all__} - {"bnfold.torch", "bnfold.__version__"}
    public |= {f"bnfold.torch.{name}" for name in bnfold.torch.__all__} - {"bnfold.torch.export"}
    assert {name for name in public if f'id="{name}"' not in page} == set()


def test_the_readme_says_how_it_is_built() -> None:
    assert BUILD in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_place_is_left_empty() -> None:
    for path in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        found = re.findall(
            r"\b(?:TODO|FIXME|MEASURED|TBD|OWNER)\b|^\?$", path.read_text("utf-8"), re.MULTILINE
        )
        assert not found, (path.name, found)
