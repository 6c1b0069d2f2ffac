"""The topic-by-client tables as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fccl.display.plain_text import one_line, printable
from fccl.display.png import distinct, png
from fccl.display.words import plural
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, PartitionSpec, Phase

MAX_TOPICS = 30  # rows; the smallest topics share the last one
MAX_LETTERS = 40  # of a topic's name; a longer one would leave no room for the table
MAX_COLUMNS = 600  # one for each unit of the width; of more clients, neighbours share a column
MAX_NUMBERED = 16  # clients whose cells still have room for their number
TITLES = {"sft": "instructions (SFT)", "va": "preference pairs (VA)"}
_ROW, _COLUMN, _NARROWEST, _WIDEST = 22, 48, 144, 600  # units
_SCALE = 1.8  # pixels to a unit
_BLUES = ["#f7fbff", "#9ecae1", "#2171b5", "#08306b"]

Table = Sequence[Sequence[int]]  # [topic][client] -> examples


def draw_picture(manifest: Manifest) -> bytes:
    """Two heat maps as a PNG, SFT and VA: the share of each topic's training examples that each client holds."""
    clients = manifest.spec.partition.num_clients
    shares = [_shares(narrow(topic_rows(manifest, phase, MAX_TOPICS)[1])) for phase in PHASES]
    darkest = 1.0 if clients <= MAX_NUMBERED else max(max(row) for table in shares for row in table)
    panels = [_panel(manifest, phase, darkest, phase == PHASES[0]) for phase in PHASES]
    return png({"title": {"text": _title(manifest), "anchor": "middle"}, "hconcat": panels, "spacing": 14}, _SCALE)


def _title(manifest: Manifest) -> str:
    split = manifest.spec.partition
    how = f"by {printable(split.clients.column, MAX_LETTERS)}" if split.clients else _draw(split)
    return f"Training examples by topic and client: {plural(split.num_clients, 'client')}, {how}, seed {split.seed}"


def _draw(split: PartitionSpec) -> str:
    alpha = "IID" if split.alpha is None else f"Dirichlet alpha = {split.alpha:g}"
    return f"{alpha}, size skew {split.size_skew:g}"


def _shares(table: Table) -> list[list[float]]:
    totals = [max(1, sum(row)) for row in table]  # once a row: for every count it would take minutes of 10,000 clients
    return [[count / total for count in row] for row, total in zip(table, totals, strict=True)]


def narrow(table: Table) -> list[list[int]]:
    """[topic][column] counts of at most `MAX_COLUMNS` columns: each client's, or the sums of so many neighbours."""
    clients = len(table[0]) if table else 0
    together = max(1, -(-clients // MAX_COLUMNS))
    return [[sum(row[at : at + together]) for at in range(0, clients, together)] for row in table]


def _panel(manifest: Manifest, phase: Phase, darkest: float, first: bool) -> dict[str, Any]:
    """The heat map of one phase. The first one has the topics' names; the key of the colours is common to all."""
    names, table = topic_rows(manifest, phase, MAX_TOPICS)
    clients, numbered = len(manifest.topics_by_client[phase]), len(table[0]) <= MAX_NUMBERED
    table = narrow(table)
    who = "client (! spoilt on purpose)" if manifest.noisy_clients else "client"
    key = {"title": ["share of", "the topic"], "format": ".2~p"}
    axis: dict[str, Any] = {"title": who, "orient": "bottom", "labelAngle": 0, "labels": numbered, "ticks": numbered}
    colour = {"field": "share", "type": "quantitative", "legend": key}
    return {
        "title": {"text": TITLES[phase], "fontSize": 11},
        "width": min(max(_NARROWEST, _COLUMN * clients), _WIDEST),
        "height": _ROW * max(3, len(names)),
        "data": {"values": list(_cells(names, table, manifest.noisy_clients))},
        "encoding": {
            "x": {"field": "client", "type": "ordinal", "sort": None, "axis": axis},
            "y": {"field": "topic", "type": "ordinal", "sort": None, "axis": {"title": None} if first else None},
        },
        "layer": [
            {"mark": "rect", "encoding": {"color": colour | {"scale": {"domain": [0, darkest], "range": _BLUES}}}},
            *([_NUMBERS] if numbered else []),
        ],
    }


_NUMBERS = {
    "mark": {"type": "text", "fontSize": 10},
    "encoding": {
        "text": {"field": "count"},
        "color": {"condition": {"test": "datum.share > 0.55", "value": "white"}, "value": "black"},
    },
}


def _cells(names: Sequence[str], table: Table, noisy: Sequence[int]) -> Iterator[dict[str, object]]:
    """A value for each topic and client, the topics' names as they are written beside the rows."""
    spoilt = frozenset(noisy if len(table[0]) <= MAX_NUMBERED else ())
    for topic, row, shares in zip(distinct(map(_short, names)), table, _shares(table), strict=True):
        for client, (count, share) in enumerate(zip(row, shares, strict=True)):
            mark = "!" if client in spoilt else ""
            yield {"topic": topic, "client": f"{client}{mark}", "count": count, "share": share}


def _short(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= MAX_LETTERS else shown[: MAX_LETTERS - 1] + "…"


def topic_rows(manifest: Manifest, phase: Phase, limit: int) -> tuple[list[str], list[list[int]]]:
    """Names and [topic][client] counts of at most `limit` rows; when there are more topics, the last row is the sum of
    the rest.
    """
    names = list(manifest.topics)
    table = [list(row) for row in zip(*manifest.topics_by_client[phase], strict=True)]
    if len(names) > limit:
        rest = table[limit - 1 :]
        names = [*names[: limit - 1], f"{len(rest)} smaller topics"]
        table = [*table[: limit - 1], [sum(column) for column in zip(*rest, strict=True)]]
    return names, table
