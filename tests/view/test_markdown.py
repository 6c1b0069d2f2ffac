"""Whatever stands in a table, Markdown shows it as text, in its own cell."""

import html
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fccl.display.plain_text import visible
from fccl.display.tables import Cell, Table
from fccl.view.markdown import markdown_table
from tests.examples import few

PARSER = MarkdownIt("commonmark").enable("table")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def cells_of(rendered):
    """The texts of all cells, as a reader sees them."""
    found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", rendered, re.S)
    return [html.unescape(re.sub(r"<[^>]*>", "", cell.replace("<br>", "\n"))) for cell in found]


def words(text):
    return visible(text).split()


@settings(max_examples=few(100), deadline=None)
@given(st.lists(TEXTS, min_size=3, max_size=3), st.booleans())
@example(["a | b", "<script>alert(1)</script>", "*x* `y` [z](w) \\| ~~s~~"], True)
@example(["\x1b[31m", "# no\n- list", "&amp; $x$ _u_"], False)
@example(["\x07", "​", "|"], True)
def test_every_text_is_shown_as_it_is_in_its_own_cell(texts, strong):
    title, figure, note = texts
    table = Table("", ("", "h"), ((title, Cell(figure, interval="1, 2", note=note, verdict="better", strong=strong)),))
    shown = cells_of(PARSER.render(markdown_table(table)))
    assert len(shown) == 4
    assert shown[2].split() == words(title)
    extra = ["[1,", "2]", "▲", "better"]
    note_words = f"({visible(note)})".split() if note else []
    assert shown[3].replace("**", "").split() == [
        word.replace("**", "") for word in [*words(figure), *extra, *note_words]
    ]


def test_figures_end_at_the_right_and_words_begin_at_the_left():
    table = Table("", ("name", "figure", "words"), (("a", "1", "x"),), words=frozenset({2}))
    assert markdown_table(table).splitlines()[1] == "|---|---:|---|"


def test_what_stands_out_is_bold_and_what_is_best_has_its_interval():
    table = Table("", ("name", "figure"), (("a", Cell("1.5", "1 to 2", strong=True)),))
    assert markdown_table(table).splitlines()[2] == "| a | **1.5** [1 to 2] |"
