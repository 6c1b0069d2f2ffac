"""The axis of rounds, and long histories made short enough for a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from fccl import phases
from fccl.view.charts import palette

TICKS = 10
# The browser places so few ticks itself. Given their places, it drops some before it knows how wide the page is, and
# never shows them again.
FEW = 5


def numbered(frame: pd.DataFrame, most: int) -> tuple[pd.DataFrame, int]:
    """The frame with `first` and `last`, counted from 1: the span of rounds that a row is drawn in.

    Returns the number of rounds in a span too. There are about `most` spans or fewer, and none goes over the border of
    two phases.
    """
    numbers = frame["round"].to_numpy()
    rounds, at = np.unique(numbers, return_index=True)
    phases = frame["phase"].iloc[at].to_numpy()
    change = 1 + np.flatnonzero(phases[1:] != phases[:-1])
    # of every round: 0 for the first phase, and so on
    phase = np.searchsorted(change, np.arange(len(rounds)), side="right")
    begins, ends = rounds[np.append(0, change)][phase], rounds[np.append(change - 1, -1)][phase]
    width = -(-int(rounds[-1] - rounds[0] + 1) // most)
    first = begins + (rounds - begins) // width * width
    last = np.minimum(first + width - 1, ends)
    row = np.searchsorted(rounds, numbers)
    return frame.assign(first=first[row] + 1, last=last[row] + 1), width


def averaged(frame: pd.DataFrame, most: int, by: Sequence[str], values: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The mean of `values` over every span of rounds and every group of `by`, placed on the axis.

    Returns the number of rounds in a span too.
    """
    spans, width = numbered(frame[[*dict.fromkeys(("round", "phase", *by, *values))]], most)
    keys = ["first", "last", *by]
    return placed(spans.groupby(keys, as_index=False)[list(values)].mean()), width


def placed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `from` and `to`, the edges of each span on the axis, `at`, its middle, and `rounds`, its name."""
    first, last = table["first"].to_numpy(), table["last"].to_numpy()
    names = [
        str(one) if one == other else f"{one}–{other}" for one, other in zip(first.tolist(), last.tolist(), strict=True)
    ]
    return table.assign(**{"from": first - 0.5, "to": last + 0.5, "at": (first + last) / 2, "rounds": names})


def mean_note(width: int, what: str = "point") -> str:
    """The note of a chart whose spans have `width` rounds."""
    return f"each {what}: mean of {width} rounds" if width > 1 else ""


def round_axis(table: pd.DataFrame, edges: bool = False, title: str = "round") -> alt.X:
    """The horizontal axis, from the table's first round to its last: of points in the middle of spans, or of spans with
    their edges.
    """
    low, high = (table["from"].min(), table["to"].max()) if edges else (table["at"].min(), table["at"].max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    places = ticks(math.ceil(low), math.floor(high))
    marks = (
        {"values": places}
        if len(places) > FEW
        else {"tickCount": len(places) if edges else max(1, len(places) - 1), "tickMinStep": 1}
    )
    axis = alt.Axis(format="d", labelOverlap=True, grid=False, **marks)
    scale = alt.Scale(domain=[float(low), float(high)], nice=False, padding=0 if edges else 8)
    return alt.X("from:Q" if edges else "at:Q", title=title, scale=scale, axis=axis)


def ticks(first: int, last: int) -> list[int]:
    """Whole numbers from `first` to `last`, round ones when there are many."""
    step = next(
        size
        for size in (unit * 10**power for power in range(12) for unit in (1, 2, 5))
        if (last - first) / size <= TICKS
    )
    return [number for number in range(first, last + 1) if number % step == 0]


def phase_border(rounds: pd.DataFrame, edges: bool = False) -> list[alt.Chart]:
    """The mark where FedVA begins, for charts over both phases: a line, and the phases' names above the plot.

    Nothing while there is one phase.

    `edges` as in `round_axis`: without them the plot begins at the first round and not half a round before it.
    """
    begins = rounds.drop_duplicates("round").groupby("phase")["round"].min()
    if len(begins) < 2:
        return []
    start = begins + 0.5 if edges else (begins + 0.5).clip(lower=float(begins.min()) + 1)
    table = pd.DataFrame({"at": start, "text": [phases.of(str(phase)).name for phase in begins.index]})
    line = alt.Chart(table.nlargest(1, "at")).mark_rule(color=palette.NEUTRAL, strokeWidth=1.5).encode(x=alt.X("at:Q"))
    names = alt.Chart(table).mark_text(align="left", baseline="bottom", dx=2, dy=-3)
    above = alt.YValue(0)  # type: ignore[no-untyped-call]
    return [line, names.encode(x=alt.X("at:Q"), y=above, text=alt.Text("text:N"))]
