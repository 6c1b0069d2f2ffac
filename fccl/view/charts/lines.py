"""Lines over rounds: losses, scores, standing, preference accuracy, effective clients, two runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import altair as alt
import pandas as pd
from altair.utils.schemapi import UndefinedType

from fccl import phases
from fccl.specs import Phase
from fccl.view.charts import palette
from fccl.view.charts.parts import Picture, legend, log_ticks, points, rule, tip, titled, unchecked
from fccl.view.charts.rounds import averaged, mean_note, numbered, phase_border, placed, round_axis
from fccl.view.values import RunView

MANY = 12  # more clients than this are not drawn one by one
MOST_POINTS = 200  # along one line
MARKED = 40  # a line of no more points shows each
OUT = 2.0  # the standing at which a client is out
LOWEST = -0.1  # on the axis of standing, whose least is 0
ACCUSED = 6  # of many clients, so many that rounds speak against most have a line


@dataclass(frozen=True)
class _Value:
    """The value that a chart of clients shows: a column of `SHARES`, and what its axis says.

    `by_phase`: every phase begins anew, and no line goes on from one into the next.
    """

    column: str
    title: str
    scale: alt.Scale = field(default_factory=lambda: alt.Scale(zero=False))
    by_phase: bool = False

    @property
    def apart(self) -> alt.Detail | UndefinedType:
        """The cut between two lines of one client."""
        return alt.Detail("phase:N") if self.by_phase else alt.Undefined


@unchecked
def client_losses(view: RunView, phase: Phase, highlight: Sequence[int] = ()) -> Picture | None:
    """The loss that each client reported, one line a client; of more than 12, the median with the 10-90 % band and the
    lines of `highlight`.
    """
    shares, facts = view.shares[view.shares["phase"] == phase], phases.of(phase)
    value = _Value("avg_loss", f"loss ({facts.unit})")
    return _by_client(shares, value, f"Loss by client, {facts.name}", highlight)


@unchecked
def scores(view: RunView, phase: Phase | None = None, highlight: Sequence[int] = ()) -> Picture | None:
    """The scores that weights come from, drawn as `client_losses` is.

    Scores that rest on losses differ in scale by phase.
    """
    shares = view.shares if phase is None else view.shares[view.shares["phase"] == phase]
    return _by_client(
        shares,
        _Value("score", "score", alt.Scale(zero=True)),
        "Contribution scores" + (f", {phases.of(phase).name}" if phase else ""),
        highlight,
    )


@unchecked
def standing(view: RunView) -> Picture | None:
    """The standing of every client: the standard errors by which the phase's rounds so far speak against it in the
    mean.

    Drawn as `client_losses` is. Of more than 12 clients, the lines of the six that a phase's last word is worst for.
    """
    shares = view.shares.dropna(subset=["standing"])
    if shares.empty:
        return None
    last = shares.groupby(["phase", "client"])["standing"].last().groupby("client").max()
    accused = [int(client) for client in last.nlargest(ACCUSED).index]
    top = max(OUT + 1, 1.12 * float(shares["standing"].max()))
    value = _Value("standing", "standard errors against it", alt.Scale(domain=[LOWEST, top], nice=False), by_phase=True)
    lines, notes = _client_layers(shares, value, sorted(accused))
    if len(last) > MANY:
        notes.append(f"lines: the {ACCUSED} clients that rounds speak against most")
    # on the left: in the first rounds most lead downhill, so there is room above 0
    limit = rule(OUT, "out, until 0", left=True)
    return titled([*lines, *limit, *phase_border(shares)], "Standing by client", notes)


@unchecked
def validation_loss(view: RunView, phase: Phase) -> Picture | None:
    """The global adapter's loss on the validation split, with what the phase began from as a rule."""
    rounds = view.rounds[view.rounds["phase"] == phase].dropna(subset=["validation_loss"])
    if rounds.empty:
        return None
    facts = phases.of(phase)
    start = phases.start_loss(phase, view.preference) or (view.base.loss if view.base and phase == "sft" else None)
    lowest = float(rounds["validation_loss"].min())
    steep = start is not None and 0 < 6 * lowest < start
    y = alt.Y("validation_loss:Q", title=f"loss ({phases.of(phase).unit})", scale=alt.Scale(zero=False))
    if steep and start:
        y = (
            y.title(f"loss ({phases.of(phase).unit}, log)")
            .scale(type="log", nice=False, padding=10)
            .axis(values=log_ticks(lowest, start), format=",.3~r")
        )
    line, width = global_line(rounds, "validation_loss", y, tip("validation_loss", "validation loss", ".4f"))
    rules = [] if start is None else rule(start, f"{facts.start} {start:.2f}")
    return titled([line, *rules], f"Validation loss, {phases.of(phase).name}", [mean_note(width)])


@unchecked
def preference_accuracy(view: RunView) -> Picture | None:
    """The share of validation pairs whose chosen response the global adapter finds likelier."""
    rounds = view.rounds.dropna(subset=["preference_accuracy"])
    if rounds.empty:
        return None
    low = min(0.4, math.floor(10 * float(rounds["preference_accuracy"].min())) / 10)
    y = alt.Y(
        "preference_accuracy:Q", title="share of pairs", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[low, 1.0])
    )
    line, width = global_line(
        rounds, "preference_accuracy", y, tip("preference_accuracy", "preference accuracy", ".1%")
    )
    return titled([line, *rule(0.5, "chance")], "Validation preference accuracy", [mean_note(width)])


@unchecked
def effective_clients(view: RunView) -> Picture | None:
    """The number of equally heavy clients that the weights are worth, 1 / sum of w², beside how many were
    aggregated.
    """
    if view.rounds.empty:
        return None
    names = {"clients": "aggregated", "effective_clients": "effective (1 / Σw²)"}
    long = view.rounds.melt(id_vars=["round", "phase"], value_vars=list(names), var_name="kind", value_name="value")
    table, width = averaged(long.assign(name=long["kind"].map(names)), MOST_POINTS, ["name"], ["value"])
    scale = alt.Scale(domain=[0, 1.12 * float(table["value"].max())], nice=False)
    look = {names["effective_clients"]: (palette.GLOBAL, [1, 0]), names["clients"]: (palette.NEUTRAL, [5, 3])}
    chart = _two_lines(
        table, alt.Y("value:Q", title="clients", scale=scale), "name", look, tip("value", "clients", ".2f")
    )
    return titled([chart, *phase_border(view.rounds)], "Effective number of clients", [mean_note(width)])


@unchecked
def lora_error(view: RunView) -> Picture | None:
    """The distance of the mean of LoRA factors from the mean of their products, as a share of its norm."""
    rounds = view.rounds.dropna(subset=["lora_error"])
    if rounds.empty:
        return None
    y = alt.Y("lora_error:Q", title="share of the norm", axis=alt.Axis(format=".3~%"), scale=alt.Scale(domainMin=0))
    return over_both_phases(
        rounds, "lora_error", y, "Error of averaging LoRA factors", tip("lora_error", "error", ".3~%")
    )


@unchecked
def overlay(a: RunView, b: RunView, phase: Phase) -> Picture | None:
    """Validation loss of two runs, told apart by dash and by colour."""
    names = [a.run_id, b.run_id if b.run_id != a.run_id else f"{b.run_id} (again)"]
    frames = [view.rounds[view.rounds["phase"] == phase].dropna(subset=["validation_loss"]) for view in (a, b)]
    tables = [_of_phase(frame).assign(run=name) for frame, name in zip(frames, names, strict=True) if len(frame)]
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    look = dict(zip(names, [(palette.GLOBAL, [1, 0]), (palette.LOSS, [6, 3])], strict=True))
    y = alt.Y("validation_loss:Q", title=f"loss ({phases.of(phase).unit})", scale=alt.Scale(zero=False))
    chart = _two_lines(table, y, "run", look, tip("validation_loss", "validation loss", ".4f"), "round of the phase")
    return titled([chart], f"Validation loss of two runs, {phases.of(phase).name}")


def _by_client(shares: pd.DataFrame, value: _Value, title: str, highlight: Sequence[int]) -> Picture | None:
    shares = shares.dropna(subset=[value.column])
    if shares.empty:
        return None
    layers, notes = _client_layers(shares, value, highlight)
    return titled(layers, title, notes)


def _client_layers(shares: pd.DataFrame, value: _Value, highlight: Sequence[int]) -> tuple[list[alt.Chart], list[str]]:
    """The layers of a chart of clients, and its notes."""
    clients = sorted(int(client) for client in shares["client"].unique())
    if len(clients) <= MANY:
        lines, width = _client_lines(shares, value, clients)
        return [lines], [mean_note(width)]
    band, width = _band(shares, value)
    chosen = [client for client in highlight if client in clients][:MANY]
    lit = [_client_lines(shares[shares["client"].isin(chosen)], value, chosen)[0]] if chosen else []
    note = f"median and 10–90 % band of {len(clients)} clients"
    return [*band, *lit], [note, f"each point: {width} rounds" if width > 1 else ""]


def _client_lines(shares: pd.DataFrame, value: _Value, clients: Sequence[int]) -> tuple[alt.Chart, int]:
    table, width = averaged(shares, MOST_POINTS, ["client", "phase"], [value.column])
    table = table.assign(name=table["client"].map(palette.name_of))
    few = table["at"].nunique() <= MARKED
    key = legend(len(clients), filled=few)
    chart = alt.Chart(table).mark_line(strokeWidth=2, point=points(few))
    return chart.encode(
        x=round_axis(table),
        y=alt.Y(f"{value.column}:Q", title=value.title, scale=value.scale),
        detail=value.apart,
        color=alt.Color("name:N", scale=palette.client_scale(clients, palette.colour), legend=key),
        strokeDash=alt.StrokeDash("name:N", scale=palette.client_scale(clients, palette.dash), legend=key),
        shape=alt.Shape("name:N", scale=palette.client_scale(clients, palette.shape), legend=key)
        if few
        else alt.Undefined,
        tooltip=[tip("name", "client"), tip("rounds", "round"), tip(value.column, value.title, ".4~g")],
    ), width


def _band(shares: pd.DataFrame, value: _Value) -> tuple[list[alt.Chart], int]:
    spans, width = numbered(shares[["round", "phase", value.column]], MOST_POINTS)
    groups = spans.groupby(["first", "last", "phase"])[value.column]
    quantiles = {name: groups.quantile(share) for name, share in (("low", 0.1), ("median", 0.5), ("high", 0.9))}
    table = placed(pd.DataFrame(quantiles).reset_index())
    tips = [
        tip("rounds", "round"),
        tip("low", "10 %", ".4~g"),
        tip("median", "median", ".4~g"),
        tip("high", "90 %", ".4~g"),
    ]
    base = alt.Chart(table)
    low, median = (alt.Y(f"{name}:Q", title=value.title, scale=value.scale) for name in ("low", "median"))
    return [
        base.mark_area(color=palette.NEUTRAL, opacity=0.3).encode(
            x=round_axis(table), y=low, y2=alt.Y2("high:Q"), detail=value.apart, tooltip=tips
        ),
        base.mark_line(color=palette.NEUTRAL, strokeWidth=2.5, point=points(len(table) == 1)).encode(
            x=round_axis(table), y=median, detail=value.apart, tooltip=tips
        ),
    ], width


def global_line(
    rounds: pd.DataFrame, column: str, y: alt.Y, *figures: alt.Tooltip, also: Sequence[str] = ()
) -> tuple[alt.Chart, int]:
    """One line of the whole federation, of the column that `y` names, and how many rounds a point stands for.

    `figures` may speak of `also`.
    """
    table, width = averaged(rounds, MOST_POINTS, [], [column, *also])
    line = alt.Chart(table).mark_line(
        color=palette.GLOBAL, strokeWidth=2, point=points(len(table) <= MARKED, palette.GLOBAL)
    )
    return line.encode(x=round_axis(table), y=y, tooltip=[tip("rounds", "round"), *figures]), width


def over_both_phases(
    rounds: pd.DataFrame, column: str, y: alt.Y, title: str, *figures: alt.Tooltip, also: Sequence[str] = ()
) -> Picture:
    """`global_line` as a chart of its own, with the border between the phases."""
    line, width = global_line(rounds, column, y, *figures, also=also)
    return titled([line, *phase_border(rounds)], title, [mean_note(width)])


def _two_lines(
    table: pd.DataFrame,
    y: alt.Y,
    field: str,
    look: Mapping[str, tuple[str, list[int]]],
    figure: alt.Tooltip,
    x_title: str = "round",
) -> alt.Chart:
    """A line for each value of `field`, with the colour and the dash that `look` gives it."""
    few, names = table["at"].nunique() <= MARKED, list(look)
    key = legend(2, filled=few)
    colours, dashes = ([each[part] for each in look.values()] for part in (0, 1))
    chart: alt.Chart = alt.Chart(table).mark_line(strokeWidth=2, point=points(few))
    return chart.encode(
        x=round_axis(table, title=x_title),
        y=y,
        color=alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=colours), legend=key),
        strokeDash=alt.StrokeDash(f"{field}:N", scale=alt.Scale(domain=names, range=dashes), legend=key),
        tooltip=[tip(field, field), tip("rounds", "round"), figure],
    )


def _of_phase(rounds: pd.DataFrame) -> pd.DataFrame:
    """The validation losses by round of the phase, so that runs of different length lie upon each other."""
    counted = rounds.assign(round=rounds["round"] - rounds["round"].min())
    return averaged(counted, MOST_POINTS, [], ["validation_loss"])[0]
