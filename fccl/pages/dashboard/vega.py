"""From an altair chart to what the browser draws.

Streamlit can do this itself, every time and with a check of the whole schema. Here it is done once for every edition of
a run, for all viewers.
"""

from __future__ import annotations

import threading
from typing import Any

import altair as alt
import pandas as pd

from fccl.view.charts import Picture

GREYS = {"light": "#5b6672", "dark": "#9aa7b4"}  # of words in a chart; Vega's own are black on both
Spec = dict[str, Any]
_LOCK = threading.Lock()  # altair keeps its transformer for all threads


def spec_of(picture: Picture, says: str, height: int | None, theme: str) -> Spec:
    """The chart as Vega-Lite: as wide as its place, the plot `height` pixels high if that is given, `says` for a screen
    reader.

    The tables stand in `datasets` under names that stay, as frames, which Streamlit sends as they are.
    """
    tables: dict[str, pd.DataFrame] = {}

    def keep(table: Any, /, *_: Any, **__: Any) -> dict[str, str]:
        name = next((name for name, known in tables.items() if known is table), f"table {len(tables)}")
        tables[name] = table
        return {"name": name}

    themed = picture.configure_text(color=GREYS[theme]).configure_title(subtitleColor=GREYS[theme])
    with _LOCK:
        alt.data_transformers.register("fccl", keep)
        with alt.data_transformers.enable("fccl"), alt.theme.enable("none"):
            spec: Spec = themed.to_dict(validate=False)
    size = {} if height is None else {"height": height}
    return spec | size | {"description": says, "autosize": {"type": "fit-x", "contains": "padding"}, "datasets": tables}
