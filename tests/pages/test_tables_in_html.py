"""The report and the dashboard show the same table, and no text of it is markup."""

import html
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fccl.display.plain_text import visible
from fccl.display.tables import Cell, Table
from fccl.pages.dashboard.widgets import cell_html
from fccl.pages.report.parts import Report, Section
from fccl.pages.report.render import render
from tests.examples import few

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
CELLS = st.builds(
    Cell, TEXTS, TEXTS, st.sampled_from(["", "better", "no significant difference"]), TEXTS, st.booleans()
)
EVIL = Cell("<script>alert(1)</script>", "</small>", "better", '"><img onerror=x>\x1b[2J', True)


def table_of(cell, brief=False):
    return Table("Title", ("name", "figure"), (("row", cell),), brief=brief)


def text_of(markup):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", markup)).split())


def report_cell(table):
    page = render(Report("T", "● finished", "good", "", (), (), (), (Section("s", "S", tables=(table,)),), ""))
    return re.search(r"<tbody>.*?<td[^>]*>(.*?)</td>", page, re.S)[1]


def expected(table, cell, star):
    parts = [cell.text + (" ★" if star and cell.strong and not cell.verdict else "")]
    if table.brief:
        parts += [table.verdict(cell), f"[{cell.interval}]", cell.note]
    else:
        parts += [f"[{cell.interval}]", table.verdict(cell), cell.note]
    return sorted(" ".join(visible(part) for part in parts).split())


@settings(max_examples=few(50), deadline=None)
@given(CELLS, st.booleans())
@example(EVIL, False)
def test_a_cell_shows_all_its_parts_as_text(cell, brief):
    table = table_of(cell, brief)
    for markup, star in ((cell_html(table, cell), True), (report_cell(table), False)):
        assert sorted(text_of(markup).split()) == expected(table, cell, star)
        assert set(re.findall(r"<(\w+)", markup)) <= {"strong", "span", "small"}
        assert ("<strong>" in markup) is cell.strong


def test_figures_and_words_are_told_apart_in_the_report():
    table = Table("T", ("name", "figure", "words"), (("a", "1", "x"),), words=frozenset({2}))
    page = render(Report("T", "● finished", "good", "", (), (), (), (Section("s", "S", tables=(table,)),), ""))
    assert re.findall(r"<td(.*?)>", page) == ["", ' class="words"']
