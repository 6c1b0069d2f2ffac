"""The parts of a report: figures, tables, sections. Text in them is text; `report.html` escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fccl.display.tables import Table

MOST_ROWS = 60  # of a long history; all of it is in the logs
DASH = "–"


@dataclass(frozen=True)
class Figure:
    """A chart as SVG, for a wide page and for a phone. `says` is what it shows, in a sentence."""

    title: str
    says: str
    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class Tile:
    """One figure of the run."""

    label: str
    figure: str
    below: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Answer:
    """One model's answer to an instruction."""

    model: str
    greedy: str
    sampled: str


@dataclass(frozen=True)
class Example:
    """One instruction of the test split and what every model says."""

    instruction: str
    reference: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading. `empty` stands where there is nothing to show."""

    anchor: str
    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    examples: tuple[Example, ...] = ()
    empty: str = ""


@dataclass(frozen=True)
class Report:
    """The whole page."""

    title: str
    standing: str  # in words, with its sign
    tone: str  # good, busy or bad: how the standing looks
    sentence: str
    facts: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    made: str  # when, by what


def thinned(items: Sequence[int], most: int = MOST_ROWS) -> list[int]:
    """At most `most` of the items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def thinned_note(shown: int, total: int, what: str, where: str) -> str:
    """The note of a table that does not hold everything."""
    return f"{shown} of {total:,} {what}; all are in {where}." if shown < total else ""
