"""A comparison as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from fccl import __version__
from fccl.compare.pictures import Drawn
from fccl.display.plain_text import one_line
from fccl.display.tables import Table
from fccl.display.words import DASH
from fccl.pages.report.figures import CEILING_WORDS, Figures, gaps
from fccl.pages.report.parts import Figure, Report, Section, Tile
from fccl.pages.report.render import render
from fccl.records.comparison import CEILINGS, ORACLE, Comparison, Outcome, ScenarioInfo
from fccl.view import comparison_tables as tables
from fccl.view.agreement import effective_tables

ENOUGH = 0.95  # of the gap from FedAvg to the oracle
MINE = ("verified", "tempered")  # the default rule, and the newer one


def page(comparison: Comparison, wide: Drawn, narrow: Drawn, command: str = "") -> str:
    """The file: the matrix and its picture first, then every scenario with its table and pictures.

    `narrow` are the pictures for phones.
    """
    return render(
        Report(
            title="Comparison of methods",
            standing="● finished",
            tone="good",
            sentence=one_line(" ".join(tables.lead(comparison))),
            facts=tuple((name, one_line(text)) for name, text in _facts(comparison, command)),
            notices=(
                *(one_line(f"{row.scenario}, {row.method}: {what}") for row in comparison.rows for what in row.trouble),
                *(one_line(f"not run: {line}") for line in comparison.not_run),
            ),
            tiles=_tiles(comparison),
            sections=(
                _whole(comparison, wide, narrow),
                *(_scenario(comparison, scenario, wide, narrow) for scenario in comparison.scenarios),
                _methods(comparison),
            ),
            made=f"Made by fccl {__version__} on {time.strftime('%Y-%m-%d %H:%M')}.",
        )
    )


def _facts(comparison: Comparison, command: str) -> list[tuple[str, str]]:
    return [
        ("Model", comparison.model),
        ("Clients", str(comparison.num_clients)),
        ("Rounds", str(comparison.rounds)),
        ("Seeds", ", ".join(map(str, comparison.seeds))),
        ("Command", command or DASH),
    ]


def _tiles(comparison: Comparison) -> tuple[Tile, ...]:
    """FCCL in three figures, by the method of the claim, else by the first of `MINE` that was compared; nothing where
    none was.
    """
    compared, claimed = {row.method for row in comparison.rows}, [pair.method for pair in comparison.pairs]
    method = next((name for name in (*claimed, *MINE) if name in compared), "")
    mine = [row for row in comparison.rows if row.method == method]
    with_bad = {scenario.name for scenario in comparison.scenarios if scenario.bad_clients}
    bad, clean = (
        [row for row in mine if row.scenario in with_bad],
        [row for row in mine if row.scenario not in with_bad],
    )
    gaps = [row.gap_closed.value for row in bad if row.gap_closed is not None]
    weight = [row.bad_weight[-1] for row in bad if row.bad_weight]
    found = _pooled_tiles(bad + clean, method)
    if gaps:
        closed = sum(gap >= ENOUGH for gap in gaps)
        found.append(
            Tile(
                f"{method} closes at least 95 % of the gap to the oracle",
                f"{closed} of {len(gaps)}",
                "scenarios with such a gap",
            )
        )
    if clean:
        worse = sum(row.verdict == "worse" for row in clean)
        found.append(
            Tile(f"{method} is worse than FedAvg", f"{worse} of {len(clean)}", "scenarios without bad clients")
        )
    if weight:
        found.append(
            Tile(
                "weight of the bad clients in the last round",
                f"{sum(weight) / len(weight):.3f}",
                f"{method}, mean over scenarios",
            )
        )
    return tuple(found)


def _pooled_tiles(mine: Sequence[Outcome], method: str) -> list[Tile]:
    """The share of the gap to the pooled data, and what a trigger does: what a sceptic asks for first."""
    shares = [row.gap_pooled.value for row in mine if row.gap_pooled is not None]
    hits = [row.aside.value for row in mine if row.aside is not None and row.scenario.startswith("backdoor")]
    found = []
    if shares:
        says = f"mean of {len(shares)} scenarios"
        found.append(
            Tile(f"of the gap to the pooled clean data {method} closes", f"{sum(shares) / len(shares):.0%}", says)
        )
    if hits:
        found.append(
            Tile(f"the backdoor's trigger succeeds under {method}", f"{max(hits):.0%}", "of test instructions")
        )
    return found


def _whole(comparison: Comparison, wide: Drawn, narrow: Drawn) -> Section:
    words = CEILING_WORDS[comparison.ceiling]
    says = f"0 % is FedAvg, 100 % is {words}; beyond it a method is better than that."
    figures = _figures(f"The gap to the {CEILINGS[comparison.ceiling]}", says, wide.gaps, narrow.gaps)
    return Section(
        "all",
        "All scenarios",
        " ".join(tables.notes(comparison)),
        figures,
        (*tables.pair_tables(comparison), tables.matrix(comparison), *effective_tables(comparison)),
    )


def _figures(title: str, says: str, wide: bytes | None, narrow: bytes | None) -> tuple[Figure, ...]:
    """The figure, or none when there is nothing to draw."""
    if wide is None or narrow is None:
        return ()
    return (Figure(title, says, _image(wide, f"{title}. {says}"), _image(narrow, f"{title}. {says}")),)


def _scenario(comparison: Comparison, scenario: ScenarioInfo, wide: Drawn, narrow: Drawn) -> Section:
    table, name = tables.scenario_table(comparison, scenario), scenario.name
    losses = "On the server's validation split, mean over seeds. Lower is better."
    found = (
        *_figures("Weights by round", _weight_words(comparison, scenario), wide.weights[name], narrow.weights[name]),
        *_figures("Validation loss by round", losses, wide.losses[name], narrow.losses[name]),
    )
    beside = tables.speed_table(comparison, scenario)
    every = (table.without_empty_columns(), *([beside] if beside.rows else []))
    return Section(name, table.title, figures=found, tables=every)


def _weight_words(comparison: Comparison, scenario: ScenarioInfo) -> str:
    found: list[tuple[str, Outcome | None]] = [
        (method.title, comparison.row(scenario.name, method.name)) for method in comparison.methods
    ]
    parts = [
        f"{title} {row.bad_weight[-1]:.2f}"
        for title, row in found
        if row is not None and row.bad_weight and row.method != ORACLE
    ]
    return (
        f"Weight of the bad clients in the last round: {', '.join(parts)}."
        if parts
        else "Each client's weight, in the first seed."
    )


def _methods(comparison: Comparison) -> Section:
    lines = tuple(
        (method.title, " ".join(f"{name.upper()}={value}" for name, value in method.settings.items()) or DASH)
        for method in comparison.methods
    )
    return Section(
        "methods",
        "Methods",
        "What to set to run each of them.",
        tables=(Table("Settings", ("method", "settings"), lines, words=frozenset({1})),),
    )


def _image(png: bytes, says: str) -> Markup:
    source = base64.b64encode(png).decode("ascii")
    return Markup(
        '<img style="display:block;width:100%;height:auto;border-radius:6px" alt="{}" src="data:image/png;base64,{}">'
    ).format(says, source)


def section(comparison: Comparison, draw: Figures) -> Section:
    """All scenarios beside each other, the gaps that are closed, and a table for every scenario."""
    lead = f"Made by “fccl compare”, apart from this run. {' '.join(tables.lead(comparison))}"
    whole = tables.matrix(comparison)
    matrix = replace(whole, note=" ".join((whole.note, *tables.notes(comparison))))
    scenarios = (table.without_empty_columns() for table in tables.scenario_tables(comparison))
    return Section("methods", "Comparison of methods", one_line(lead), gaps(draw, comparison), (matrix, *scenarios))
