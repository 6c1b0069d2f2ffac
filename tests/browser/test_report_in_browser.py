"""The report in a real browser: on a wide page and on a phone, light and dark, and on paper."""

from __future__ import annotations

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.storage.files import write_text
from tests.browser.conftest import PATIENCE_S
from tests.view.histories import evaluation, manifest
from tests.view.logs import BEGAN, Logs

pytestmark = pytest.mark.browser

LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
FAINT = """() => {
  const numbers = colour => { const all = colour.match(/[0-9.]+/g).map(Number); return all.length < 4 ? [...all, 1] : all; };
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const faint = [];
  for (const element of document.querySelectorAll('h1, h2, h3, h4, p, dt, dd, small, th, td, a, summary, span, strong')) {
    const box = element.getBoundingClientRect();
    if (!element.textContent.trim() || !box.width || element.classList.contains('skip')) continue;
    const [dark, light] = [luminance(numbers(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => a - b);
    const contrast = (light + .05) / (dark + .05);
    if (contrast < 4.5) faint.push(`${element.tagName}.${element.className} ${contrast.toFixed(2)} ${element.textContent.slice(0, 40)}`);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A finished run with long names, and one that failed in its first round."""
    folder = tmp_path_factory.mktemp("reports")
    settings = {
        name: str(value)
        for name, value in load_settings().model_dump().items()
        if name not in ("num_clients", "fed_rounds")
    }
    long = Logs(folder / "long", clients=14, fed_rounds=3).begin(
        **settings | {"model_name": "organisation/" + "a-very-long-name-" * 8}
    )
    for number in range(6):
        long.round(number, excluded=(3,))
    long.event("finished", BEGAN + 700, 6)
    write_text(
        long.paths.manifest,
        manifest(14, tuple(f"topic-{'x' * 60}-{number}" for number in range(12)), noisy=(2,)).model_dump_json(),
    )
    write_text(long.paths.evaluation_json, evaluation(answer="word" * 80).model_dump_json())
    short = Logs(folder / "short").begin(**settings)
    short.event("failed", BEGAN + 10, 0, message="client 1: " + "the-loss-is-not-finite-" * 20)
    for logs in (long, short):
        assert main(["report", "--log-dir", str(logs.root)]) == 0
    return long.paths.report, short.paths.report


@pytest.fixture
def open_report(browser):
    """Opens a report; whatever it asks for, or complains of, is an error."""
    pages, wrong = [], []

    def open_report(path, width, scheme):
        page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        pages.append(page)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: wrong.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto(path.as_uri())
        return page

    yield open_report
    for page in pages:
        page.context.close()
    assert wrong == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_nothing_sticks_out_and_everything_can_be_read(reports, open_report, width, scheme):
    for path in reports:
        page = open_report(path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(FAINT) == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor").startswith(("rgb(9,", "rgb(0,"))
        assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [1280, 390])
def test_each_chart_is_shown_once_and_no_smaller_than_drawn_for(reports, open_report, width):
    page = open_report(reports[0], width, "light")
    both = (
        "() => [...document.querySelectorAll('figure')].map(figure => "
        "[...figure.querySelectorAll('svg')].map(svg => "
        "%s))"
    )
    shown, drawn = (
        page.evaluate(both % width) for width in ("svg.getBoundingClientRect().width", "svg.viewBox.baseVal.width")
    )
    assert len(shown) == 16
    for widths, natural in zip(shown, drawn, strict=True):
        (at,) = [index for index, one in enumerate(widths) if one]
        assert widths[at] >= 0.9 * natural[at]


def test_charts_take_the_pages_ink(reports, open_report):
    inks = {}
    for scheme in ("light", "dark"):
        page = open_report(reports[0], 1280, scheme)
        inks[scheme] = page.evaluate("() => getComputedStyle(document.querySelector('figure svg text')).fill")
    assert inks["light"] != inks["dark"]


def test_on_paper_it_is_dark_on_white_and_nothing_is_folded(reports, open_report):
    page = open_report(reports[0], 720, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = (
        "() => [...document.querySelectorAll('details table')].filter(table => "
        "!table.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert page.evaluate(hidden) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert len(page.pdf(format="A4")) > 10_000


def test_the_keyboard_reaches_every_section_and_every_wide_table(reports, open_report):
    page = open_report(reports[0], 390, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for link in page.locator("nav a").all():
        link.focus()
        page.keyboard.press("Enter")
        target = link.get_attribute("href")
        assert page.evaluate(
            "target => { const box = document.querySelector(target).getBoundingClientRect(); return box.bottom > 0; }",
            target,
        )
    table = page.locator(".scroll:visible").first
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")
