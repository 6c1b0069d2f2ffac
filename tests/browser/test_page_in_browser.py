"""The page in a real browser, beside logs that are written record by record."""

from __future__ import annotations

import time

import pytest

from fccl.pages.dashboard.page import TABS
from fccl.paths import ExchangePaths
from fccl.records.run import ExcludedClient
from fccl.storage.files import write_text
from fccl.transports.exchange.quarantine import Quarantine
from tests.browser.conftest import Processes
from tests.compare.made_up import comparison
from tests.view import histories
from tests.view import logs as logs_module
from tests.view.logs import Logs

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> [press](javascript:alert(3)) "
    "$\\frac{1}{2}$ :material/home: :red[no] `code` <b>bold</b> https://example.com"
)
NARROW = {"width": 390, "height": 844}
PANEL = "[role=tabpanel]"
DAY_S = 86_400.0  # nobody is late or dead before that, however long the tests take
ATTEMPTS = 5  # a page that draws all the time draws in each; what a busy machine draws late is in the first ones


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A served folder: a running federation whose every word is hostile, and an earlier run."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs_module, "BEGAN", time.time() - 2 * logs_module.ROUND_S - 10)
        hostile(folder)
        earlier = Logs(folder / "logs" / "runs" / "earlier", run_id=f"earlier {HOSTILE}").begin(model_name=HOSTILE)
        earlier.round(0)
        earlier.event("failed", logs_module.BEGAN, message=HOSTILE)
    processes = Processes(folder)
    try:
        yield processes.dashboard()
    finally:
        processes.stop()


def hostile(folder):
    logs = Logs(folder / "logs", fed_rounds=3, run_id=HOSTILE[:100])  # a heartbeat's run id has no more
    logs.begin(model_name=HOSTILE, heartbeat_stale_s=DAY_S, client_timeout_s=DAY_S)
    for number in range(2):
        record = logs.record(number, excluded=(2,))
        logs.append(
            logs.paths.progress, record.model_copy(update={"excluded": (ExcludedClient(client_id=2, reason=HOSTILE),)})
        )
        logs.append(logs.paths.client_metrics, logs.metrics(number, 0, training_s=DAY_S))
    logs.commit(2)
    logs.beat(0, "training", 2, time.time(), host=HOSTILE, step=3, steps=8)
    write_text(
        logs.paths.evaluation_json,
        histories.evaluation(names=("base", HOSTILE), answer=HOSTILE, topic=HOSTILE).model_dump_json(),
    )
    write_text(logs.paths.manifest, histories.manifest(topics=(HOSTILE, "birds")).model_dump_json())
    scenarios = tuple(one.model_copy(update={"title": HOSTILE}) for one in comparison().scenarios)
    write_text(
        logs.paths.compare.results,
        comparison().model_copy(update={"model": HOSTILE, "scenarios": scenarios}).model_dump_json(),
    )
    paths = ExchangePaths(folder / "exchange")
    write_text(paths.phase(2), "sft")
    write_text(paths.update(1, 2), "")
    write_text(paths.root / HOSTILE.replace("/", "_"), "")
    Quarantine(paths).refuse([paths.update(1, 2)], HOSTILE, "run", 2, 1)


def test_hostile_words_stay_words(place, visit):
    """No element of theirs, no link, no formula, no icon; the words themselves are there to be read."""
    here = visit(place)
    here.page.get_by_label("Compare with").click()
    here.page.get_by_role("option", name="earlier").click()
    here.until("() => document.querySelector('[role=tab][aria-selected=true]').textContent === 'Two runs'")
    for tab in TABS:
        here.open(tab)
        markup = (
            f"{PANEL} script, img[src=x], a[href^=javascript], .katex, {PANEL} b, "
            "[data-testid=stMarkdownColoredText], a[href*='example.com']"
        )
        assert here.page.locator(markup).count() == 0, tab
    here.open("Evaluation")
    here.until_words(".fccl-table", HOSTILE)
    here.open("Two runs")
    here.until_words(".fccl-table", f"earlier {HOSTILE}")
    here.open("Clients")
    here.until_cell("Clients excluded from a round, and why", 0, HOSTILE)
    here.until_words(".fccl-under", HOSTILE)
    here.until_words(".fccl-alert", f"! Client 2 was excluded from round 2: {HOSTILE}")


@pytest.mark.parametrize("size", [NARROW, {"width": 1280, "height": 800}], ids=["phone", "desktop"])
def test_no_tab_scrolls_sideways(place, visit, size):
    here = visit(place, **size)
    for tab in TABS:
        here.open(tab)
        here.until(
            """() => [document.documentElement, ...document.querySelectorAll('[data-testid=stMain], .stMainBlockContainer')]
                .every(element => element.scrollWidth <= element.clientWidth + 1)"""
        )


def test_the_first_screen_says_how_it_is_going(place, visit):
    here = visit(place)
    for part in (
        "h1.fccl-sentence",
        "[role=progressbar]",
        ".st-key-tiles",
        ".fccl-alert",
        "[role=tablist]",
        "[data-testid=stVegaLiteChart]",
    ):
        here.until(
            """part => {
                const box = document.querySelector(part)?.getBoundingClientRect();
                return box?.height > 0 && box.top + Math.min(box.height, 250) <= 800;
            }""",
            part,
        )


def test_light_and_dark_follow_the_browser(place, visit):
    ground = "colour => getComputedStyle(document.querySelector('.stApp')).backgroundColor === colour"
    visit(place, color_scheme="light").until(ground, "rgb(255, 255, 255)")
    visit(place, color_scheme="dark").until(ground, "rgb(20, 24, 29)")


def test_every_control_and_every_picture_has_a_name_and_the_headings_are_in_order(place, visit):
    here = visit(place)
    for tab in TABS:
        here.open(tab)
        assert here.page.locator("h1").count() == 1
        levels = here.page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
        assert levels == [1, *[2] * (len(levels) - 1)], tab
        nameless = here.page.evaluate(
            """() => [...document.querySelectorAll('input, select, textarea, button, [role=combobox], [role=tab], [role=radio], [role=progressbar]')]
                .filter(each => each.checkVisibility() && each.tabIndex >= 0)
                .filter(each => !(each.getAttribute('aria-label') || each.getAttribute('aria-labelledby') || each.labels?.length
                                  || each.closest('label') || each.textContent.trim() || each.title))
                .map(each => each.outerHTML.slice(0, 200))"""
        )
        assert nameless == [], tab
        pictures = here.page.locator("[data-testid=stVegaLiteChart]").evaluate_all(
            "all => all.map(each => each.getAttribute('aria-label'))"
        )
        grids = "all => all.map(each => each.closest('[role=region]').getAttribute('aria-label'))"
        names = pictures + here.page.locator("canvas[data-testid=data-grid-canvas]").evaluate_all(grids)
        assert all(name and len(name) > 10 for name in names), names


def test_the_tabs_are_reached_and_changed_with_the_keyboard(place, visit):
    here = visit(place)
    here.page.get_by_role("tab", name="Log", exact=True).wait_for()
    for _ in range(40):
        here.page.keyboard.press("Tab")
        if here.page.evaluate("() => document.activeElement.getAttribute('role') === 'tab'"):
            break
    here.page.keyboard.press("ArrowRight")
    here.page.keyboard.press("Enter")
    here.until("() => document.querySelector('[role=tab][aria-selected=true]').textContent === 'Influence'")
    assert here.page.evaluate(
        "() => getComputedStyle(document.activeElement).outlineStyle !== 'none' || "
        "document.activeElement.matches(':focus-visible')"
    )


def test_the_address_keeps_the_tab(place, visit):
    here = visit(place)
    here.open("Clients")
    here.until("() => location.search.includes('tab=Clients')")
    again = visit(here.page.url)
    again.until("() => document.querySelector('[role=tab][aria-selected=true]')?.textContent === 'Clients'")


# --- a page that somebody is reading


@pytest.fixture
def running(processes, monkeypatch):
    """A run that the test goes on with, and the page of it."""
    monkeypatch.setattr(logs_module, "BEGAN", time.time() - logs_module.ROUND_S)
    logs = Logs(processes.folder / "logs", fed_rounds=20).begin()
    for number in range(3):
        logs.round(number)
    write_text(logs.paths.evaluation_json, histories.evaluation().model_dump_json())
    return logs, processes.dashboard()


def test_what_is_new_appears_and_the_reader_stays_where_he_is(running, visit):
    logs, url = running
    here = visit(url, height=400)
    here.open("Evaluation")
    here.page.get_by_role("paragraph").filter(has_text="Response perplexity by topic").click()
    here.page.get_by_role("table", name="Response perplexity by topic").wait_for()
    here.page.locator("[data-testid=stMain]").evaluate("main => main.scrollTo(0, 700)")
    place = here.page.locator("[data-testid=stMain]").evaluate("main => main.scrollTop")
    assert place > 300
    for number in range(3, 6):
        logs.round(number)
        here.until_sentence(f"Round {number + 2} of 40")
    assert here.page.locator("[data-testid=stMain]").evaluate("main => main.scrollTop") == place
    assert here.page.get_by_role("table", name="Response perplexity by topic").is_visible()
    here.open("Log")
    here.page.get_by_label("Filter").fill('"round":7,')
    here.page.get_by_label("Filter").press("Enter")
    here.until("() => document.querySelector('.fccl-nothing')?.textContent.includes('No line')")
    here.page.get_by_label("Filter").focus()
    for number in range(6, 9):
        logs.round(number)
        here.until_sentence(f"Round {number + 2} of 40")
    here.until("() => document.querySelector('code')?.textContent.includes('\"round\":7,')")
    assert here.page.get_by_label("Filter").input_value() == '"round":7,'
    assert here.page.evaluate("() => document.activeElement.tagName") == "INPUT"


MARKS = "[data-testid=stVegaLiteChart] .mark-symbol.role-mark path"


def test_the_charts_take_new_rounds(running, visit):
    """Points of the clients' and of the validation loss: four for every round."""
    logs, url = running
    here = visit(url)
    here.until("([marks, count]) => document.querySelectorAll(marks).length === count", [MARKS, 12])
    for number in range(3, 6):
        logs.round(number)
        here.until("([marks, count]) => document.querySelectorAll(marks).length === count", [MARKS, 4 * (number + 1)])
    here.page.emulate_media(color_scheme="dark")
    here.until("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor === 'rgb(20, 24, 29)'")
    logs.round(6)
    here.until("([marks, count]) => document.querySelectorAll(marks).length === count", [MARKS, 28])


def test_nothing_is_drawn_anew_when_there_is_nothing_new(processes, visit):
    logs = Logs(processes.folder / "logs").begin()
    for number in range(4):
        logs.round(number)
        logs.beat(number % 3, "done", 3, logs_module.BEGAN)
    logs.event("finished", logs_module.BEGAN + 400, round=4)
    here = visit(processes.dashboard())
    here.until(
        "() => document.querySelectorAll('[data-testid=stVegaLiteChart] svg').length === 4 && "
        "document.querySelector('[role=gridcell]')"
    )
    here.page.evaluate(
        """() => {
            window.drawn = [];
            const note = changes => window.drawn.push(...changes.map(change => `${change.type} ${change.target.nodeName}`));
            for (const part of document.querySelectorAll('[role=tabpanel], .st-key-tiles, .st-key-headline'))
                new MutationObserver(note).observe(part, {subtree: true, childList: true, characterData: true});
        }"""
    )
    drawn = ["what is loaded late"]
    for _ in range(ATTEMPTS):
        here.until_news(20)
        if not (drawn := here.page.evaluate("() => window.drawn.splice(0)")):
            break
    assert drawn == []
    logs.event("failed", logs_module.BEGAN + 500, round=4)
    here.until("() => window.drawn.length > 0")
