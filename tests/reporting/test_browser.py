"""The page in a browser: it sorts, it fits a telephone, it is dark where that is asked for, and nothing complains."""

from __future__ import annotations

import os
import shutil

import pytest

from reporting.made import write_comparison
from unipetl.reporting import gather, to_html

pytestmark = [pytest.mark.slow, pytest.mark.browser]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
LONG = "a method whose name is very_long_and_has_no_place_to_break_it_anywhere_at_all_whatsoever"


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; CHROMIUM=/path/to/it names one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    methods = {
        "LoRA": "lora",
        LONG: "adapter",
        "<script>alert(1)</script>": "bitfit",
        "full": "full",
        "zero-shot": "none",
    }
    methods["broken"] = "prefix_tuning"
    scores = {("LoRA", 0): 81.0, (LONG, 0): 9.5, ("<script>alert(1)</script>", 0): 100.0, ("broken", 0): None}
    write_comparison(folder, methods, seeds=[0], scores=scores, tasks=("sst2", "mnli"))
    (folder / "report.html").write_text(to_html(gather([folder])), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def visit(chromium, path):
    """Open the page; at the end nothing may have complained, asked the network, or opened a dialogue."""
    heard, open_pages = [], []

    def visit(width=1280, scheme="light", text=None):
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        open_pages.append(page)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: heard.append(request.url) if request.url != path.as_uri() else None)
        if text is None:
            page.goto(path.as_uri())
        else:
            page.set_content(text)
        return page

    visit.heard = heard
    yield visit
    for page in open_pages:
        page.close()


def overflow(page):
    """How many pixels the page is wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def names(page):
    """The methods of the first budget group with several, in their order on the page."""
    rows = page.locator("#overview tbody", has_text="0.1 to 1 %").locator("tr:not(.group) th")
    return [name.split("_")[0] for name in rows.all_inner_texts()]


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_has_the_theme(visit, width, scheme):
    page = visit(width, scheme)
    assert overflow(page) == 0
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    dark = scheme == "dark"
    assert (paper, ink) == (
        ("rgb(20, 23, 28)", "rgb(232, 235, 239)") if dark else ("rgb(254, 254, 254)", "rgb(31, 35, 40)")
    )
    axis = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert axis == ink  # the figures' text has the theme's colour too
    text = page.evaluate("[...document.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height)")
    assert min(text) > (9 if width > 360 else 7)
    assert visit.heard == []


def test_a_planted_wide_element_is_seen(visit, path):
    wide = path.read_text(encoding="utf-8").replace("<main>", "<main><pre class='x'>" + "x" * 900 + "</pre>")
    page = visit(390, text=wide.replace("overflow-x: auto;", ""))
    assert overflow(page) > 0
    assert visit.heard != []  # the changed style sheet is not the one that the policy allows


def test_headings_sort_with_the_mouse_and_with_the_keyboard(visit):
    page = visit()
    before = names(page)
    assert before == ["LoRA", "a method whose name is very", "<script>alert(1)</script>"]
    score = page.locator("#overview thead button").nth(3)
    score.click()
    head = page.locator("#overview thead th").nth(3)
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == ["<script>alert(1)</script>", "LoRA", "a method whose name is very"]  # 100, 81, 9.5
    score.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["a method whose name is very", "LoRA", "<script>alert(1)</script>"]
    name = page.locator("#overview thead button").nth(1)
    name.focus()
    page.keyboard.press("Space")
    assert page.locator("#overview [aria-sort]").count() == 1
    assert page.locator("#overview thead th").nth(1).get_attribute("aria-sort") == "ascending"
    groups = page.locator("#overview tr.group").all_inner_texts()
    assert groups == ["nothing trained", "0.1 to 1 %", "the whole model"]
    assert visit.heard == []


def test_everything_can_be_reached_with_the_keyboard(visit):
    page = visit(390)
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.closest('nav, .scroll, summary, pre')?.className ?? 'other'"))
        if page.evaluate(
            "document.activeElement.tagName === 'SUMMARY' && document.activeElement.innerText.includes('each')"
        ):
            break
    else:
        pytest.fail("the last element that can be opened was not reached")
    assert "scroll" in seen
    page.keyboard.press("Enter")
    assert page.locator("details[open] pre").first.is_visible()
