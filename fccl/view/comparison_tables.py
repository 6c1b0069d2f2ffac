"""A comparison as tables, for the terminal, for Markdown and for the pages."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fccl.plain_text import one_line
from fccl.records.comparison import FEDAVG, Comparison, Outcome, ScenarioInfo
from fccl.records.evaluation import Estimate
from fccl.tables import Cell, Table
from fccl.view.markdown import markdown_table, quoted
from fccl.words import DASH

SHORT = {"no significant difference": "no difference"}  # verdicts that a column has no room for
TIMES = "×"
HUGE = 700.0  # exp of more is no float
SECONDS, VERDICT = "seconds", "seeds, verdict"
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


def scenario_tables(comparison: Comparison) -> list[Table]:
    """A table for each scenario."""
    return [scenario_table(comparison, scenario) for scenario in comparison.scenarios]


def scenario_table(comparison: Comparison, scenario: ScenarioInfo) -> Table:
    """One scenario, its methods in order."""
    titles = {method.name: method.title for method in comparison.methods}
    yardstick = comparison.row(scenario.name, FEDAVG)
    head = ("method", *_HEADS[scenario.phase])
    rows = tuple(
        (Cell(titles[row.method]), *_cells(row, yardstick, scenario))
        for row in comparison.rows
        if row.scenario == scenario.name
    )
    text, spare = (frozenset({head.index(name)}) for name in (VERDICT, SECONDS))
    return Table(heading(scenario, comparison.num_clients), head, rows, words=text, spare=spare)


def matrix(comparison: Comparison) -> Table:
    """All scenarios beside each other: the figure and the verdict."""
    rows = tuple(
        (
            Cell(method.title),
            *(_short(comparison.row(scenario.name, method.name), scenario) for scenario in comparison.scenarios),
        )
        for method in comparison.methods
    )
    head = ("method", *(scenario.title for scenario in comparison.scenarios))
    note = "Test perplexity (SFT) and DPO loss (preferences); ▲ better, ▼ worse, ≈ no difference to FedAvg."
    return Table("Every method in every scenario", head, rows, note, brief=True)


def heading(scenario: ScenarioInfo, num_clients: int) -> str:
    """A scenario's title, with how many are bad."""
    return (
        f"{scenario.title}, {scenario.bad_clients} of {num_clients} clients" if scenario.bad_clients else scenario.title
    )


def to_markdown(comparison: Comparison, command: str = "") -> str:
    """`table.md`. Every name in it is text."""
    parts = ["# Comparison", "", *map(quoted, lead(comparison)), ""]
    parts += ["```", one_line(command), "```", ""] if command else []
    for table in (matrix(comparison), *scenario_tables(comparison)):
        parts += [f"## {quoted(table.title)}", "", *([table.note, ""] if table.note else []), markdown_table(table), ""]
    trouble = [quoted(f"{row.scenario}, {row.method}: {said}") for row in comparison.rows for said in row.trouble]
    parts += ["## Trouble", "", *(f"- {line}" for line in trouble), ""] if trouble else []
    return "\n".join([*parts, "## How to read it", "", *(f"- {note}" for note in notes(comparison)), ""])


def lead(comparison: Comparison) -> list[str]:
    """The lines that say what was compared."""
    seeds = ", ".join(map(str, comparison.seeds))
    sizes = "; ".join(f"{name} {count:,}" for name, count in comparison.examples.items())
    return [
        f"{comparison.model}, {comparison.num_clients} clients, {comparison.rounds} rounds, "
        f"seed{'s' * (len(comparison.seeds) > 1)} {seeds}. "
        f"Examples (first seed): {sizes}."
    ]


def notes(comparison: Comparison) -> list[str]:
    """Notes on how to read the tables."""
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
        "Bad clients' weight: first and last round, mean over seeds. Seconds: training and weighing of all "
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


def _cells(row: Outcome, yardstick: Outcome | None, scenario: ScenarioInfo) -> Iterator[Cell]:
    yield Cell(figure(row, scenario.phase))
    yield _difference(row, scenario.phase)
    yield _verdict(row, yardstick)
    yield share(row.gap_closed, 0)
    yield Cell(f"{row.bad_weight[0]:.2f} → {row.bad_weight[-1]:.2f}" if row.bad_weight else DASH)
    yield Cell(f"{row.seconds:.0f}")
    if scenario.phase == "va":
        yield share(row.accuracy, 1)


def share(found: Estimate | None, digits: int) -> Cell:
    """A share of 1 with its interval."""
    if found is None:
        return Cell(DASH)
    return Cell(f"{found.value:.{digits}%}", f"{found.low:.{digits}%}, {found.high:.{digits}%}")


def _verdict(row: Outcome, yardstick: Outcome | None) -> Cell:
    """In how many seeds the loss is lower than FedAvg's, and what that comes to."""
    if not row.verdict:
        return Cell("(yardstick)" if row.method == FEDAVG else DASH)
    shown = SHORT.get(row.verdict, row.verdict)
    return Cell(_seeds_better(row, yardstick), verdict=shown, strong=row.verdict == "better")


def _seeds_better(row: Outcome, yardstick: Outcome | None) -> str:
    """In how many of the seeds the loss is lower than the yardstick's.

    A model that cannot be scored has none that is lower.
    """
    theirs = yardstick.by_seed if yardstick else ()
    lower = sum(
        mine is not None and (other is None or mine < other) for mine, other in zip(row.by_seed, theirs, strict=False)
    )
    return f"{lower}/{row.seeds}"


def _difference(row: Outcome, phase: str) -> Cell:
    found = row.difference
    if found is None:
        return Cell(DASH)
    if phase == "va":
        return Cell(f"{found.value:+.4f}", f"{found.low:+.4f}, {found.high:+.4f}")
    value, low, high = (_ratio(math.exp(min(each, HUGE))) for each in (found.value, found.low, found.high))
    return Cell(value, f"{low}, {high}")


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.3g}"


def _short(row: Outcome | None, scenario: ScenarioInfo) -> Cell:
    if row is None:
        return Cell(DASH)
    verdict = SHORT.get(row.verdict or "", row.verdict or "")
    return Cell(figure(row, scenario.phase), verdict=verdict, strong=row.verdict == "better")
