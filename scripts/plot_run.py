"""The picture of a run for the README: losses by client, validation loss, and what each phase brought.

python scripts/plot_run.py logs docs/quickstart.png
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fccl import phases
from fccl.display.png import fixed, png
from fccl.paths import LogPaths
from fccl.records.evaluation import EvaluationReport
from fccl.records.run import RoundRecord, RunEvent
from fccl.specs import Phase
from fccl.storage.files import write_bytes
from fccl.storage.reading import read_records, read_value

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
GLOBAL = "global, validation"
MEASURES = ["exact answers", "preference accuracy"]
KEY = {"title": None, "orient": "top", "columns": 2}
HEIGHT = 210


def losses(records: list[RoundRecord], phase: Phase, title: str) -> dict[str, Any]:
    """Each client's average loss and the validation loss of the new global adapter, by round."""
    values = list(_losses([record for record in records if record.phase == phase]))
    names = list(dict.fromkeys(value["who"] for value in values))
    styles = {name: (COLOURS[place % 6], MARKERS[place % 6], 1.0) for place, name in enumerate(names)}
    styles[GLOBAL] = ("black", "diamond", 2.2)
    colour, shape, width = (
        {"field": "who", "scale": fixed(names, [styles[name][part] for name in names]), "legend": key}
        for part, key in enumerate((KEY, KEY, None))
    )
    return {
        "title": {"text": title, "frame": "group"},
        "width": 290,
        "height": HEIGHT,
        "data": {"values": values},
        "encoding": {
            "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0, "labelOverlap": True}},
            "y": {"field": "loss", "type": "quantitative", "title": phases.of(phase).unit},
            "color": colour,
        },
        "layer": [
            {"mark": "line", "encoding": {"strokeWidth": width}},
            {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 40}, "encoding": {"shape": shape}},
        ],
    }


def _losses(rounds: list[RoundRecord]) -> Iterator[dict[str, Any]]:
    for record in rounds:
        for client, told in zip(record.clients, record.contributions, strict=True):
            yield {"round": record.round + 1, "who": f"client {client}, training", "loss": told.avg_loss}
    for record in rounds:
        if record.validation:
            yield {"round": record.round + 1, "who": GLOBAL, "loss": record.validation.loss}


def measures(report: EvaluationReport) -> dict[str, Any]:
    """Exact answers and preference accuracy of every model, with their intervals."""
    which = {"field": "measure", "sort": MEASURES}
    y = {"field": "value", "type": "quantitative", "title": "% of the test split", "scale": {"domain": [0, 110]}}
    high = y | {"field": "high"}
    bars = {"y": y, "color": which | {"scale": fixed(MEASURES, COLOURS[:2]), "legend": KEY}}
    figures = {"y": high, "text": {"field": "value", "format": ".0f"}}
    return {
        "title": {"text": "Test split, 95 % intervals", "frame": "group"},
        "width": 260,
        "height": HEIGHT,
        "data": {"values": list(_measures(report))},
        "encoding": {
            "x": {"field": "model", "type": "nominal", "sort": None, "axis": {"title": None, "labelAngle": 0}},
            "xOffset": which,
        },
        "layer": [
            {"mark": "bar", "encoding": bars},
            {"mark": {"type": "rule", "bandPosition": 0.5}, "encoding": {"y": high, "y2": {"field": "low"}}},
            {"mark": {"type": "text", "dy": -7, "fontSize": 10}, "encoding": figures},
        ],
    }


def _measures(report: EvaluationReport) -> Iterator[dict[str, Any]]:
    for model in report.models:
        for name, one in zip(MEASURES, (model.exact, model.preference.accuracy), strict=True):
            if one is not None:
                low, value, high = (100 * part for part in (one.low, one.value, one.high))
                yield {"model": model.name, "measure": name, "low": low, "value": value, "high": high}


def main(logs: LogPaths, out: Path) -> None:
    records = read_records(logs.progress, RoundRecord)
    report = read_value(logs.evaluation_json, EvaluationReport)
    if not records or report is None:
        sys.exit(f"{logs.root} holds no evaluated run")
    start = next(event for event in read_records(logs.progress, RunEvent) if event.event == "started")
    base = f" (base {start.validation.loss:.2f})" if start.validation else ""
    panels = [
        losses(records, "sft", f"FedIT: instruction tuning{base}"),
        losses(records, "va", "FedVA: value alignment (reference: 0.69)"),
        measures(report),
    ]
    apart = {"scale": {"color": "independent", "shape": "independent"}}
    write_bytes(out, png({"hconcat": panels, "spacing": 24, "resolve": apart}, scale=1.4))


if __name__ == "__main__":
    main(LogPaths(Path(sys.argv[1])), Path(sys.argv[2]))
