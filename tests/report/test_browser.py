"""The HTML page in a real browser: Chromium, without a network and without a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bnfold.report.render.html import to_html
from tests.report.samples import HOSTILE, SAMPLES, folded, model, rich, site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

FOCUS = """() => {
  const at = document.activeElement;
  return at.name || at.ariaLabel || at.className || at.tagName;
}"""
SIZE = {"width": 1280, "height": 900}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def window(browser: Any) -> Any:
    return browser.new_context(viewport=SIZE, reduced_motion="reduce")


@pytest.fixture(scope="module")
def window_without_javascript(browser: Any) -> Any:
    return browser.new_context(viewport=SIZE, java_script_enabled=False)


@pytest.fixture
def show(tmp_path: Path, window: Any) -> Iterator[Open]:
    """Open a report; in the end nothing was said on the console, and nothing fetched."""
    noticed: list[str] = []
    pages = []

    def open_page(report: dict[str, Any], within: Any = window) -> Any:
        file = tmp_path / "a report & more.html"
        file.write_text(to_html(report), encoding="utf-8")
        page = within.new_page()
        pages.append(page)
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("dialog", lambda dialog: noticed.append(dialog.message))
        page.on("request", lambda request: noticed.append(request.url))
        page.goto(file.as_uri())
        assert noticed.pop(0) == file.as_uri()
        return page

    yield open_page
    for page in pages:
        page.close()
    assert noticed == []


def shown(page: Any) -> int:
    """The rows of sites that can be seen."""
    count: int = page.locator("#m1-sites tbody tr:visible").count()
    return count


def says(page: Any) -> str:
    text: str = page.locator("#m1-sites output").inner_text()
    return text


def test_filters(show: Open) -> None:
    report = rich(40)
    page = show(report)
    sites = report["sites"]
    kept = [each for each in sites if each["verdict"] == "kept"]
    assert (shown(page), says(page)) == (40, "40 of 40 shown")
    page.get_by_label("Verdict").select_option("kept")
    assert (shown(page), says(page)) == (len(kept), f"{len(kept)} of 40 shown")
    page.get_by_label("Reason").select_option("fan_out")
    assert shown(page) == sum(each["reason"] == "fan_out" for each in kept)
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelector('#m1-sites output').textContent[0] === '4'")
    assert shown(page) == 40
    page.get_by_label("Search").fill("STAGE2 conv17")
    assert shown(page) == 1
    page.get_by_label("Search").fill("nobody")
    assert (shown(page), says(page)) == (0, "0 of 40 shown")


def test_an_alert_leads_to_the_sites_it_is_about(show: Open) -> None:
    report = rich(40)
    page = show(report)
    page.locator(".alert", has_text="padding_shift").get_by_role("link").click()
    assert page.url.endswith("#m1-sites")
    expected = [each for each in report["sites"] if each["reason"] == "padding_shift"]
    assert shown(page) == len(expected)
    assert page.locator("#m1-sites h2").is_visible()


def test_links_are_followed(show: Open) -> None:
    page = show(SAMPLES["several"])
    links = page.get_by_role("link").all()
    assert len(links) > 10
    for link in links:
        target = link.get_attribute("href")
        link.press("Enter")
        assert page.url.endswith(target)
        assert page.locator(target).is_visible()


def test_models_are_filtered(show: Open) -> None:
    page = show(SAMPLES["several"])
    rows = page.locator("#models tbody tr:visible")
    assert rows.count() == 4
    page.get_by_label("Outcome").select_option("bad")
    assert rows.count() == 1
    assert "broken.onnx" in rows.inner_text()


def test_details_open(show: Open) -> None:
    page = show(rich())
    last = page.locator("details tbody tr").last
    assert not last.is_visible()
    page.get_by_text("All 60 layers").click()
    assert last.is_visible()


def test_everything_is_there_without_javascript(show: Open, window_without_javascript: Any) -> None:
    page = show(rich(40), window_without_javascript)
    assert page.locator("#m1-sites tbody tr:visible").count() == 40
    assert page.locator("form:visible").count() == 0
    assert page.locator("button:visible").count() == 0
    assert page.locator("details tbody tr").last.is_visible()
    assert page.locator("svg.curve").bounding_box()["height"] > 100


@pytest.mark.parametrize("name", SAMPLES)
def test_every_report_opens(show: Open, name: str) -> None:
    page = show(SAMPLES[name])
    assert page.locator("h1").is_visible()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 1280


def test_a_narrow_window_scrolls_tables_and_not_the_page(show: Open) -> None:
    page = show(rich())
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_light_and_dark(show: Open) -> None:
    page = show(rich(5))
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert found == ["rgb(246, 247, 249)", "rgb(16, 20, 24)"]


def test_the_keyboard_reaches_filters_and_tables(show: Open) -> None:
    page = show(rich(5))
    reached = [""]
    while reached[-1] != "Command":
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUS))
    assert {"skip", "Proof", "SUMMARY", "text", "verdict", "reason", "Sites"} <= set(reached)


def test_print(show: Open) -> None:
    page = show(rich(40))
    page.get_by_label("Verdict").select_option("kept")
    page.emulate_media(media="print")
    assert page.locator("form:visible").count() == 0
    assert page.locator("details tbody tr").last.is_visible()
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 2


def test_names_do_nothing(show: Open) -> None:
    named = [
        model(site(name), folded(name, name), model=name, hints=[name], operators=None)
        for name in HOSTILE
    ]
    page = show({**SAMPLES["several"], "models": named})
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1


def test_a_script_that_came_in_would_not_run(show: Open, tmp_path: Path) -> None:
    page = show(rich(5))
    file = tmp_path / "changed.html"
    changed = page.content().replace("</main>", "</main><script>window.hacked = 1</script>")
    file.write_text(changed, encoding="utf-8")
    other = page.context.new_page()
    other.goto(file.as_uri())
    assert other.evaluate("window.hacked") is None


def test_many_sites(show: Open) -> None:
    page = show(rich(500))
    assert says(page) == "500 of 500 shown"
    page.get_by_label("Search").fill("conv499")
    assert says(page) == "1 of 500 shown"
