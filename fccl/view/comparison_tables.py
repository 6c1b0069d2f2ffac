"""A comparison as tables, for the terminal, for Markdown and for the pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from fccl.display.plain_text import one_line
from fccl.display.tables import Cell, Table
from fccl.display.words import DASH, plural
from fccl.records.comparison import FEDAVG, Comparison, Outcome, RivalPair, ScenarioInfo
from fccl.records.evaluation import Estimate
from fccl.view.agreement import agreement_tables, effective_tables
from fccl.view.claims import claim_lines
from fccl.view.markdown import markdown_table, quoted

# Verdicts that a column has no room for.
SHORT = {"no significant difference": "no difference", "cannot be told apart": "not told apart"}
TIMES = "×"
HUGE = 700.0  # exp of more is no float
SECONDS, VERDICT = "seconds", "seeds, verdict"
ENOUGH_SEEDS = 3  # from so many on intervals are Student's t
POOLED_GAP, GAP = "gap to pooled data [95 %]", "gap to the oracle [95 %]"
ASIDES = {"trigger": "trigger's success", "harmless": "harmless preferred", "topic": "the one topic's perplexity"}
_HEADS = {
    "sft": ("perplexity", f"{TIMES} FedAvg's [95 %]", VERDICT, POOLED_GAP, GAP, "bad clients' weight", SECONDS),
    "va": ("DPO loss", "minus FedAvg's [95 %]", VERDICT, POOLED_GAP, GAP, "bad clients' weight", SECONDS, "accuracy"),
}


def scenario_tables(comparison: Comparison) -> list[Table]:
    """A table for each scenario."""
    return [scenario_table(comparison, scenario) for scenario in comparison.scenarios]


def scenario_table(comparison: Comparison, scenario: ScenarioInfo) -> Table:
    """One scenario, its methods in order."""
    titles = {method.name: method.title for method in comparison.methods}
    yardstick = comparison.row(scenario.name, FEDAVG)
    head = ("method", *_HEADS[scenario.phase], *([ASIDES[scenario.aside]] if scenario.aside else []))
    rows = tuple(
        (Cell(titles[row.method]), *_cells(row, yardstick, scenario))
        for row in comparison.rows
        if row.scenario == scenario.name
    )
    text, spare = (frozenset({head.index(name)}) for name in (VERDICT, SECONDS))
    return Table(heading(scenario, comparison.num_clients), head, rows, _rounds(scenario), words=text, spare=spare)


def _rounds(scenario: ScenarioInfo) -> str:
    """The rounds of a scenario that goes on until FedAvg is flat."""
    if not scenario.rounds:
        return ""
    return f"Rounds until FedAvg of the honest clients is flat, by seed: {', '.join(map(str, scenario.rounds))}."


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
    note = (
        "Test perplexity (SFT) and DPO loss (preferences), against FedAvg: ▲ better, ▼ worse, ≈ not worse, "
        "? cannot be told apart."
    )
    return Table("Every method in every scenario", head, rows, note, brief=True)


def pair_tables(comparison: Comparison) -> list[Table]:
    """The primary set: our method against each rival in each scenario. None where it was not compared."""
    if not comparison.pairs:
        return []
    titles = {method.name: method.title for method in comparison.methods}
    rivals = tuple(dict.fromkeys(pair.rival for pair in comparison.pairs))
    found = {(pair.scenario, pair.rival): pair for pair in comparison.pairs}
    rows = tuple(
        (
            Cell(heading(scenario, comparison.num_clients)),
            *(_pair(found.get((scenario.name, rival)), scenario) for rival in rivals),
        )
        for scenario in comparison.scenarios
    )
    note = (
        f"{titles[comparison.pairs[0].method]} against each rival in test loss, Student's t over seeds: perplexity as "
        "a multiple of the rival's, for preferences the DPO loss minus the rival's. Better and worse after Holm's "
        f"correction over all {len(comparison.pairs)} pairs; ≈ not worse by what counts, ? cannot be told apart."
    )
    return [Table("The primary set", ("scenario", *(titles[rival] for rival in rivals)), rows, note)]


def _pair(pair: RivalPair | None, scenario: ScenarioInfo) -> Cell:
    if pair is None:
        return Cell(DASH)
    verdict = SHORT.get(pair.verdict, pair.verdict)
    if pair.difference is None:
        return Cell("not finite", verdict=verdict, strong=pair.verdict == "better")
    return replace(_difference(pair.difference, scenario.phase), verdict=verdict, strong=pair.verdict == "better")


def speed_tables(comparison: Comparison) -> list[Table]:
    """The speed of each method, apart from where it ends: a table for each scenario that has such figures."""
    found = (speed_table(comparison, scenario) for scenario in comparison.scenarios)
    return [table for table in found if table.rows]


def speed_table(comparison: Comparison, scenario: ScenarioInfo) -> Table:
    """One scenario: the bootstrap's interval, the mean loss on the way, and what it costs to be where FedAvg ends."""
    titles = {method.name: method.title for method in comparison.methods}
    rows = tuple(
        (
            Cell(titles[row.method]),
            _difference(row.bootstrap, scenario.phase),
            Cell(DASH if row.area is None else _loss(row.area, scenario.phase)),
            Cell(DASH if row.tokens_until is None else f"{row.tokens_until:,.0f}"),
            Cell(DASH if row.bytes_until is None else f"{row.bytes_until / 1e6:.1f}"),
        )
        for row in comparison.rows
        if row.scenario == scenario.name and row.area is not None
    )
    first = _HEADS[scenario.phase][1]
    head = ("method", f"{first}, bootstrap", "mean on the way", "tokens until FedAvg's end", "MB until FedAvg's end")
    note = (
        "Mean on the way: of the validation loss over the tokens trained from the first round's end on (area under the "
        f"curve), as the figure above. Until FedAvg's end: until its last validation loss is reached; {DASH}: never."
    )
    return Table(f"How fast: {heading(scenario, comparison.num_clients)}", head, rows, note, aside=True)


def heading(scenario: ScenarioInfo, num_clients: int) -> str:
    """A scenario's title, with how many are bad."""
    return (
        f"{scenario.title}, {scenario.bad_clients} of {num_clients} clients" if scenario.bad_clients else scenario.title
    )


def to_markdown(comparison: Comparison, command: str = "") -> str:
    """`table.md`. Every name in it is text."""
    parts = ["# Comparison", "", *map(quoted, lead(comparison)), ""]
    parts += ["```", one_line(command), "```", ""] if command else []
    parts += [f"- {quoted(line)}" for line in claim_lines(comparison)] + [""] * bool(comparison.pairs)
    found = (matrix(comparison), *pair_tables(comparison), *scenario_tables(comparison), *speed_tables(comparison))
    for table in (*found, *effective_tables(comparison), *agreement_tables(comparison)):
        parts += [f"## {quoted(table.title)}", "", *([table.note, ""] if table.note else []), markdown_table(table), ""]
    trouble = [quoted(f"{row.scenario}, {row.method}: {said}") for row in comparison.rows for said in row.trouble]
    trouble += [quoted(f"not run: {line}") for line in comparison.not_run]
    parts += ["## Trouble", "", *(f"- {line}" for line in trouble), ""] if trouble else []
    return "\n".join([*parts, "## How to read it", "", *(f"- {note}" for note in notes(comparison)), ""])


def lead(comparison: Comparison) -> list[str]:
    """The lines that say what was compared."""
    seeds = ", ".join(map(str, comparison.seeds))
    return [
        f"{comparison.model}, {plural(comparison.num_clients, 'client')}, {plural(comparison.rounds, 'round')}, "
        f"seed{'s' * (len(comparison.seeds) > 1)} {seeds}. "
        f"Examples (first seed): {_sizes(comparison.examples)}."
    ]


def _sizes(examples: Mapping[str, int]) -> str:
    """The number of examples by kind and split: `instructions: train 80, test 10; ...`."""
    counts: dict[str, list[str]] = {}
    for name, count in examples.items():
        kind, _, split = name.rpartition(", ")
        counts.setdefault(kind, []).append(f"{split} {count:,}")
    return "; ".join(f"{kind}: {', '.join(found)}" if kind else ", ".join(found) for kind, found in counts.items())


def notes(comparison: Comparison) -> list[str]:
    """Notes on how to read the tables."""
    return [
        _interval_note(comparison),
        "Better or worse: the interval leaves out 0 and the mean differs by what counts, 1 % of the perplexity (for "
        "preferences of exp of the DPO loss). Not worse: the whole interval lies below what counts. Otherwise the two "
        "cannot be told apart. Before the verdict: in how many seeds the loss is lower than FedAvg's.",
        f"Perplexity is exp of the mean test loss over seeds; {TIMES} FedAvg's: below 1 is better.",
        "Gap: (FedAvg - method) / (FedAvg - ceiling) in test loss, with the bootstrap's interval. Ceilings: the data "
        "of all clients in one place, before anybody spoilt it; and the oracle, FedAvg without the bad clients. "
        f"{DASH}: FedAvg itself or no federation (base, alone, centralised); no ceiling, or one that is not "
        "significantly better than FedAvg, so that there is no gap; or a model that cannot be scored.",
        "Bad clients' weight: first and last round, mean over seeds. Seconds: training and weighing of all "
        "clients one after the other.",
    ]


def _interval_note(comparison: Comparison) -> str:
    """The kind of the intervals, which the number of seeds decides, and what they hold."""
    seeds = len(comparison.seeds)
    if seeds >= ENOUGH_SEEDS:
        fewer = any(row.seeds < ENOUGH_SEEDS for row in comparison.rows)
        beside = (
            " Rows of one seed or two have the paired bootstrap's, and so has a gap to such a row." if fewer else ""
        )
        return (
            f"Intervals: 95 %, Student's t over the differences of {seeds} seeds.{beside} Corrected for the number of "
            "comparisons in the primary set alone."
        )
    scope = "test examples alone, since there is one seed" if seeds == 1 else "seeds, and test examples within seeds"
    width = " They are too wide where seeds agree and too narrow where seeds differ." if seeds > 1 else ""
    return (
        f"Intervals: 95 %, paired bootstrap over {scope} ({comparison.bootstrap_samples:,} resamples); not corrected "
        f"for the number of comparisons.{width} With fewer than {ENOUGH_SEEDS} seeds a verdict holds for these seeds; "
        "unlike ones may turn it."
    )


def figure(row: Outcome, phase: str) -> str:
    """The main figure: perplexity in SFT, DPO loss in VA."""
    return "not finite" if row.loss is None else _loss(row.loss.value, phase)


def _loss(loss: float, phase: str) -> str:
    return perplexity(loss) if phase == "sft" else f"{loss:.4f}"


def perplexity(loss: float) -> str:
    """exp of a loss, with three or four digits that say something."""
    value = math.exp(min(loss, HUGE))
    if value < 1000:
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"


def _cells(row: Outcome, yardstick: Outcome | None, scenario: ScenarioInfo) -> Iterator[Cell]:
    yield Cell(figure(row, scenario.phase))
    yield _difference(row.difference, scenario.phase)
    yield _verdict(row, yardstick)
    yield share(row.gap_pooled, 0)
    yield share(row.gap_closed, 0)
    yield Cell(f"{row.bad_weight[0]:.2f} → {row.bad_weight[-1]:.2f}" if row.bad_weight else DASH)
    yield Cell(f"{row.seconds:.0f}")
    if scenario.phase == "va":
        yield share(row.accuracy, 1)
    if scenario.aside:
        yield _aside(row.aside, scenario.aside)


def _aside(found: Estimate | None, kind: str) -> Cell:
    """A share, or the perplexity on one topic."""
    if found is None or kind != "topic":
        return share(found, 0)
    return Cell(perplexity(found.value), f"{perplexity(found.low)}, {perplexity(found.high)}")


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


def _difference(found: Estimate | None, phase: str) -> Cell:
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
