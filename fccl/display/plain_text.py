r"""Text that somebody else wrote, fit to be shown: what a terminal would obey or nobody would see is spelt out, such as
`\x1b`.

The commands' screens, the pages, the reports and the logs all show such text through this module.
"""

from __future__ import annotations

import unicodedata

MAX_LINE = 2000  # characters of what a screen shows of one thing

_JOINERS = frozenset("\u200c\u200d")  # scripts and emoji are spelt with these
# Letters and marks that take no room, beyond those that Unicode counts as controls. The selectors of emoji are left:
# "❤️" has one.
_EMPTY = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {
    chr(code) for code in (*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0))
}


def visible(text: str) -> str:
    """The text with every sign to be seen.

    Line breaks, tabs and spaces stay, and joiners between letters or emoji that are joined so.
    """
    return text if text.isascii() and text.isprintable() else "".join(_shown(text, index) for index in range(len(text)))


def one_line(text: str) -> str:
    """`visible`, with every run of white space as one space."""
    return visible(" ".join(text.split()))


def printable(text: str, limit: int = 500, keep: str = "") -> str:
    r"""Text for a log or a message: one line, not too long, nothing in it that is not printable, joiners neither.

    White space becomes a space, but for the characters in `keep`.
    """
    shown = (letter if letter in keep else " " if letter.isspace() else _spelt(letter) for letter in text[: limit * 2])
    return "".join(shown)[:limit]


def _shown(text: str, index: int) -> str:
    letter = text[index]
    if letter in "\n\t" or unicodedata.category(letter) == "Zs":
        return letter
    if letter in _JOINERS and _joins(text[index - 1 : index]) and _joins(text[index + 1 : index + 2]):
        return letter
    return _spelt(letter)


def _joins(letter: str) -> bool:
    return not letter.isascii() and letter.isprintable() and not letter.isspace() and letter not in _EMPTY


def _spelt(letter: str) -> str:
    return letter if letter.isprintable() and letter not in _EMPTY else letter.encode("unicode_escape").decode("ascii")
