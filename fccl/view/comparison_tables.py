"""A comparison as rows of text, for the terminal, for Markdown and for the page.

A verdict is a word, with a sign, never a colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fccl.records.comparison import FEDAVG, Comparison, Outcome, ScenarioInfo
from fccl.records.evaluation import Estimate
from fccl.tables import ScenarioTable
from fccl.words import DASH

BETTER = "▲"
SIGNS = {
    "better": f"{BETTER} better",
    "worse": "▼ worse",
    "no significant difference": "≈ no difference",
    "too few examples": "too few examples",
}
TIMES = "×"
HUGE = 700.0  # exp of more is no float
SECONDS, VERDICT = "s", "seeds, verdict"
ENOUGH_SEEDS = 5  # fewer say little of others
_HEADS = {
    "sft": ("perplexity", f"{TIMES} FedAvg's [95 %]", VERDICT, "gap closed [95 %]", "bad clients' weight", SECONDS),
    "va": (
        "DPO loss",
        "minus FedAvg's [95 %]",
        VERDICT,
        "gap closed [95 %]",
        "bad clients' weight",
        SECONDS,
        "accuracy",
    ),
}


def scenario_tables(comparison: Comparison) -> list[ScenarioTable]:
    """A table for each scenario."""
    return [scenario_table(comparison, scenario) for scenario in comparison.scenarios]


def scenario_table(comparison: Comparison, scenario: ScenarioInfo) -> ScenarioTable:
    """One scenario, its methods in order."""
    titles = {method.name: method.title for method in comparison.methods}
    yardstick = comparison.row(scenario.name, FEDAVG)
    lines = tuple(
        (titles[row.method], *_cells(row, yardstick, scenario))
        for row in comparison.rows
        if row.scenario == scenario.name
    )
    return ScenarioTable(heading(scenario, comparison.num_clients), ("method", *_HEADS[scenario.phase]), lines)


def without_empty_columns(table: ScenarioTable) -> ScenarioTable:
    """The table without the columns in which every row has a dash."""
    kept = [index for index in range(len(table.head)) if any(line[index] != DASH for line in table.rows)]
    head, *rows = (tuple(line[index] for index in kept) for line in (table.head, *table.rows))
    return ScenarioTable(table.title, head, tuple(rows))


def matrix(comparison: Comparison) -> ScenarioTable:
    """All scenarios beside each other: the figure and the verdict."""
    lines = []
    for method in comparison.methods:
        found = [comparison.row(scenario.name, method.name) for scenario in comparison.scenarios]
        lines.append(
            (method.title, *(_short(row, scenario) for row, scenario in zip(found, comparison.scenarios, strict=True)))
        )
    head = ("method", *(scenario.title for scenario in comparison.scenarios))
    return ScenarioTable(
        "Test perplexity (SFT) and DPO loss (preferences); ▲ better, ▼ worse, ≈ no difference to FedAvg",
        head,
        tuple(lines),
    )


def heading(scenario: ScenarioInfo, num_clients: int) -> str:
    """A scenario's title, with how many are bad."""
    return (
        f"{scenario.title}, {scenario.bad_clients} of {num_clients} clients" if scenario.bad_clients else scenario.title
    )


def to_markdown(comparison: Comparison, command: str = "") -> str:
    """`table.md`."""
    whole = matrix(comparison)
    parts = ["# Comparison", "", *lead(comparison), ""]
    if command:
        parts += ["```", command, "```", ""]
    parts += [f"## {whole.title}", "", *_markdown(whole), ""]
    for table in scenario_tables(comparison):
        parts += [f"## {table.title}", "", *_markdown(table), ""]
    trouble = [f"- {row.scenario}, {row.method}: {what}" for row in comparison.rows for what in row.trouble]
    parts += ["## What went wrong", "", *trouble, ""] if trouble else []
    return "\n".join([*parts, "## How to read it", "", *(f"- {note}" for note in notes(comparison)), ""])


def lead(comparison: Comparison) -> list[str]:
    """What was compared."""
    seeds = ", ".join(map(str, comparison.seeds))
    sizes = "; ".join(f"{name} {count:,}" for name, count in comparison.examples.items())
    return [
        f"{comparison.model}, {comparison.num_clients} clients, {comparison.rounds} rounds, "
        f"seed{'s' * (len(comparison.seeds) > 1)} {seeds}. "
        f"Examples (first seed): {sizes}."
    ]


def notes(comparison: Comparison) -> list[str]:
    """How to read it."""
    seeds = len(comparison.seeds)
    scope = "test examples alone, since there is one seed" if seeds == 1 else "seeds, and test examples within seeds"
    width = " They are too wide where seeds agree and too narrow where seeds differ." if seeds > 1 else ""
    few = (
        f" With fewer than {ENOUGH_SEEDS} seeds a verdict holds for these seeds; unlike ones may turn it."
        if seeds < ENOUGH_SEEDS
        else ""
    )
    return [
        f"Intervals: 95 %, paired bootstrap over {scope} ({comparison.bootstrap_samples:,} resamples); not corrected "
        "for the number of comparisons."
        f"{width}{few} Before the verdict: in how many seeds the loss is lower than FedAvg's.",
        f"Perplexity is exp of the mean test loss over seeds; {TIMES} FedAvg's: below 1 is better.",
        "Gap closed: (FedAvg - method) / (FedAvg - oracle) in test loss; 100 % is as good as FedAvg without the "
        "bad clients. "
        f"{DASH}: FedAvg itself or no federation (base, alone, centralised); no oracle, or one that is not "
        "significantly better than FedAvg, "
        "so that there is no gap; or a model that cannot be scored.",
        "Bad clients' weight: first and last round, mean over seeds. s: seconds of training and weighing, all "
        "clients one after the other.",
    ]


def figure(row: Outcome, phase: str) -> str:
    """The main figure: perplexity in SFT, DPO loss in VA."""
    if row.loss is None:
        return "not finite"
    return perplexity(row.loss.value) if phase == "sft" else f"{row.loss.value:.4f}"


def perplexity(loss: float) -> str:
    """exp of a loss, with three or four digits that say something."""
    value = math.exp(min(loss, HUGE))
    if value < 1000:
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"


def percent(found: Estimate | None) -> str:
    """A share with its interval."""
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]" if found else DASH


def _cells(row: Outcome, yardstick: Outcome | None, scenario: ScenarioInfo) -> tuple[str, ...]:
    verdict = (
        f"{_seeds_better(row, yardstick)} {SIGNS[row.verdict]}"
        if row.verdict
        else "(yardstick)"
        if row.method == FEDAVG
        else DASH
    )
    weight = f"{row.bad_weight[0]:.2f} → {row.bad_weight[-1]:.2f}" if row.bad_weight else DASH
    cells = (
        figure(row, scenario.phase),
        _difference(row, scenario.phase),
        verdict,
        percent(row.gap_closed),
        weight,
        f"{row.seconds:.0f}",
    )
    accuracy = f"{row.accuracy.value:.1%} [{row.accuracy.low:.1%}, {row.accuracy.high:.1%}]" if row.accuracy else DASH
    return (*cells, accuracy) if scenario.phase == "va" else cells


def _seeds_better(row: Outcome, yardstick: Outcome | None) -> str:
    """In how many of the seeds the loss is lower than the yardstick's.

    A model that cannot be scored has none that is lower.
    """
    theirs = yardstick.by_seed if yardstick else ()
    lower = sum(
        mine is not None and (other is None or mine < other) for mine, other in zip(row.by_seed, theirs, strict=False)
    )
    return f"{lower}/{row.seeds}"


def _difference(row: Outcome, phase: str) -> str:
    found = row.difference
    if found is None:
        return DASH
    if phase == "va":
        return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    value, low, high = (math.exp(min(each, HUGE)) for each in (found.value, found.low, found.high))
    return f"{_ratio(value)} [{_ratio(low)}, {_ratio(high)}]"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.3g}"


def _short(row: Outcome | None, scenario: ScenarioInfo) -> str:
    if row is None:
        return DASH
    sign = {"better": f" {BETTER}", "worse": " ▼", "no significant difference": " ≈"}.get(row.verdict or "", "")
    return f"{figure(row, scenario.phase)}{sign}"


def _markdown(table: ScenarioTable) -> Sequence[str]:
    lines = [table.head, ("---", *["---:"] * (len(table.head) - 1)), *table.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
