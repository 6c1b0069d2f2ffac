"""A table on the terminal: nothing acts on it, nothing is lost, nothing is wider than the screen."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fccl.apps.console import PlainConsole
from fccl.apps.terminal_tables import print_table
from fccl.display.tables import Cell, Table
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
    first, others = re.split(r"─ *\n", text, maxsplit=1)[1], texts[1:]
    body = re.sub(r"\n *\n(?s:.*?)─ *\n", "\n", first)  # the heads of further parts, which repeat the first column
    parts = len(re.findall(r"─ *\n", text))
    for letter in set("".join(texts)):
        assert body.count(letter) == parts * texts[0].count(letter) + "".join(others).count(letter)


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


HEADS = ("training", "exposure, 16 times", "found at 1 % false", "AUC", "global against alone", "ε", "validation loss")


@pytest.mark.parametrize("width", [60, 80, 100])
@settings(max_examples=few(60), deadline=None)
@given(data=st.data())
def test_no_word_of_a_head_is_broken_and_no_figure_whatever_the_table(width, data):
    columns = data.draw(st.integers(1, 9))
    head = ("protection", *data.draw(st.lists(st.sampled_from(HEADS), min_size=columns, max_size=columns)))
    texts = st.sampled_from(["0.5612", "−12,345.678", "0.51 to 0.60", "–", "1,234"])
    rows = data.draw(st.lists(st.tuples(*[texts] * columns), min_size=1, max_size=3))
    table = Table("Title", head, tuple(("UPDATE_CODEC=int8, and more", *row) for row in rows))
    text = printed(table, width)
    words = text.split()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for word in {part for name in head for part in name.split()}:
        assert word in words, (word, text)
    for figure in {part for row in rows for cell in row for part in cell.split()}:
        assert figure in words, (figure, text)
    for figure in {cell for row in rows for cell in row}:
        assert figure in text, "an interval stays on its line"


def test_columns_that_do_not_fit_stand_below_under_the_names_of_their_rows():
    head = (
        "protection",
        "released",
        "attack",
        *(f"exposure, {times} times" for times in (1, 4, 16)),
        "validation loss",
    )
    rows = (("none", "adapter", "loss", "1.48", "1.91", "2.16", "1.234"),)
    text = printed(Table("Audit", head, rows, words=frozenset({1, 2})), 60)
    assert text.count("protection") == text.count("released") == text.count("adapter") == 2
    assert text.count("1.234") == text.count("2.16") == 1
    assert printed(Table("Audit", head, rows, words=frozenset({1, 2})), 140).count("protection") == 1


def test_a_table_that_fits_is_printed_as_it_was():
    table = Table("Title", ("client", "loss"), (("0", "1.25"), ("1", "1.50")))
    lines = [line.split() for line in printed(table, 60).splitlines() if line.strip()]
    assert lines == [["Title"], ["client", "loss"], ["─" * 13], ["0", "1.25"], ["1", "1.50"]]
