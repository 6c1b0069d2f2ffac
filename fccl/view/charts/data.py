"""Charts of the clients' data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import altair as alt
import pandas as pd

from fccl.data.picture import topic_rows
from fccl.display.plain_text import one_line
from fccl.records.manifest import Manifest
from fccl.specs import Phase
from fccl.view.charts.influence import MOST_CLIENTS
from fccl.view.charts.parts import Picture, ramp, tip, titled, unchecked

MOST_TOPICS = 30
KINDS = {"sft": "instructions", "va": "preference pairs"}


@unchecked
def topics(manifest: Manifest, phase: Phase) -> Picture | None:
    """The number of training examples of each topic at each client; of more than 30 topics the smallest are put
    together.
    """
    names, table = topic_rows(manifest, phase, MOST_TOPICS)
    clients = len(manifest.topics_by_client[phase])
    if not names or not clients:
        return None
    size = -(-clients // MOST_CLIENTS)
    groups = [range(first, min(first + size, clients)) for first in range(0, clients, size)]
    labels = [_label(group, manifest.noisy_clients) for group in groups]
    shown = _distinct([one_line(name) or "(none)" for name in names])
    cells = [
        (topic, label, sum(counts[client] for client in group) / len(group))
        for topic, counts in zip(shown, table, strict=True)
        for group, label in zip(groups, labels, strict=True)
    ]
    title = "client (! spoilt on purpose)" if manifest.noisy_clients else "client"
    chart = (
        alt.Chart(pd.DataFrame(cells, columns=["topic", "client", "examples"]))
        .mark_rect()
        .encode(
            x=alt.X("client:O", sort=labels, title=title, axis=alt.Axis(labelOverlap=True, labelAngle=0)),
            y=alt.Y("topic:N", sort=shown, title=None, axis=alt.Axis(labelLimit=130)),
            color=ramp("examples", "examples", ",.3~r"),
            tooltip=[tip("topic", "topic"), tip("client", "client"), tip("examples", "examples", ",.4~g")],
        )
    )
    note = f"each column: mean of {size} clients" if size > 1 else ""
    return titled([chart], f"Training {KINDS[phase]} by topic and client", [note], 20 * max(5, len(shown)))


def _label(group: range, noisy: Sequence[int]) -> str:
    mark = "!" if any(client in noisy for client in group) else ""
    return (str(group[0]) if len(group) == 1 else f"{group[0]}–{group[-1]}") + mark


def _distinct(names: Sequence[str]) -> list[str]:
    """Topics that look alike once their white space is one line stay apart."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
