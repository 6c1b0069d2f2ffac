"""Small parts that the charts share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import altair as alt
import pandas as pd
from altair.utils.schemapi import debug_mode

from fccl.view.charts import palette

HEIGHT = 240  # pixels

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Picture = alt.Chart | alt.LayerChart


def unchecked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Build a chart without checking every part of it against the schema of Vega-Lite, which takes most of the time;
    the tests check.
    """

    @functools.wraps(function)
    def build(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with debug_mode(False):
            return function(*args, **kwargs)

    return build


def titled(layers: Sequence[alt.Chart], title: str, notes: Sequence[str] = (), height: int = HEIGHT) -> Picture:
    """One chart of the layers, as wide as its place, with its title and, where there are any, notes below it."""
    subtitle = [note for note in notes if note]
    text = alt.TitleParams(title, anchor="start", offset=20)
    if subtitle:
        text.subtitle = subtitle
    chart: Picture = layers[0] if len(layers) == 1 else alt.LayerChart(layer=list(layers))
    chart.title, chart.description, chart.width, chart.height = text, ". ".join([title, *subtitle]), "container", height
    return chart


def tip(field: str, title: str, figures: str = "") -> alt.Tooltip:
    """One line of what a mark says when it is pointed at: a number when `figures` gives its format, else a name."""
    return alt.Tooltip(f"{field}:Q", title=title, format=figures) if figures else alt.Tooltip(f"{field}:N", title=title)


def legend(entries: int, filled: bool = False) -> alt.Legend:
    """Below the chart, in columns that a phone has room for.

    `filled` symbols have no outline, which would be dashed as the lines are.
    """
    outline = 0 if filled else alt.Undefined
    columns = min(4, max(1, entries))
    return alt.Legend(
        title=None,
        orient="bottom",
        offset=10,
        columns=columns,
        symbolLimit=0,
        labelLimit=300,
        symbolStrokeWidth=outline,
    )


def ramp(value: str, title: str, figures: str) -> alt.Color:
    """The colour of a heat map's cells, with its legend below the chart."""
    scale = alt.Scale(range=list(palette.RAMP), domainMin=0)
    return alt.Color(
        f"{value}:Q",
        scale=scale,
        legend=alt.Legend(title=title, orient="bottom", offset=10, format=figures, gradientLength=160),
    )


def rule(at: float, text: str, left: bool = False) -> list[alt.Chart]:
    """A line across the plot with its name above it, at its right end or at its left."""
    chart = alt.Chart(pd.DataFrame({"level": [at], "text": [text]}))
    line = chart.mark_rule(strokeDash=[4, 4], color=palette.NEUTRAL, strokeWidth=1.5).encode(y=alt.Y("level:Q"))
    label = chart.mark_text(align="left" if left else "right", baseline="bottom", dx=3 if left else -3, dy=-3)
    end = alt.XValue(0 if left else "width")  # type: ignore[no-untyped-call]
    return [line, label.encode(y=alt.Y("level:Q"), x=end, text=alt.Text("text:N"))]


def log_ticks(low: float, high: float) -> list[float]:
    """The grid lines of a logarithmic axis: powers of ten, or over a shorter span 1, 2 and 5 times these."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high > 100 * low else (1, 2, 5)
    return [factor * 10.0**power for power in powers for factor in factors]


def points(drawn: bool, color: str | None = None) -> alt.OverlayMarkDef | bool:
    """The marks on a line, if it has any."""
    if not drawn:
        return False
    return alt.OverlayMarkDef(filled=True, size=45, color=color) if color else alt.OverlayMarkDef(filled=True, size=45)
