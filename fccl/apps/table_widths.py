"""Widths of a table's columns on a screen: no head and no usual word breaks inside, and no figure breaks at all.

Where the columns do not fit side by side, the table is printed in parts, each under the columns that name its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

LONGEST_FIGURE = 16  # signs; what is longer may break, also of words


@dataclass(frozen=True)
class Need:
    """The room that a column takes, in signs: with every line whole, every word whole, and at least."""

    lines: int
    words: int
    least: int


def need_of(head: Text, cells: Sequence[Text], is_text: bool, most: int | None = None) -> Need:
    """The room that a column of these texts takes, at most `most`. The least is the longest word of its head and of
    its texts; of figures the longest of those, an interval among them.
    """
    lines, words, least = _longest([head, *cells], "\n"), _longest([head, *cells]), _longest([head])
    least = max(least, min(_longest(cells, None if is_text else "\n"), LONGEST_FIGURE))
    words = max(words, least)
    return Need(*(each if most is None else min(each, most) for each in (lines, words, least)))


def _longest(texts: Sequence[Text], at: str | None = None) -> int:
    return max((cell_len(part) for text in texts for part in text.plain.split(at)), default=0)


def widths(needs: Sequence[Need], room: int) -> list[int] | None:
    """A width for each column: words stay whole where there is room, then lines. None where the least does not fit."""
    have = [need.least for need in needs]
    if sum(have) > room:
        return None
    have = _raised(have, [need.words for need in needs], room)
    return _raised(have, [need.lines for need in needs], room)


def _raised(have: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """The widths with what is left of the room shared among the columns that want more; who lacks least is first."""
    raised, left = list(have), room - sum(have)
    lacking = sorted((want - got, place) for place, (got, want) in enumerate(zip(have, wanted, strict=True)))
    lacking = [(lack, place) for lack, place in lacking if lack > 0]
    for served, (lack, place) in enumerate(lacking):
        more = min(lack, left // (len(lacking) - served))
        raised[place], left = raised[place] + more, left - more
    return raised


def parts(needs: Sequence[Need], names: int, width: int, gap: int) -> list[list[int]]:
    """The columns of each part of a table, by their places: all in one where the least fits. `names` is the number of
    leading columns that name a row, which every part begins with; `gap` is the room between two columns.
    """
    everything = list(range(len(needs)))
    names = min(names, len(needs) - 1) if len(needs) > 1 else 0
    if not names or _fits(needs, everything, width, gap):
        return [everything]
    lead = everything[:names]
    if not all(_fits(needs, [*lead, place], width, gap) for place in everything[names:]):
        lead = [0]
    found: list[list[int]] = []
    for place in everything[len(lead) :]:
        if found and _fits(needs, [*found[-1], place], width, gap):
            found[-1].append(place)
        else:
            found.append([*lead, place])
    return found


def _fits(needs: Sequence[Need], places: Sequence[int], width: int, gap: int) -> bool:
    return sum(needs[place].least for place in places) + room_taken(len(places), gap) <= width


def room_taken(columns: int, gap: int) -> int:
    """The room beside the columns: the gaps between them, and one sign at each edge."""
    return gap * (columns - 1) + 2
