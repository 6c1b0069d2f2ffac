"""The sentences of a Markdown page, each with its line. Code blocks, comments and the targets of links are no prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

CODE = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for one name of the code while sentences are looked for
_READER = MarkdownIt("commonmark").enable("table")
_END = re.compile(r"[.!?…]+[\"'”\u2019»)\]]*(?=\s|$)")
_ABBREVIATED = re.compile(r"\b(?:[a-z]\.[a-z]|al|approx|cf|Fig|incl|resp|vs)\.$", re.IGNORECASE)


@dataclass(frozen=True)
class Sentence:
    """One sentence of a page: the line where it begins, its text as a reader sees it, its number of words."""

    line: int
    text: str
    words: int


def sentences(page: str) -> Iterator[Sentence]:
    """Those of paragraphs, headings, list items and cells of tables. Each of these ends the sentence before it."""
    for token in _READER.parse(page):
        if token.type == "inline" and token.map:
            yield from _of(token, token.map[0] + 1)


def _of(token: Token, line: int) -> Iterator[Sentence]:
    """The sentences of one stretch of text that begins on this line."""
    parts = list(_parts(token.children or []))
    text, names = "".join(CODE if named else part for part, named in parts), (part for part, named in parts if named)
    for first, last in _split(text):
        said = text[first:last]
        begin = first + len(said) - len(said.lstrip())
        words = sum(any(sign.isalnum() or sign == CODE for sign in word) for word in said.split())
        shown = re.sub(CODE, lambda _: f"`{next(names)}`", " ".join(said.split()))
        if words:
            yield Sentence(line + text.count("\n", 0, begin), shown, words)


def _parts(children: list[Token]) -> Iterator[tuple[str, bool]]:
    """The text in its pieces, and whether a piece is a name of the code, which is one word. Addresses are left out."""
    address = False
    for child in children:
        if child.type in ("link_open", "link_close"):
            address = child.type == "link_open" and child.markup == "autolink"
        elif child.type in ("softbreak", "hardbreak"):
            yield "\n", False
        elif child.type == "image":
            yield from _parts(child.children or [])
        elif child.type in ("text", "code_inline") and not address:
            yield child.content, child.type == "code_inline"


def _split(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence of a stretch begins and ends."""
    first = 0
    for found in _END.finditer(text):
        if not _goes_on(text, first, found):
            yield first, found.end()
            first = found.end()
    if text[first:].strip():
        yield first, len(text)


def _goes_on(text: str, first: int, found: re.Match[str]) -> bool:
    """Whether these dots end no sentence: those of an abbreviation, or left out in the middle of one."""
    if found[0].startswith("…"):
        return not text[found.end() :].lstrip()[:1].isupper()
    return bool(_ABBREVIATED.search(text[first : found.start() + 1]))
