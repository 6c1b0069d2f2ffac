"""The chart of who mattered for a run's final model."""

from __future__ import annotations

import altair as alt
import pandas as pd

from fccl.records.after import Influence, MeasuredInfluence
from fccl.view.charts import palette
from fccl.view.charts.parts import Picture, tip, titled, unchecked

MOST_BARS = 20
ROW = 26  # pixels of a client
_TITLES = {"instructions": "Influence on instructions", "pairs": "Influence on preference pairs"}


@unchecked
def final_influence(found: Influence | None, place: int) -> Picture | None:
    """A bar for each client, its Shapley value with its standard error, and a tick where it is left out.

    Of more than 20 clients those with the largest values, helping or harming. None where there is no such loss.
    """
    if found is None or place >= len(found.measures):
        return None
    measured = found.measures[place]
    table = _rows(measured)
    order, value = table["name"].tolist(), f"lowers the final loss by ({measured.unit})"
    row = alt.Y("name:N", title=None, sort=order)
    chart = alt.Chart(table)
    fill = alt.Color(
        "helps:N",
        scale=alt.Scale(domain=["helps", "harms"], range=[palette.GAIN, palette.LOSS]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    tips = [
        tip("name", "client"),
        tip("shapley", "Shapley value", "+.4f"),
        tip("error", "standard error", ".4f"),
        tip("left_out", "left out", "+.4f"),
    ]
    bars = chart.mark_bar(height=12).encode(x=alt.X("shapley:Q", title=value), y=row, color=fill, tooltip=tips)
    spread = chart.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q", y=row)
    ticks = chart.mark_tick(thickness=3, height=18, color=palette.NEUTRAL).encode(x="left_out:Q", y=row, tooltip=tips)
    layers = [bars, *([spread] if (table["error"] > 0).any() else []), ticks]
    notes = ["bar: Shapley value; tick: left out", _cut(measured)]
    return titled(layers, _TITLES[measured.measure], notes, height=ROW * len(table) + 20)


def _rows(measured: MeasuredInfluence) -> pd.DataFrame:
    ranked = sorted(measured.clients, key=lambda client: -abs(client.shapley))[:MOST_BARS]
    ranked.sort(key=lambda client: -client.shapley)
    return pd.DataFrame(
        {
            "name": [palette.name_of(client.client_id) for client in ranked],
            "shapley": [client.shapley for client in ranked],
            "left_out": [client.left_out for client in ranked],
            "error": [client.error for client in ranked],
            "low": [client.shapley - client.error for client in ranked],
            "high": [client.shapley + client.error for client in ranked],
            "helps": ["helps" if client.shapley >= 0 else "harms" for client in ranked],
        }
    )


def _cut(measured: MeasuredInfluence) -> str:
    count = len(measured.clients)
    return f"the {MOST_BARS} of {count} clients that matter most" if count > MOST_BARS else ""
