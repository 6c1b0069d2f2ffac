"""A table is a value: whole or not built."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.display.tables import MOST_OPEN_ROWS, SIGNS, Cell, Table


def table(**changes):
    rows = (("a", Cell("1"), "x", "–"), ("b", Cell("2", strong=True), "y", "–"))
    return Table("T", ("name", "figure", "words", "nothing"), rows, words=frozenset({2}), **changes)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 5))
def test_a_row_of_another_length_than_the_head_is_no_table(lengths, columns):
    rows = tuple(tuple("x" * length) for length in lengths)
    if set(lengths) == {columns}:
        assert len(Table("T", tuple("h" * columns), rows).cells) == len(rows)
    else:
        with pytest.raises(ValueError, match="headings"):
            Table("T", tuple("h" * columns), rows)


def test_texts_are_cells_too():
    assert [[cell.text for cell in row] for row in table().cells] == [["a", "1", "x", "–"], ["b", "2", "y", "–"]]


def test_columns_keep_what_they_are_when_others_go():
    kept = table(spare=frozenset({1})).with_columns([0, 2, 1])
    assert kept.head == ("name", "words", "figure")
    assert [kept.is_text(index) for index in range(3)] == [True, True, False]
    assert kept.spare == {2}
    assert kept.cells[1][2] == Cell("2", strong=True)


def test_a_column_of_dashes_says_nothing_and_goes():
    assert table().without_empty_columns().head == ("name", "figure", "words")


@pytest.mark.parametrize("verdict", [*SIGNS, "too few examples", ""])
def test_a_verdict_is_words_with_a_sign_or_the_sign_alone(verdict):
    sign = SIGNS.get(verdict, "")
    assert table().verdict(Cell("1", verdict=verdict)) == f"{sign} {verdict}".strip()
    assert table(brief=True).verdict(Cell("1", verdict=verdict)) == sign


def test_long_tables_are_folded():
    assert not table().folded
    assert table(aside=True).folded
    assert Table("T", ("n",), tuple((str(n),) for n in range(MOST_OPEN_ROWS + 1))).folded
