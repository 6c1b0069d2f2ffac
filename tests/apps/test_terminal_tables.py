"""A table on the terminal: nothing acts on it, nothing is lost, nothing is wider than the screen."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fccl.apps.console import PlainConsole
from fccl.apps.terminal_tables import print_table
from fccl.tables import Cell, Table
from tests.examples import few

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CELLS = st.builds(
    Cell, TEXTS, TEXTS, st.sampled_from(["", "better", "worse", "too few examples"]), TEXTS, st.booleans()
)


def printed(table, width=80, stacked=True, **how):
    console = PlainConsole(file=io.StringIO(), width=width, markup=False, emoji=False, **how)
    print_table(console, table, stacked)
    return console.file.getvalue()


def table_of(*cells, **more):
    head = ("name", *(f"c{index}" for index in range(len(cells) - 1)))
    return Table("Title", head, (tuple(cells),), **more)


@settings(max_examples=few(100), deadline=None)
@given(st.lists(CELLS, min_size=2, max_size=4), st.integers(40, 140), st.booleans())
def test_nothing_acts_on_the_terminal_and_nothing_is_wider_than_it(cells, width, stacked):
    text = printed(table_of(*cells), width, stacked)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert max(cell_len(line) for line in text.splitlines()) <= width


@settings(max_examples=few(50), deadline=None)
@given(st.lists(st.text("abcxyz0123456789", min_size=1, max_size=40), min_size=2, max_size=4), st.integers(40, 100))
def test_every_sign_of_every_cell_is_there(texts, width):
    text = printed(table_of(*texts), width)
    body = text.split("─")[-1]
    for letter in set("".join(texts)):
        assert body.count(letter) == "".join(texts).count(letter)


def test_what_qualifies_a_figure_stands_below_it_or_after_it_where_there_is_room():
    table = table_of("a", Cell("0.5", "0.4 to 0.6", "better", strong=True), Cell("7", strong=True))
    narrow, roomy = printed(table), printed(table, 140, stacked=False)
    assert [line.split() for line in narrow.splitlines()[-4:-1]] == [
        ["a", "0.5", "7", "*"],
        ["0.4", "to", "0.6"],
        ["▲", "better"],
    ]
    assert "0.5 [0.4 to 0.6] ▲ better" in roomy


def test_a_narrow_screen_does_without_spare_columns():
    table = table_of("a", "1", "2", spare=frozenset({2}))
    assert "c1" not in printed(table)
    assert "c1" in printed(table, 140, stacked=False)


def test_a_table_without_rows_is_not_printed():
    assert printed(Table("Title", ("a",), ())) == ""


@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_shades_and_sums_change_no_sign(colour):
    rows = (("a", Cell("3", shade=0.75), Cell("1", shade=0.25)), ("all", "3", "1"))
    table = Table("Title", ("topic", "0", "1"), rows, last_is_sum=True)
    text = printed(table, force_terminal=colour is not None, color_system=colour)
    assert ("\x1b[" in text) is (colour is not None)
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).split() == printed(table).split()
