"""The pictures of a comparison as PNG: the whole as a heat map, the gaps that are closed, and for each scenario weights
and losses by round.

`wide` is for a page or a screen, else for a phone.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fccl.compare.methods import way_of
from fccl.compare.styles import BAD, LINE, STRONG, style, styled
from fccl.display.png import INK, below, distinct, fixed, png
from fccl.display.tables import SIGNS
from fccl.records.comparison import CEILINGS, FEDAVG, Comparison, Outcome, ScenarioInfo
from fccl.view.comparison_tables import figure as main_figure
from fccl.view.comparison_tables import heading

GAP_LOW, GAP_HIGH = -1.0, 2.2  # shares of the gap that fit into the picture
FULL = 0.4  # a loss so much above or below FedAvg's, as a logarithm, has the full colour
_SCALE = 1.6  # pixels to a unit
_STEPS = {"sft": "nats per response token", "va": "DPO loss, nats per pair"}
_BEYOND = {-1: "triangle-left", 1: "triangle-right"}
Values = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Drawn:
    """The pictures that stand both on the page and in files of their own.

    By scenario; None where there is nothing to draw.
    """

    gaps: bytes | None
    weights: Mapping[str, bytes | None]
    losses: Mapping[str, bytes | None]


def drawn(comparison: Comparison, wide: bool = True) -> Drawn:
    """All of them."""
    each = comparison.scenarios
    return Drawn(
        gaps(comparison, wide),
        {scenario.name: weights(comparison, scenario, wide) for scenario in each},
        {scenario.name: losses(comparison, scenario, wide) for scenario in each},
    )


def summary(comparison: Comparison, wide: bool = True) -> bytes:
    """Methods by scenarios: the figure, the verdict by sign, and by colour how far the loss is from FedAvg's."""
    width = (92 if wide else 66) * len(comparison.scenarios)
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) > 1)}"
    words = (
        f"Test perplexity (preferences: DPO loss), mean of {seeds}. ▲ better, ▼ worse, ≈ not worse than "
        "FedAvg, ? cannot be told apart (95 %). Blue: below FedAvg's loss, orange: above it."
    )
    quiet = {"title": None, "ticks": False, "domain": False}
    room = 6 + 12 * _headings(comparison)[0].count("\n")
    across = {**quiet, **_IN_LINES, "labelAngle": 0, "labelFontSize": 10, "orient": "top", "labelPadding": room}
    return png(
        {
            "data": {"values": _cells(comparison)},
            "title": below(words, int((width + 180) / 5.6)),
            "width": width,
            "height": 26 * len(comparison.methods),
            "encoding": {
                "x": {"field": "scenario", "type": "ordinal", "sort": None, "axis": across},
                "y": {"field": "method", "type": "ordinal", "sort": None, "axis": quiet},
            },
            "layer": [
                {"mark": "rect", "encoding": {"color": _SHADES}},
                _figures("normal", "!datum.strong"),
                _figures("bold", "datum.strong"),
            ],
        },
        _SCALE,
    )


_IN_LINES = {"labelExpr": r"split(datum.label, '\n')"}
_IN_THE_MIDDLE = {  # of the place of all its lines, not of the first
    "condition": [
        {"test": rf"length(split(datum.label, '\n')) == {count}", "value": -6.5 * (count - 1)} for count in (2, 3, 4)
    ],
    "value": 0,
}
_SHADES = {
    "field": "shade",
    "type": "quantitative",
    "scale": {"domain": [-1, 0, 1], "range": ["#6fb1de", "#ffffff", "#f2a66b"], "interpolate": "rgb"},
    "legend": None,
}


def _figures(weight: str, which: str) -> dict[str, Any]:
    """The layer of the figures in this weight of the font."""
    mark = {"type": "text", "fontSize": 10.5, "fontWeight": weight}
    return {"transform": [{"filter": which}], "mark": mark, "encoding": {"text": {"field": "text"}}}


def _cells(comparison: Comparison) -> Values:
    """A value for each method and scenario."""
    headings = _headings(comparison)
    titles, cells = _titles(comparison), []
    for method in comparison.methods:
        for scenario, column in zip(comparison.scenarios, headings, strict=True):
            row = comparison.row(scenario.name, method.name)
            sign = SIGNS.get(row.verdict or "", "") if row else ""
            cells.append(
                {
                    "method": titles[method.name],
                    "scenario": column,
                    "shade": shade(row, comparison.row(scenario.name, FEDAVG)),
                    "text": f"{main_figure(row, scenario.phase)} {sign}".strip() if row else "",
                    "strong": method.name in STRONG,
                }
            )
    return cells


def _headings(comparison: Comparison) -> list[str]:
    """The scenarios' headings in lines, equally many for each: those of few lines begin with empty ones."""
    found = [_wrapped(heading(scenario, comparison.num_clients)) for scenario in comparison.scenarios]
    most = max(text.count("\n") for text in found)
    return distinct(" \n" * (most - text.count("\n")) + text for text in found)


def shade(row: Outcome | None, base: Outcome | None) -> float:
    """-1 … 1: below 0 better than FedAvg. 0 where nothing can be said."""
    if row is None or base is None or base.loss is None:
        return 0.0
    if row.loss is None:
        return 1.0
    return max(-1.0, min(1.0, math.log(max(row.loss.value, 1e-9) / max(base.loss.value, 1e-9)) / FULL))


def gaps(comparison: Comparison, wide: bool = True) -> bytes | None:
    """The share of the gap from FedAvg to the ceiling that each method closes, with intervals, in the scenarios that
    have one. None when none has.
    """
    values = _shares(comparison)
    if not values:
        return None
    shown = {value["method"] for value in values}
    names = [method.name for method in comparison.methods if _titles(comparison)[method.name] in shown]
    words = "share of the gap in test loss that is closed, 95 % intervals; arrows: beyond the picture"
    across = _across(CEILINGS[comparison.ceiling])
    return png(
        {
            "data": {"values": values},
            "title": below(words, 110 if wide else 50),
            "width": 430 if wide else 210,
            "height": len({value["scenario"] for value in values}) * max(62, 8 * len(names)),
            "layer": [
                _upright(0.0, INK, LINE, across),
                _upright(1.0, style(comparison.ceiling)[0], style(comparison.ceiling)[2], across),
                *_intervals(comparison, names, across, wide),
            ],
        },
        _SCALE,
    )


def _across(ceiling: str) -> dict[str, Any]:
    """The axis of shares, with the names of both ends of the gap."""
    ends = (
        f"datum.value == 0 ? ['0 %', 'FedAvg'] : datum.value == 1 ? ['100 %', '{ceiling}'] : 100 * datum.value + ' %'"
    )
    return {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [GAP_LOW - 0.05, GAP_HIGH + 0.05], "nice": False},
        "axis": {"values": [-1, 0, 1, 2], "labelExpr": ends, "title": None, "grid": False},
    }


def _intervals(
    comparison: Comparison, names: Sequence[str], across: dict[str, Any], wide: bool
) -> Iterator[dict[str, Any]]:
    """The layers of intervals, of points, and of the arrows at the edges."""
    titles = [_titles(comparison)[name] for name in names]
    lines = {**_IN_LINES, "labelOffset": _IN_THE_MIDDLE, "title": None, "ticks": False, "domain": False}
    where = {
        "y": {"field": "scenario", "sort": None, "axis": lines, "scale": {"paddingInner": 0.2}},
        "yOffset": {"field": "method", "sort": titles, "scale": {"domain": titles}},
        "color": styled(names, titles, 0, wide),
    }
    thick = {"field": "width", "type": "quantitative", "scale": None}
    yield {
        "transform": [{"filter": "datum.low < datum.high"}],
        "mark": {"type": "rule", "strokeCap": "round"},
        "encoding": {**where, "x": across | {"field": "low"}, "x2": {"field": "high"}, "strokeWidth": thick},
    }
    point = {"type": "point", "filled": True, "opacity": 1, "stroke": "white", "strokeWidth": 0.5}
    size = {"field": "size", "type": "quantitative", "scale": None}
    shapes = styled(names, titles, 1, wide)
    yield {
        "transform": [{"filter": "datum.beyond == 0"}],
        "mark": point,
        "encoding": {**where, "x": across, "size": size, "shape": shapes},
    }
    for side, shape in _BEYOND.items():
        yield {
            "transform": [{"filter": f"datum.beyond == {side}"}],
            "mark": {**point, "shape": shape},
            "encoding": {**where, "x": across, "size": size},
        }


def _shares(comparison: Comparison) -> Values:
    """A value for each share of a gap; an interval is cut to the picture, a point beyond it stands at its edge."""
    titles, values, ceiling = _titles(comparison), [], comparison.ceiling
    for scenario in comparison.scenarios:
        for row in comparison.rows:
            found = row.share(ceiling)
            if row.scenario != scenario.name or found is None or row.method == ceiling:
                continue  # the ceiling's own share is always 1
            low, at, high = (min(max(value, GAP_LOW), GAP_HIGH) for value in (found.low, found.value, found.high))
            strong = row.method in STRONG
            values.append(
                {
                    "scenario": _wrapped(scenario.title, 22),
                    "method": titles[row.method],
                    "low": low,
                    "at": at,
                    "high": high,
                    "beyond": (found.value > at) - (found.value < at),
                    "width": 2.2 if strong else 1.2,
                    "size": 70 if strong else 42,
                }
            )
    return values


def _upright(level: float, colour: str, dash: Sequence[float], across: dict[str, Any]) -> dict[str, Any]:
    """A line from the top to the bottom of the picture."""
    mark = {"type": "rule", "color": colour, "strokeDash": list(dash), "strokeWidth": 1.2}
    return {"data": {"values": [{"at": level}]}, "mark": mark, "encoding": {"x": across}}


def weights(comparison: Comparison, scenario: ScenarioInfo, wide: bool = True) -> bytes | None:
    """By round, how much each client counts under each method, in the first seed. None when no method has weights."""
    rows = [
        row
        for row in comparison.rows
        if row.scenario == scenario.name and row.weights and way_of(row.method) == "federated"
    ]
    if not rows:
        return None
    columns, titles, bad = min(len(rows), 4 if wide else 2), _titles(comparison), rows[0].bad_clients
    who = f"orange, with a !: the bad clients {', '.join(map(str, bad))}" if bad else "nobody is bad"
    words = f"weight by round (seed {comparison.seeds[0]}; numbers are clients; {who})"
    panels = [_panel(row, titles[row.method], place % columns == 0) for place, row in enumerate(rows)]
    return png({"title": below(words, 42 * columns), "concat": panels, "columns": columns, "spacing": 14}, _SCALE)


def _panel(row: Outcome, title: str, first: bool) -> dict[str, Any]:
    """The weights under one method; the first panel of a line has the labels of the axis."""
    kinds = fixed(("honest", "next", "bad"), ("#a6cae0", "#59a2cd", "#f6c9a8"))
    edges = fixed(("honest", "next", "bad"), ("white", "white", BAD))
    upwards = {"field": "low", "type": "quantitative", "scale": {"domain": [0, 1]}, "title": None}
    return {
        "title": {"text": textwrap.wrap(title, 26), "fontSize": 11, "frame": "group"},
        "width": 150,
        "height": 120,
        "data": {"values": list(_stack(row))},
        "encoding": {
            "x": {"field": "round", "type": "ordinal", "axis": {"title": None, "labelAngle": 0, "labelOverlap": True}},
            "y": upwards | {"axis": {"grid": False, "tickCount": 5, "labels": first}},
        },
        "layer": [
            {
                "mark": {"type": "bar", "strokeWidth": 0.8},
                "encoding": {
                    "y2": {"field": "high"},
                    "color": {"field": "kind", "scale": kinds, "legend": None},
                    "stroke": {"field": "kind", "scale": edges, "legend": None},
                },
            },
            {
                "transform": [{"filter": "datum.high - datum.low >= 0.09"}],
                "mark": {"type": "text", "fontSize": 8.5},
                "encoding": {"y": upwards | {"field": "middle"}, "text": {"field": "label"}},
            },
        ],
    }


def _stack(row: Outcome) -> Iterator[dict[str, object]]:
    """Honest clients from below, bad ones from above, so that their border is what one sees."""
    for number, shares in enumerate(row.weights or (), start=1):
        bottom, top = 0.0, sum(shares)
        honest = [client for client in range(len(shares)) if client not in row.bad_clients]
        for place, client in enumerate(honest):
            yield _part(number, str(client), "next" if place % 2 else "honest", bottom, bottom + shares[client])
            bottom += shares[client]
        for client in (client for client in reversed(row.bad_clients) if shares[client] > 0):
            yield _part(number, f"{client}!", "bad", top - shares[client], top)
            top -= shares[client]


def _part(number: int, label: str, kind: str, low: float, high: float) -> dict[str, object]:
    return {"round": number, "label": label, "kind": kind, "low": low, "high": high, "middle": (low + high) / 2}


def losses(comparison: Comparison, scenario: ScenarioInfo, wide: bool = True) -> bytes | None:
    """By round, the loss on the server's validation split, mean over seeds. None when there is none."""
    rows = [row for row in comparison.rows if row.scenario == scenario.name and row.validation]
    if not rows:
        return None
    rows.sort(key=lambda row: row.method in STRONG)
    titles, every = _titles(comparison), [value for row in rows for value in row.validation]
    values = [
        {"method": titles[row.method], "round": number, "loss": value}
        for row in rows
        for number, value in enumerate(row.validation, start=1)
    ]
    log = min(every) > 0 and max(every) > 4 * min(every)
    upwards = {"type": "log" if log else "linear", "zero": False, "nice": not log}
    words = f"validation loss, {_STEPS[scenario.phase]}"
    return png(
        {
            "data": {"values": values},
            "width": 430 if wide else 250,
            "height": 230,
            "encoding": {
                "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0, "labelOverlap": True}},
                "y": {"field": "loss", "type": "quantitative", "title": words, "scale": upwards},
            },
            "layer": _lines([row.method for row in rows], [titles[row.method] for row in rows], wide),
        },
        _SCALE,
    )


def _lines(names: Sequence[str], titles: Sequence[str], wide: bool) -> Values:
    """The layers of the methods' lines and of their points."""
    colour, shape, dash, width = (styled(names, titles, part, wide) for part in range(4))
    line = {"color": colour, "strokeDash": dash | {"legend": None}, "strokeWidth": width | {"legend": None}}
    point = {"type": "point", "filled": True, "opacity": 1, "size": 60}
    return [{"mark": "line", "encoding": line}, {"mark": point, "encoding": {"color": colour, "shape": shape}}]


def _titles(comparison: Comparison) -> dict[str, str]:
    """The methods' titles by their names, no two alike."""
    return dict(
        zip(
            (method.name for method in comparison.methods),
            distinct(method.title for method in comparison.methods),
            strict=True,
        )
    )


def _wrapped(text: str, width: int = 16) -> str:
    return "\n".join(textwrap.wrap(text, width))
