"""An evaluation as tables, for every screen and file that shows it.

A cell says its number, its interval, its verdict and whether it is the best of its row, in words that need no colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from fccl.display.tables import Cell, Table
from fccl.display.words import DASH, plain, plural
from fccl.records.evaluation import (
    FEWEST_FOR_A_VERDICT,
    ClientMix,
    Difference,
    Estimate,
    EvaluationReport,
    ModelPair,
    PreferenceResult,
    TaskResult,
    UpdateEvaluation,
)

_KINDS = {"ratio": "ratio, below 1 is better", "points": "in points", "nats": "in nats", "number": ""}
_PAIRED = (
    "Both models answer the same examples. Of perplexities the second divided by the first, of all else the second "
    f"minus the first. A verdict needs {FEWEST_FOR_A_VERDICT} examples and an interval that leaves out “no difference”."
)

Show = Callable[[float], str]
Verdicts = Mapping[frozenset[int], str]  # of paired differences, by the places of the two models
Cells = tuple[Cell, ...]
# The measures of paired differences that have a row of their own (`fccl.evaluation.comparison`).
_COMPARED = (
    "response perplexity",
    "preference accuracy",
    "preference accuracy, mean log-prob",
    "exact answers",
    "mean margin",
)


def extent(report: EvaluationReport) -> str:
    """A sentence that counts the examples of an evaluation."""
    cut = f" {report.truncated} of these were cut to fit the context." if report.truncated else ""
    return (
        f"{plural(report.sft_examples, 'instruction')} with {plural(report.models[0].tokens, 'response token')}, "
        f"{plural(report.va_pairs, 'preference pair')}.{cut}"
    )


def measures(report: EvaluationReport) -> Table:
    """The main table: one row a measure, one column a model."""
    models = report.models
    by_token = [model.preference_per_token.accuracy for model in models]
    by_sum, lower, choice = [model.preference.accuracy for model in models], "lower is better", "preference accuracy"
    verdicts = {measure: _verdicts(report, measure) for measure in _COMPARED}
    nearer, sums, tokens, answers, margins = verdicts.values()
    rows = (
        _row("response perplexity", lower, [model.perplexity for model in models], plain, True, nearer),
        _row("response NLL", f"nats/token, {lower}", [model.nll for model in models], plain, True, nearer),
        _row("exact answers", "", [model.exact for model in models], percent, verdicts=answers),
        _row(choice, "by sum of log-probs", by_sum, percent, verdicts=sums),
        _row(choice, "by mean log-prob of a token", by_token, percent, verdicts=tokens),
        _row("mean margin", "nats", [model.margin for model in models], signed, verdicts=margins),
        (Cell("pairs", note="right / wrong / tied"), *(Cell(_counts(model.preference)) for model in models)),
    )
    note = (
        "With 95 % bootstrap intervals over examples. Higher is better unless the row says otherwise. The best of a "
        "row is marked where it is told apart from every other one."
    )
    return Table("Measures", ("measure", *names(report)), rows, note)


def differences(report: EvaluationReport) -> Table:
    """One row a measure, one column a pair of models: the paired difference with its verdict."""
    found: dict[str, list[Difference | None]] = {}
    for index, pair in enumerate(report.comparisons):
        for each in pair.differences:
            found.setdefault(each.measure, [None] * len(report.comparisons))[index] = each
    rows = []
    for measure, row in found.items():
        kind = next(each.kind for each in row if each)
        figures = (_difference(each) if each else Cell(DASH) for each in row)
        rows.append((Cell(measure, note=_KINDS[kind]), *figures))
    head = ("measure", *(f"{pair.second} against {pair.first}" for pair in report.comparisons))
    return Table("Differences", head, tuple(rows), _PAIRED)


def topic_perplexities(report: EvaluationReport) -> Table:
    """Response perplexity, one row a topic."""
    rows = (
        _row(_named(same[0].topic), _count(same[0].perplexity.n), [topic.perplexity for topic in same], plain, True)
        for same in zip(*(model.topics for model in report.models), strict=True)
    )
    return Table("Response perplexity by topic", ("topic", *names(report)), tuple(rows), aside=True)


def topic_exact_answers(report: EvaluationReport) -> Table:
    """Exact answers, one row a topic; no row of a topic whose examples have no answer."""
    rows = (
        _row(_named(same[0].topic), _count(same[0].exact.n), [topic.exact for topic in same], percent)
        for same in zip(*(model.topics for model in report.models), strict=True)
        if same[0].exact
    )
    note = "The share of greedy answers that are right."
    return Table("Exact answers by topic", ("topic", *names(report)), tuple(rows), note, aside=True)


def flaws(report: EvaluationReport) -> Table:
    """Preference accuracy, one row a flaw."""
    rows = []
    for same in zip(*(model.flaws for model in report.models), strict=True):
        first = same[0].preference
        pairs = first.right + first.wrong + first.ties
        rows.append(_row(_named(same[0].flaw), _count(pairs), [flaw.preference.accuracy for flaw in same], percent))
    title = "Preference accuracy by flaw of the rejected response"
    return Table(title, ("flaw", *names(report)), tuple(rows), aside=True)


def tasks(report: EvaluationReport) -> Table:
    """Tasks of others, by `fccl evaluate --tasks`: one row a measure, one column a model."""
    rows = (
        _row(_named(task.task), _of_task(task), task.estimates, *_shown(task), _task_verdicts(report, task))
        for task in report.tasks
    )
    note = "By lm-evaluation-harness, with 95 % bootstrap intervals over examples."
    return Table("Tasks of others", ("task", *names(report)), tuple(rows), note)


def task_differences(report: EvaluationReport) -> Table:
    """The same tasks, every two models compared."""
    head = ("task", *(f"{pair.second} against {pair.first}" for pair in report.comparisons))
    rows = (
        (Cell(_named(task.task), note=task.measure), *map(_difference, task.differences))
        for task in report.tasks
        if task.differences
    )
    return Table("Tasks of others, compared", head, tuple(rows), _PAIRED)


def details(report: EvaluationReport) -> tuple[Table, ...]:
    """The detailed tables that have rows: tasks of others, by topic, by flaw, by client."""
    found = (tasks, task_differences, topic_perplexities, topic_exact_answers, flaws, clients, client_mixes)
    return tuple(table for make in found if (table := make(report)).rows)


def names(report: EvaluationReport) -> tuple[str, ...]:
    """The models' names, in order."""
    return tuple(model.name for model in report.models)


CLIENT_COLUMNS = ("response perplexity", "exact answers", "preference accuracy")
MIX_COLUMNS = ("its own update", "the global model", "the global model is")


def clients(report: EvaluationReport) -> Table:
    """The global model, then one row a client: its own last update. No row where no client was evaluated."""
    everyone = report.models[-1]
    measured = _client(everyone.perplexity, everyone.exact, everyone.preference)
    rows = [(Cell(everyone.name, note="the global model"), *measured)] if report.clients else []
    for client in report.clients:
        name = Cell(f"client {client.client_id}", note=f"own {client.phase.upper()} update")
        rows.append((name, *_client(client.perplexity, client.exact, client.preference)))
    head = ("model", *CLIENT_COLUMNS)
    return Table("Each client's own last update", head, tuple(rows), "On the whole test split.", aside=True)


def client_mixes(report: EvaluationReport) -> Table:
    """Two rows a client: its own update and the global model on the client's mix of topics."""
    rows = (row for client in report.clients if client.mix for row in _mix(client, client.mix))
    note = "With the test examples weighted as each client's topics are."
    return Table("Own update against the global model", ("measure", *MIX_COLUMNS), tuple(rows), note, aside=True)


def _of_task(task: TaskResult) -> str:
    shots = f", {task.shots} in the prompt" if task.shots else ""
    lower = "" if task.higher_is_better else ", lower is better"
    return f"{task.measure}, {_count(task.estimates[0].n)}{shots}{lower}"


def _task_verdicts(report: EvaluationReport, task: TaskResult) -> Verdicts:
    pairs = zip(report.comparisons, task.differences, strict=False)  # a task may have none
    return {_places(report, pair): each.verdict for pair, each in pairs}


def _shown(task: TaskResult) -> tuple[Show, bool]:
    """A way to show a task's figures, shares of 1 in per cent; and whether the lowest is the best."""
    share = all(0 <= each.value <= 1 for each in task.estimates)
    return (percent if share else plain), not task.higher_is_better


def percent(value: float) -> str:
    """A share of 1."""
    return f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """A number that can be negative."""
    return f"{value:+.2f}"


def _row(
    label: str,
    note: str,
    estimates: Sequence[Estimate | None],
    show: Show,
    lower: bool = False,
    verdicts: Verdicts = MappingProxyType({}),
) -> Cells:
    """Marks the best of a row where it is told apart from every other figure: by the paired difference where there is
    one, else by the intervals.
    """
    known = {place: estimate for place, estimate in enumerate(estimates) if estimate}
    best = (min if lower else max)(known, key=lambda place: known[place].value, default=-1)
    others = [place for place in known if place != best]
    leads = bool(others) and all(_told_apart(known, best, other, verdicts) for other in others)
    cells = (_cell(estimate, show, leads and place == best) for place, estimate in enumerate(estimates))
    return (Cell(label, note=note), *cells)


def _told_apart(known: Mapping[int, Estimate], one: int, other: int, verdicts: Verdicts) -> bool:
    if (verdict := verdicts.get(frozenset((one, other)))) is not None:
        return verdict in ("better", "worse")
    first, second = known[one], known[other]
    apart = first.high < second.low or second.high < first.low
    return apart and min(first.n, second.n) >= FEWEST_FOR_A_VERDICT


def _verdicts(report: EvaluationReport, measure: str) -> Verdicts:
    """The verdicts of a measure's paired differences, by the places of the two models."""
    return {
        _places(report, pair): each.verdict
        for pair in report.comparisons
        for each in pair.differences
        if each.measure == measure
    }


def _places(report: EvaluationReport, pair: ModelPair) -> frozenset[int]:
    return frozenset(map(names(report).index, (pair.first, pair.second)))


def _named(name: str) -> str:
    return name.strip() or "(none)"


def _count(examples: int) -> str:
    return f"n = {examples}"


def _cell(estimate: Estimate | None, show: Show, best: bool = False) -> Cell:
    if estimate is None:
        return Cell(DASH)
    return Cell(show(estimate.value), _interval(estimate, show), strong=best)


def _interval(estimate: Estimate, show: Show) -> str:
    """No interval is shown for a single example."""
    if estimate.n == 1:
        return ""
    return f"{show(estimate.low).removesuffix(' %')} to {show(estimate.high)}"


def _counts(preference: PreferenceResult) -> str:
    return f"{preference.right} / {preference.wrong} / {preference.ties}"


def _difference(difference: Difference) -> Cell:
    show = {"ratio": _times, "points": _points, "nats": signed, "number": signed}[difference.kind]
    return Cell(show(difference.estimate.value), _interval(difference.estimate, show), verdict=difference.verdict)


def _times(value: float) -> str:
    return plain(value) if value >= 10 else f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _client(perplexity: Estimate, exact: Estimate | None, preference: PreferenceResult) -> Cells:
    return _cell(perplexity, plain), _cell(exact, percent), _cell(preference.accuracy, percent)


def _mix(client: UpdateEvaluation, mix: ClientMix) -> Iterator[Cells]:
    verdicts = {difference.measure: difference.verdict for difference in mix.differences}
    covered = "" if mix.covered > 0.9995 else f"the test split covers {mix.covered:.0%}"
    figures = (
        ("response perplexity", mix.own_perplexity, mix.global_perplexity, plain),
        ("exact answers", mix.own_exact, mix.global_exact, percent),
    )
    for measure, own, everyone, show in figures:
        label = Cell(f"client {client.client_id}: {measure}", note=covered)
        verdict = Cell("", verdict=verdicts[measure]) if measure in verdicts else Cell(DASH)
        yield label, _cell(own, show), _cell(everyone, show), verdict
        covered = ""
