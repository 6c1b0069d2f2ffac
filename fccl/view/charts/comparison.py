"""The share of the gap between FedAvg and a ceiling that each method closes: the pooled data, or the oracle."""

from __future__ import annotations

import altair as alt
import pandas as pd

from fccl.display.plain_text import one_line
from fccl.records.comparison import CEILINGS, Comparison, ScenarioInfo
from fccl.view.charts import palette
from fccl.view.charts.parts import Picture, legend, tip, titled, unchecked

LOW, HIGH = -1.0, 2.2  # shares of the gap that fit into the picture
ROW = 34  # pixels
KINDS = {  # by verdict against FedAvg
    "better": ("triangle-up", palette.GAIN),
    "worse": ("triangle-down", palette.LOSS),
    "not worse": ("circle", palette.NEUTRAL),
    "cannot be told apart": ("square", palette.NEUTRAL),
    "no significant difference": ("circle", palette.NEUTRAL),
    "too few examples": ("cross", palette.NEUTRAL),
}


@unchecked
def gap_closed(comparison: Comparison, scenario: ScenarioInfo) -> Picture | None:
    """Every method's share of the gap with its 95 % interval: 0 % is FedAvg, 100 % the ceiling.

    None where the scenario has no such gap.
    """
    table = _shares(comparison, scenario)
    if table.empty:
        return None
    low, high = min(0.0, float(table["low"].min())), max(1.0, float(table["high"].max()))
    names, present = table["method"].tolist(), [kind for kind in KINDS if (table["verdict"] == kind).any()]
    shapes, colours = (alt.Scale(domain=present, range=[KINDS[kind][part] for kind in present]) for part in (0, 1))
    key = legend(3)
    y = alt.Y("method:N", sort=names, title=None, axis=alt.Axis(grid=False, labelLimit=170))
    axis = alt.Axis(format="%", labelOverlap=True, tickCount=6)
    scale = alt.Scale(domain=[low, high], nice=False, padding=38)
    x = alt.X("low:Q", title="share of the gap in test loss", axis=axis, scale=scale)
    colour = alt.Color("verdict:N", scale=colours, legend=key)
    tips = [
        tip("method", "method"),
        tip("figure", "gap closed"),
        tip("interval", "95 % interval"),
        tip("verdict", "against FedAvg"),
    ]
    base = alt.Chart(table)
    middle = alt.X("at:Q")
    layers = [
        *_marks(CEILINGS[comparison.ceiling]),
        base.mark_rule(strokeWidth=2.5).encode(y=y, x=x, x2=alt.X2("high:Q"), color=colour, tooltip=tips),
        base.mark_point(filled=True, size=100, opacity=1).encode(
            y=y, x=middle, color=colour, shape=alt.Shape("verdict:N", scale=shapes, legend=key), tooltip=tips
        ),
        base.mark_text(align="left", dx=6, dy=-10, fontSize=11).encode(y=y, x=middle, text=alt.Text("label:N")),
    ]
    note = f"what is beyond {LOW:.0%} or {HIGH:.0%} is drawn at the edge" if table["beyond"].any() else ""
    return titled(layers, "Gap closed", [note], ROW * len(table))


def _shares(comparison: Comparison, scenario: ScenarioInfo) -> pd.DataFrame:
    """A row for every method that has a share, in the order of the methods; `low`, `at` and `high` are cut to the
    picture.
    """
    rows = []
    for method in comparison.methods:
        row = comparison.row(scenario.name, method.name)
        found = row.share(comparison.ceiling) if row else None
        if row is None or found is None:
            continue
        low, at, high = (min(max(value, LOW), HIGH) for value in (found.low, found.value, found.high))
        words = f"{found.value:.0%}", f"{found.low:.0%} to {found.high:.0%}"
        label = words[0] if found.low < found.high else ""  # the ceiling's own, which stands on its line
        beyond = (low, at, high) != (found.low, found.value, found.high)
        rows.append(
            (one_line(method.title), low, at, high, *words, label, row.verdict or "no significant difference", beyond)
        )
    return pd.DataFrame(
        rows, columns=["method", "low", "at", "high", "figure", "interval", "label", "verdict", "beyond"]
    )


def _marks(ceiling: str) -> list[alt.Chart]:
    """Lines at FedAvg and at the ceiling, with their names above the plot."""
    chart = alt.Chart(pd.DataFrame({"level": [0.0, 1.0], "text": ["FedAvg", ceiling]}))
    above = alt.YValue(0)  # type: ignore[no-untyped-call]
    return [
        chart.mark_rule(strokeDash=[4, 4], color=palette.NEUTRAL, strokeWidth=1.5).encode(x=alt.X("level:Q")),
        chart.mark_text(baseline="bottom", dy=-3).encode(x=alt.X("level:Q"), y=above, text=alt.Text("text:N")),
    ]
