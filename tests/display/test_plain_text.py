"""Text that somebody else wrote is shown sign by sign: a terminal finds nothing in it to obey, a reader nothing that
hides.
"""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.display.plain_text import one_line, printable, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a\nb\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("a\u2028b", "a\\u2028b"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("a\u200db", "a\\u200db"),  # between these letters it joins nothing
        ("\u200d", "\\u200d"),
        ("x\u3164\u034f\ufe01", "x\\u3164\\u034f\\ufe01"),
        ("a\U000e0041b", "a\\U000e0041b"),
        ("\ud800", "\\ud800"),
        ("\r\b\x7f\x00", "\\r\\x08\\x7f\\x00"),
        ("👩\u200d🔧 ❤️ é ü 漢", "👩\u200d🔧 ❤️ é ü 漢"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # Persian joins its letters so
        ("12\u00a0%", "12\u00a0%"),
        ("[red]a[/red] $x$ <b>", "[red]a[/red] $x$ <b>"),
    ],
)
def test_only_what_cannot_be_seen_is_escaped(text, shown):
    assert visible(text) == shown


def test_one_line_is_one_line():
    assert one_line("  a \n\n b\u2028c\t d ") == "a b c d"


@given(st.text(st.characters()))
def test_nothing_invisible_is_left_and_a_second_look_changes_nothing(text):
    for shown in (visible(text), one_line(text)):
        left = {unicodedata.category(letter) for letter in shown if letter not in "\n\t\u200c\u200d"}
        assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert visible(shown) == shown
        shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u115f\u1160\u3164\uffa0")))
def test_letters_numbers_and_signs_stay_as_they_are(text):
    assert visible(text) == text


def test_text_from_elsewhere_is_fit_for_a_terminal():
    assert printable("a\x1b[31mred\nline\u202e\x00") == r"a\x1b[31mred line\u202e\x00"
    assert printable("x" * 1000) == "x" * 500
    assert printable("a\n\tb\r\x85", keep="\n") == "a\n b  "


@given(st.text(st.characters()), st.integers(1, 50))
def test_whatever_the_text_is_a_log_holds_printable_letters_alone(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    shown.encode()
