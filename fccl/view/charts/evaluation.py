"""The evaluation of each phase's model on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import altair as alt
import pandas as pd

from fccl.display.plain_text import one_line
from fccl.display.words import plain
from fccl.records.evaluation import Estimate, EvaluationReport, ModelEvaluation
from fccl.view.charts import palette
from fccl.view.charts.parts import Picture, log_ticks, tip, titled, unchecked
from fccl.view.evaluation_tables import percent

Measure = Literal["perplexity", "preference", "exact"]


@dataclass(frozen=True)
class _Kind:
    """One measure: what it is called, how its figures are written, and where it is in a model's evaluation."""

    title: str
    unit: str
    show: Callable[[float], str]
    scale: alt.Scale
    estimate: Callable[[ModelEvaluation], Estimate | None]


def _kinds() -> Mapping[Measure, _Kind]:
    share = alt.Scale(domain=[0, 1], nice=False, padding=20)
    log = alt.Scale(type="log", nice=False, padding=24)
    return {
        "perplexity": _Kind(
            "Response perplexity", "perplexity, log (lower is better)", plain, log, lambda model: model.perplexity
        ),
        "preference": _Kind(
            "Preference accuracy",
            "share of pairs (higher is better)",
            percent,
            share,
            lambda model: model.preference.accuracy,
        ),
        "exact": _Kind(
            "Exact answers", "share of answers (higher is better)", percent, share, lambda model: model.exact
        ),
    }


@unchecked
def evaluation(report: EvaluationReport, measure: Measure) -> Picture | None:
    """Every model's figure on the test split with its 95 % interval."""
    kind = _kinds()[measure]
    found = [(one_line(model.name), one) for model in report.models if (one := kind.estimate(model))]
    if not found:
        return None
    rows = [
        (name, one.value, one.low, one.high, kind.show(one.value), f"{kind.show(one.low)} to {kind.show(one.high)}")
        for name, one in found
    ]
    table = pd.DataFrame(rows, columns=["model", "value", "low", "high", "figure", "interval"])
    names = list(dict.fromkeys(table["model"]))
    axis = alt.Axis(format="%", values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelOverlap=True)
    if measure == "perplexity":
        axis = alt.Axis(format=",.3~r", values=log_ticks(table["low"].min(), table["high"].max()), labelOverlap=True)
    x = alt.X("low:Q", title=kind.unit, scale=kind.scale, axis=axis)
    y = alt.Y("model:N", sort=names, title=None, axis=alt.Axis(grid=True, labelLimit=90))
    looks = alt.Scale(domain=names, range=[palette.NEUTRAL if name == "base" else palette.GLOBAL for name in names])
    colour = alt.Color("model:N", scale=looks, legend=None)
    shape = alt.Shape("model:N", sort=names, legend=None)
    tips = [tip("model", "model"), tip("figure", kind.title.lower()), tip("interval", "95 % interval")]
    chart = alt.Chart(table)
    layers = [
        chart.mark_rule(strokeWidth=3).encode(y=y, x=x, x2=alt.X2("high:Q"), color=colour, tooltip=tips),
        chart.mark_point(filled=True, size=110, opacity=1).encode(
            y=y, x=alt.X("value:Q"), color=colour, shape=shape, tooltip=tips
        ),
        chart.mark_text(dy=-13).encode(y=y, x=alt.X("value:Q"), text=alt.Text("figure:N")),
    ]
    return titled(layers, f"{kind.title} on the test split", height=50 * len(names) + 10)
