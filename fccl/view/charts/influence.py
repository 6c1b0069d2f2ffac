"""Charts of influence: FCCL weights over rounds, and against the share of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from fccl.view.charts import palette
from fccl.view.charts.lines import MANY
from fccl.view.charts.parts import Picture, legend, ramp, tip, titled, unchecked
from fccl.view.charts.rounds import averaged, mean_note, numbered, phase_border, placed, round_axis
from fccl.view.values import RunView

MOST_ROUNDS, MOST_CLIENTS = 100, 50  # cells of a heat map
MOST_ROWS = 16  # clients of `weight_against_samples`
NUMBERED_SPANS, NUMBERED_WEIGHT = (
    8,
    0.07,
)  # stacked weights: about so many columns bear numbers, where there is room for one
CHANGED = 0.0005  # a smaller difference of two shares counts as zero
OTHERS = "others"


@dataclass(frozen=True)
class _Moved:
    """Arrows to the weights: the column that they come from, and what both ends are called."""

    column: str
    start: str
    end: str


@unchecked
def weights_area(view: RunView) -> Picture | None:
    """The weights of every round, stacked to 100 %, one step a round; of more than 12 clients the 11 heaviest and the
    others.
    """
    if view.shares.empty:
        return None
    totals = view.shares.groupby("client")["weight"].sum()
    many = len(totals) > MANY
    heavy = sorted(int(client) for client in (totals.nlargest(MANY - 1) if many else totals).index)
    table, width = _stacked(view.shares, heavy)
    names = [*map(palette.name_of, heavy), *([OTHERS] if many else [])]
    colours = alt.Scale(domain=names, range=[*map(palette.colour, heavy), *([palette.NEUTRAL] if many else [])])
    key = legend(len(names))
    share = alt.Y("low:Q", title="weight", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1], nice=False))
    steps = (
        alt.Chart(table)
        .mark_rect(strokeWidth=0.7)
        .encode(
            x=round_axis(table, edges=True),
            x2=alt.X2("to:Q"),
            y=share,
            y2=alt.Y2("high:Q"),
            color=alt.Color("name:N", scale=colours, legend=key),
            stroke=alt.Stroke("name:N", scale=colours, legend=key),  # else the page shines through between two steps
            tooltip=[tip("name", "client"), tip("rounds", "round"), tip("weight", "weight", ".1%")],
        )
    )
    notes = [f"the {MANY - 1} heaviest of {len(totals)} clients" if many else "", mean_note(width, "step")]
    return titled([steps, *_numbers(table), *phase_border(view.shares, edges=True)], "FCCL weights by round", notes)


@unchecked
def weights_heat(view: RunView) -> Picture | None:
    """Weight by client and round. A client that was not aggregated in a round has no cell there."""
    if view.shares.empty:
        return None
    groups, names, clients = _client_groups(view.shares["client"])
    table, rounds = averaged(view.shares.assign(group=groups), MOST_ROUNDS, ["group"], ["weight"])
    order = [names[group] for group in sorted(set(table["group"].tolist()))]
    table = table.assign(label=table["group"].map(names))
    cells = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=round_axis(table, edges=True),
            x2=alt.X2("to:Q"),
            y=alt.Y("label:O", title="client", sort=order, axis=alt.Axis(labelOverlap=True, grid=False)),
            color=ramp("weight", "weight", ".0%"),
            tooltip=[tip("label", "client"), tip("rounds", "round"), tip("weight", "weight", ".2%")],
        )
    )
    height = min(420, row_height(len(order)) * len(order))
    return titled(
        [cells, *phase_border(view.shares, edges=True)],
        "FCCL weight by client and round",
        [_cell_note(clients, rounds)],
        height,
    )


@unchecked
def weight_against_samples(view: RunView) -> Picture | None:
    """Each client's mean weight over its rounds against its mean share of the samples: an arrow from the share to the
    weight.

    Of more than 16 clients those that gained or lost most.
    """
    if view.shares.empty:
        return None
    table = view.shares.groupby("client", as_index=False)[["weight", "sample_share"]].mean()
    moved = _Moved("sample_share", "share of samples", "mean weight")
    return _influence(table, moved, "Influence against share of samples")


@unchecked
def prior_and_weight(view: RunView) -> Picture | None:
    """Each client's weight in the last round against its weight before the server verified, drawn as
    `weight_against_samples` is.
    """
    if view.shares.empty:
        return None
    last = view.shares[view.shares["round"] == view.shares["round"].iloc[-1]].dropna(subset=["prior"])
    if last.empty:
        return None
    moved = _Moved("prior", "prior", "verified weight")
    return _influence(
        last[["client", "prior", "weight"]],
        moved,
        f"From prior to verified weight, round {int(last['round'].iloc[0]) + 1}",
    )


def _influence(table: pd.DataFrame, moved: _Moved, title: str) -> Picture:
    """Arrows from the column that `moved` names to the weights; of more than 16 clients those of the largest
    changes."""
    table = table.assign(change=table["weight"] - table[moved.column], name=table["client"].map(palette.name_of))
    total = len(table)
    if total > MOST_ROWS:
        table = table.loc[table["change"].abs().nlargest(MOST_ROWS).index].sort_values("change", ascending=False)
    kinds = {
        "lost influence": ("triangle-left", palette.LOSS),
        "unchanged": ("circle", palette.NEUTRAL),
        "gained influence": ("triangle-right", palette.GAIN),
    }
    table = table.assign(kind=pd.cut(table["change"], [-2, -CHANGED, CHANGED, 2], labels=list(kinds)).astype(str))
    present = [kind for kind in kinds if (table["kind"] == kind).any()]
    shapes, colours = (alt.Scale(domain=present, range=[kinds[kind][part] for kind in present]) for part in (0, 1))
    note = f"the {MOST_ROWS} largest changes of {total} clients" if total > MOST_ROWS else ""
    return titled(_arrows(table, moved, shapes, colours), title, [note], row_height(len(table)) * len(table))


def row_height(rows: int) -> int:
    """Pixels for each of so many rows: a picture of few is no strip, and one of many no tower."""
    return 40 if rows <= 6 else 26


def _stacked(shares: pd.DataFrame, heavy: Sequence[int]) -> tuple[pd.DataFrame, int]:
    """The weights of the heavy clients and of the others by span of rounds, stacked from `low` to `high`.

    Returns the number of rounds in a span too.
    """
    rows, width = numbered(shares[["round", "phase", "client", "weight"]], MOST_ROUNDS)
    others = ~rows["client"].isin(heavy)
    rows = rows.assign(others=others, client=rows["client"].mask(others, 0))
    rounds = rows.groupby(["first", "last"])["round"].nunique()
    # in client order, the others last
    weights = rows.groupby(["first", "last", "others", "client"])["weight"].sum() / rounds
    high = weights.groupby(["first", "last"]).cumsum().clip(upper=1.0)
    table = pd.DataFrame({"weight": weights, "high": high, "low": (high - weights).clip(lower=0.0)}).reset_index()
    names = [
        OTHERS if others else palette.name_of(client)
        for others, client in zip(table["others"], table["client"], strict=True)
    ]
    return placed(table.assign(name=names)), width


def _numbers(table: pd.DataFrame) -> list[alt.Chart]:
    """The client's number in its part of some columns, so that the picture is read without its colours."""
    spans = table["first"].drop_duplicates()
    step = -(-len(spans) // NUMBERED_SPANS)
    shown = table[
        table["first"].isin(spans.iloc[step // 2 :: step]) & (table["weight"] >= NUMBERED_WEIGHT) & ~table["others"]
    ]
    if shown.empty:
        return []
    shown = shown.assign(middle=(shown["low"] + shown["high"]) / 2)[["at", "middle", "client"]]
    text = alt.Chart(shown).mark_text(color="white", fontWeight="bold", fontSize=12)
    return [text.encode(x=alt.X("at:Q"), y=alt.Y("middle:Q"), text=alt.Text("client:N"))]


def _client_groups(clients: pd.Series[int]) -> tuple[pd.Series[int], dict[int, str], int]:
    """The rows of the heat map, each of one client or of several with following numbers.

    Returns the first client of each row's group, the groups' names by first client, and the clients in a group.
    """
    last = int(clients.max())
    size = -(-(last + 1) // MOST_CLIENTS)
    names = {
        first: str(first) if size == 1 else f"{first}–{min(first + size - 1, last)}"
        for first in range(0, last + 1, size)
    }
    return clients // size * size, names, size


def _cell_note(clients: int, rounds: int) -> str:
    parts = [f"{count} {what}" for count, what in ((clients, "clients"), (rounds, "rounds")) if count > 1]
    return f"each cell: mean of {' × '.join(parts)}" if parts else ""


def _arrows(table: pd.DataFrame, moved: _Moved, shapes: alt.Scale, colours: alt.Scale) -> list[alt.Chart]:
    """A tick where a client comes from, and from it an arrow to the weight."""
    key = legend(3)
    colour = alt.Color("kind:N", scale=colours, legend=key)
    tips = [tip("name", "client"), tip(moved.column, moved.start, ".1%"), tip("weight", moved.end, ".1%")]
    y = alt.Y("name:N", title=None, sort=table["name"].tolist(), axis=alt.Axis(grid=True))
    axis = alt.Axis(format="%", grid=False, tickCount=6)
    title = f"from {moved.start} ( | ) to {moved.end}"
    share = alt.X(f"{moved.column}:Q", title=title, axis=axis, scale=alt.Scale(zero=False, padding=14))
    base = alt.Chart(table)
    return [
        base.mark_rule(strokeWidth=2).encode(y=y, x=share, x2=alt.X2("weight:Q"), color=colour, tooltip=tips),
        base.mark_tick(thickness=2, size=14, color=palette.NEUTRAL).encode(y=y, x=share, tooltip=tips),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            y=y, x=alt.X("weight:Q"), color=colour, shape=alt.Shape("kind:N", scale=shapes, legend=key), tooltip=tips
        ),
    ]
