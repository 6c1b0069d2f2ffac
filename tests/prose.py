"""The sentences of a Markdown page, each with its line. Code blocks, comments and the targets of links are no prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_BLOCK = re.compile(r"^(?P<fence> *(?:```|~~~)).*?(?:^(?P=fence)|\Z)|<!--.*?-->", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"^ {0,3}(?:> ?)+", re.MULTILINE)
_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
_ADDRESS = re.compile(r"(?<=\])\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)|<?https?://[^\s>)]+>?")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+")
_ROW = re.compile(r"\s*\|")
_NOTHING = re.compile(r"[\s|:*_=-]*")  # a line without words: empty, or one that rules something off
_BAR = re.compile(r"(?<!\\)\|")
_END = re.compile(r"[.!?…]+[\"'”\u2019»)\]*_]*(?=\s|$)")
_ABBREVIATED = re.compile(r"\b(?:[a-z]\.[a-z]|al|approx|cf|Fig|incl|resp|vs)\.$", re.IGNORECASE)


@dataclass(frozen=True)
class Sentence:
    """One sentence of a page: the line where it begins, its text as written, its number of words."""

    line: int
    text: str
    words: int


def sentences(page: str) -> Iterator[Sentence]:
    """Those of paragraphs, headings, list items and cells of tables. Each of these ends the sentence before it."""
    page = _QUOTED.sub(_blank, page)
    bare = _bare(page)
    for begin, end in _stretches(bare):
        for first, last in _split(bare, begin, end):
            if words := _words(bare[first:last]):
                yield Sentence(page.count("\n", 0, first) + 1, " ".join(page[first:last].split()), words)


def _bare(page: str) -> str:
    """The page in as many signs: blocks and addresses have no words, a name of the code is one."""
    bare = _BLOCK.sub(lambda found: re.sub(r"\S", "_", found[0]), page)
    bare = _CODE.sub(lambda found: "x" * len(found[0]), bare)
    return _ADDRESS.sub(_blank, bare)


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def _stretches(bare: str) -> Iterator[tuple[int, int]]:
    """Where each stretch that no sentence leaves begins and ends."""
    begun, at, listed = None, 0, False
    for line in bare.splitlines(keepends=True):
        item, heading, row = (kind.match(line) for kind in (_ITEM, _HEADING, _ROW))
        listed = bool(item) if line[:1].strip() else listed
        code = begun is None and line.startswith("    ") and not listed  # by its indentation
        alone = bool(heading or row or code or _NOTHING.fullmatch(line))
        if begun is not None and (item or alone):
            yield begun, at
            begun = None
        if heading:
            yield at + heading.end(), at + len(line)
        elif row:
            bars = [at + found.start() for found in _BAR.finditer(line)]
            yield from ((one + 1, other) for one, other in pairwise([*bars, at + len(line)]))
        elif not alone and begun is None:
            begun = at + (item.end() if item else 0)
        at += len(line)
    if begun is not None:
        yield begun, at


def _split(bare: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where each sentence of a stretch begins and ends."""
    first = begin
    for found in _END.finditer(bare, begin, end):
        if not _goes_on(bare, first, found, end):
            yield _stripped(bare, first, found.end())
            first = found.end()
    if bare[first:end].strip():
        yield _stripped(bare, first, end)


def _goes_on(bare: str, first: int, found: re.Match[str], end: int) -> bool:
    """Whether these dots end no sentence: those of an abbreviation, or left out in the middle of one."""
    if found[0].startswith("…"):
        return not bare[found.end() : end].lstrip()[:1].isupper()
    return bool(_ABBREVIATED.search(bare[first : found.start() + 1]))


def _stripped(bare: str, first: int, last: int) -> tuple[int, int]:
    """The same without the blanks before it."""
    return last - len(bare[first:last].lstrip()), last


def _words(bare: str) -> int:
    """Words, figures and names of the code; a sign that stands alone is none."""
    return sum(any(sign.isalnum() for sign in word) for word in bare.split())
