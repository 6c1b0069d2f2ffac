"""Bytes by round: what the adapters took on their way, and what Flower carried."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from fccl import phases
from fccl.display import words
from fccl.display.tables import Table
from fccl.records.sites import CarriedRound
from fccl.view.sites import carried
from fccl.view.values import RunView

MOST_ROWS = 400
_NOTE = "Adapters of all clients, up to the server and down from it, as UPDATE_CODEC writes them."
_CARRIED = (
    " Carried: all files in Flower's messages, tasks and heartbeats among them; what was sent again counts again."
)


def bytes_table(view: RunView) -> Table | None:
    """A row for each complete round, the newest first; None before there is one whose bytes are known."""
    rounds = view.rounds[view.rounds["bytes_up"].notna()]
    if rounds.empty:
        return None
    by_round = carried(view)
    shown = rounds.iloc[::-1].head(MOST_ROWS).to_dict("records")
    rows = tuple((*_sent(row), *_by_flower(by_round.get(row["round"]))) for row in shown)
    more = f" The newest {MOST_ROWS} of {len(rounds):,} rounds." if len(rounds) > MOST_ROWS else ""
    head = ("round", "phase", "clients", "up", "down", "carried up", "carried down")
    note = _NOTE + (_CARRIED if by_round else "") + more
    return Table("Bytes by round", head, rows, note, words=frozenset({1})).without_empty_columns()


def _sent(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
    sizes = (words.DASH if math.isnan(row[name]) else words.size(int(row[name])) for name in ("bytes_up", "bytes_down"))
    return f"{row['round'] + 1}", phases.title(row["phase"]), f"{row['clients']} of {row['selected']}", *sizes


def _by_flower(whole: CarriedRound | None) -> tuple[str, str]:
    return (words.DASH, words.DASH) if whole is None else (words.size(whole.up), words.size(whole.down))
