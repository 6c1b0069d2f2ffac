"""The pictures of a comparison as PNG: the whole as a heat map, the gaps that are closed, and for each scenario weights
and losses by round.

matplotlib is imported inside the functions that need it; no window, no global state. `wide` is for a page or a screen,
else for a phone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fccl.compare.methods import METHODS, way_of
from fccl.records.comparison import FEDAVG, ORACLE, Comparison, Outcome, ScenarioInfo
from fccl.records.evaluation import Estimate
from fccl.view.comparison_tables import figure as main_figure
from fccl.view.comparison_tables import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 120
BAD, GOOD = "#d55e00", "#0072b2"  # apart for colour-blind readers; bad clients are hatched too
INK, QUIET = "#222222", "#8a8a8a"
GAP_LOW, GAP_HIGH = -1.0, 2.2  # shares of the gap that fit into the picture
FULL = 0.4  # a loss so much above or below FedAvg's, as a logarithm, has the full colour
_SIGNS = {"better": "▲", "worse": "▼", "no significant difference": "≈"}
_STEPS = {"sft": "nats per response token", "va": "DPO loss, nats per pair"}
# Those that the claim is about stand out; the others differ by colour, marker and dash.
_STYLES = {FEDAVG: (INK, "o", "-", 2.2), "verified": (GOOD, "D", "-", 2.4), ORACLE: ("#009e73", "s", "--", 2.0)}
_OTHERS = ("#cc79a7", "#e69f00", "#56b4e9", "#d55e00", "#7f6fb0", "#999933", "#aa4466")
_MARKERS = "^vPpXhd*8"  # an arrow to the side means something else


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
    methods, scenarios = comparison.methods, comparison.scenarios
    width = 3.4 + (1.25 if wide else 0.8) * len(scenarios)
    figure = _figure(width, 1.5 + 0.36 * len(methods))
    axes = figure.subplots()
    cells = [[comparison.row(scenario.name, method.name) for scenario in scenarios] for method in methods]
    bases = [comparison.row(scenario.name, FEDAVG) for scenario in scenarios]
    shades = [[shade(row, base) for row, base in zip(line, bases, strict=True)] for line in cells]
    axes.imshow(shades, cmap=_blue_orange(), vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    for y, line in enumerate(cells):
        for x, (row, scenario) in enumerate(zip(line, scenarios, strict=True)):
            if row is not None:
                text = f"{main_figure(row, scenario.phase)} {_SIGNS.get(row.verdict or '', '')}".strip()
                strong = row.method in _STYLES
                axes.text(
                    x,
                    y,
                    text,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=INK,
                    fontweight="bold" if strong else "normal",
                )
    axes.set_yticks(range(len(methods)), [method.title for method in methods], fontsize=9)
    axes.set_xticks(
        range(len(scenarios)),
        [_wrapped(heading(scenario, comparison.num_clients)) for scenario in scenarios],
        fontsize=8,
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) > 1)}"
    words = (
        f"Test perplexity (preferences: DPO loss), mean of {seeds}. ▲ better, ▼ worse, ≈ no significant "
        "difference to FedAvg "
        "(paired bootstrap, 95 %). Blue: below FedAvg's loss, orange: above it."
    )
    figure.supxlabel(_wrapped(words, int(13 * width)), fontsize=8, color=INK)
    return _png(figure)


def shade(row: Outcome | None, base: Outcome | None) -> float:
    """-1 … 1: below 0 better than FedAvg. 0 where nothing can be said."""
    if row is None or base is None or base.loss is None:
        return 0.0
    if row.loss is None:
        return 1.0
    return max(-1.0, min(1.0, math.log(max(row.loss.value, 1e-9) / max(base.loss.value, 1e-9)) / FULL))


def gaps(comparison: Comparison, wide: bool = True) -> bytes | None:
    """How much of the gap from FedAvg to the oracle each method closes, with intervals, in the scenarios that have one.
    None when none has.
    """
    scenarios = [one for one in comparison.scenarios if any(_closes(row, one) for row in comparison.rows)]
    if not scenarios:
        return None
    shown = {row.method for row in comparison.rows for one in scenarios if _closes(row, one)}
    names = [method.name for method in comparison.methods if method.name in shown]
    titles = {method.name: method.title for method in comparison.methods}
    step = 0.8 / len(names)
    figure = _figure(
        8.4 if wide else 4.4, 1.3 + len(scenarios) * max(0.5, 0.11 * len(names)) + (0.0 if wide else 0.16 * len(names))
    )
    axes = figure.subplots()
    for place, name in enumerate(names):
        colour, marker, _, _ = style(name)
        for at, scenario in enumerate(scenarios):
            row = comparison.row(scenario.name, name)
            if row is not None and row.gap_closed is not None:
                _dot(axes, row.gap_closed, at - 0.4 + step * (place + 0.5), colour, marker, strong=name in _STYLES)
        axes.plot([], [], color=colour, marker=marker, linestyle="", label=titles[name])
    axes.axvline(0, color=INK, linewidth=1.2)
    axes.axvline(1, color=_STYLES[ORACLE][0], linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(scenarios)), [_wrapped(one.title, 22) for one in scenarios], fontsize=9)
    axes.set(ylim=(len(scenarios) - 0.5, -0.5), xlim=(GAP_LOW - 0.05, GAP_HIGH + 0.05))
    axes.set_xticks([-1, 0, 1, 2], ["-100 %", "0 %\nFedAvg", "100 %\noracle", "200 %"], fontsize=8)
    for border in range(1, len(scenarios)):
        axes.axhline(border - 0.5, color=QUIET, linewidth=0.4)
    words = "share of the gap in test loss that is closed, 95 % intervals; arrows: beyond the picture"
    axes.set_xlabel(_wrapped(words, 120 if wide else 50), fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes, wide)
    return _png(figure)


def _closes(row: Outcome, scenario: ScenarioInfo) -> bool:
    """Whether the row has a share of a gap that is worth a point: the oracle's own is none."""
    return row.scenario == scenario.name and row.gap_closed is not None and row.method != ORACLE


def _dot(axes: Axes, found: Estimate, y: float, colour: str, marker: str, strong: bool) -> None:
    """A share with its interval; one beyond the picture is an arrow at its edge."""
    low, high = max(found.low, GAP_LOW), min(found.high, GAP_HIGH)
    if low < high:
        axes.plot([low, high], [y, y], color=colour, linewidth=2.2 if strong else 1.2, solid_capstyle="round")
    at = min(max(found.value, GAP_LOW), GAP_HIGH)
    shown = marker if at == found.value else "<" if found.value < at else ">"
    axes.plot(
        at, y, color=colour, marker=shown, markersize=7 if strong else 5, markeredgecolor="white", markeredgewidth=0.5
    )


def _legend(figure: Figure, axes: Axes, wide: bool) -> None:
    """Beside the picture, on a phone below it."""
    if wide:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        figure.legend(frameon=False, fontsize=7, loc="outside lower center", ncols=2)


def weights(comparison: Comparison, scenario: ScenarioInfo, wide: bool = True) -> bytes | None:
    """By round, how much each client counts under each method, in the first seed. None when no method has weights."""
    rows = [
        row
        for row in comparison.rows
        if row.scenario == scenario.name and row.weights and way_of(row.method) == "federated"
    ]
    if not rows:
        return None
    columns = min(len(rows), 4 if wide else 2)
    lines = math.ceil(len(rows) / columns)
    figure = _figure((10.0 if wide else 4.2) * max(columns, 2) / (4 if wide else 2), 0.9 + 1.75 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    titles = {method.name: method.title for method in comparison.methods}
    for axes, row in zip(grid.flat, rows, strict=False):
        _stack(axes, row)
        axes.set_title(_wrapped(titles[row.method], 30), fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("weight", fontsize=8)
    bad = rows[0].bad_clients
    who = f"hatched: the bad clients {', '.join(map(str, bad))}" if bad else "nobody is bad"
    figure.supxlabel(f"round (seed {comparison.seeds[0]}; numbers are clients, {who})", fontsize=8)
    return _png(figure)


def _stack(axes: Axes, row: Outcome) -> None:
    """Honest clients from below, bad ones from above, so that their border is what one sees."""
    table = row.weights or ()
    honest = [client for client in range(len(table[0])) if client not in row.bad_clients]
    for number, shares in enumerate(table, start=1):
        bottom, top = 0.0, sum(shares)
        for place, client in enumerate(honest):
            axes.bar(
                number,
                shares[client],
                0.8,
                bottom=bottom,
                color=GOOD,
                alpha=0.35 + 0.3 * (place % 2),
                edgecolor="white",
                linewidth=0.5,
            )
            _name(axes, number, bottom, shares[client], client)
            bottom += shares[client]
        for client in (client for client in reversed(row.bad_clients) if shares[client] > 0):
            top -= shares[client]
            axes.bar(
                number, shares[client], 0.8, bottom=top, color="#f6c9a8", hatch="////", edgecolor=BAD, linewidth=0.5
            )
            _name(axes, number, top, shares[client], client)
    axes.set(xticks=range(1, len(table) + 1), ylim=(0, 1))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _name(axes: Axes, x: float, bottom: float, height: float, client: int) -> None:
    if height >= 0.09:
        axes.text(x, bottom + height / 2, str(client), ha="center", va="center", fontsize=6, color=INK)


def losses(comparison: Comparison, scenario: ScenarioInfo, wide: bool = True) -> bytes | None:
    """By round, the loss on the server's validation split, mean over seeds. None when there is none."""
    rows = [row for row in comparison.rows if row.scenario == scenario.name and row.validation]
    if not rows:
        return None
    figure = _figure(8.4, 3.8) if wide else _figure(4.4, 5.2)
    axes = figure.subplots()
    titles = {method.name: method.title for method in comparison.methods}
    for row in sorted(rows, key=lambda row: row.method in _STYLES):
        colour, marker, dash, width = style(row.method)
        at = range(1, len(row.validation) + 1)
        axes.plot(
            at,
            row.validation,
            color=colour,
            marker=marker,
            linestyle=dash,
            linewidth=width,
            markersize=5,
            label=titles[row.method],
        )
    values = [value for row in rows for value in row.validation]
    if min(values) > 0 and max(values) > 4 * min(values):
        axes.set_yscale("log")
    axes.set(xticks=range(1, max(len(row.validation) for row in rows) + 1), xlabel="round")
    axes.set_ylabel(f"test loss, {_STEPS[scenario.phase]}", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes, wide)
    return _png(figure)


def style(method: str) -> tuple[str, str, str, float]:
    """Colour, marker, dash and width of a method's line: the same in every picture."""
    if method in _STYLES:
        return _STYLES[method]
    others = [name for name in METHODS if name not in _STYLES]
    place = others.index(method) if method in others else len(others) + sum(method.encode())
    return _OTHERS[place % len(_OTHERS)], _MARKERS[place % len(_MARKERS)], ("-", ":")[place // len(_OTHERS) % 2], 1.2


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _blue_orange() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blue-orange", ["#6fb1de", "#ffffff", "#f2a66b"])


def _png(figure: Figure) -> bytes:
    """The figure in at most 128 colours, which makes a third of its size and looks the same."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def _wrapped(text: str, width: int = 16) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
