"""The report as rows of text, for every screen and file that shows it.

A cell says its number, its interval, its verdict and whether it is the best of its row, in words that need no colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fccl.plain_text import one_line
from fccl.records.evaluation import ClientEvaluation, ClientMix, Difference, Estimate, EvaluationReport, Preference
from fccl.words import DASH, plain

_KINDS = {"ratio": "ratio, below 1 is better", "points": "in points", "nats": "in nats"}

Show = Callable[[float], str]


@dataclass(frozen=True)
class Cell:
    """One figure. `interval` and `verdict` are empty where there is none."""

    text: str
    interval: str = ""
    best: bool = False
    verdict: str = ""


@dataclass(frozen=True)
class Row:
    """One measure of several models. `note` says how to read it."""

    label: str
    note: str
    cells: tuple[Cell, ...]


def measures(report: EvaluationReport) -> list[Row]:
    """The main table: one row a measure, one cell a model. Higher is better unless the note says otherwise."""
    models = report.models
    return [
        _row("response perplexity", "lower is better", [model.perplexity for model in models], plain, lower=True),
        _row("response NLL", "nats/token, lower is better", [model.nll for model in models], plain, lower=True),
        _row("exact answers", "", [model.exact for model in models], percent),
        _row("preference accuracy", "by sum of log-probs", [model.preference.accuracy for model in models], percent),
        _row(
            "preference accuracy",
            "by mean log-prob of a token",
            [model.preference_per_token.accuracy for model in models],
            percent,
        ),
        _row("mean margin", "nats", [model.margin for model in models], signed),
        Row("pairs", "right / wrong / tied", tuple(Cell(_counts(model.preference)) for model in models)),
    ]


def comparisons(report: EvaluationReport) -> list[Row]:
    """One row a measure, one cell a comparison: the paired difference with its verdict."""
    names = dict.fromkeys(each.measure for comparison in report.comparisons for each in comparison.differences)
    rows = []
    for name in names:
        found = [
            next((each for each in comparison.differences if each.measure == name), None)
            for comparison in report.comparisons
        ]
        kind = next(each.kind for each in found if each)
        rows.append(Row(name, _KINDS[kind], tuple(_difference(each) if each else Cell(DASH) for each in found)))
    return rows


def topic_perplexities(report: EvaluationReport) -> list[Row]:
    """Response perplexity, one row a topic."""
    return [
        _row(
            one_line(topics[0].topic) or "(none)",
            f"n = {topics[0].perplexity.n}",
            [topic.perplexity for topic in topics],
            plain,
            lower=True,
        )
        for topics in zip(*(model.topics for model in report.models), strict=True)
    ]


def topic_exact_answers(report: EvaluationReport) -> list[Row]:
    """Exact answers, one row a topic; nothing where no example has an answer."""
    return [
        _row(
            one_line(topics[0].topic) or "(none)",
            f"n = {topics[0].exact.n}",
            [topic.exact for topic in topics],
            percent,
        )
        for topics in zip(*(model.topics for model in report.models), strict=True)
        if topics[0].exact
    ]


def flaws(report: EvaluationReport) -> list[Row]:
    """Preference accuracy, one row a flaw."""
    rows = []
    for found in zip(*(model.flaws for model in report.models), strict=True):
        first = found[0].preference
        note = f"n = {first.right + first.wrong + first.ties}"
        rows.append(
            _row(one_line(found[0].flaw) or "(none)", note, [flaw.preference.accuracy for flaw in found], percent)
        )
    return rows


CLIENT_COLUMNS = ("response perplexity", "exact answers", "preference accuracy")
MIX_COLUMNS = ("its own update", "the global model", "the global model is")


def clients(report: EvaluationReport) -> list[Row]:
    """One row a client, under `CLIENT_COLUMNS`: its own last update on the whole test split, below the global model."""
    everyone = report.models[-1]
    rows = [Row(everyone.name, "the global model", _client(everyone.perplexity, everyone.exact, everyone.preference))]
    for client in report.clients:
        note = f"own {client.phase.upper()} update"
        rows.append(
            Row(f"client {client.client_id}", note, _client(client.perplexity, client.exact, client.preference))
        )
    return rows


def client_mixes(report: EvaluationReport) -> list[Row]:
    """Two rows a client, under `MIX_COLUMNS`: own update and global model on the client's mix of topics."""
    return [row for client in report.clients if client.mix for row in _mix(client, client.mix)]


def percent(value: float) -> str:
    """A share of 1."""
    return f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """A number that can be negative."""
    return f"{value:+.2f}"


def _row(label: str, note: str, estimates: Sequence[Estimate | None], show: Show, lower: bool = False) -> Row:
    """The best are those that look like the best: of figures that all look alike, none is."""
    values = [estimate.value for estimate in estimates if estimate]
    looks = {show(value) for value in values}
    best = show(min(values) if lower else max(values)) if len(looks) > 1 else ""
    return Row(label, note, tuple(_cell(estimate, show, best) for estimate in estimates))


def _cell(estimate: Estimate | None, show: Show, best: str = "") -> Cell:
    if estimate is None:
        return Cell(DASH)
    return Cell(show(estimate.value), _interval(estimate, show), show(estimate.value) == best)


def _interval(estimate: Estimate, show: Show) -> str:
    """Of one example there is none."""
    if estimate.n == 1:
        return ""
    return f"{show(estimate.low).removesuffix(' %')} to {show(estimate.high)}"


def _counts(preference: Preference) -> str:
    return f"{preference.right} / {preference.wrong} / {preference.ties}"


def _difference(difference: Difference) -> Cell:
    show = {"ratio": _times, "points": _points, "nats": signed}[difference.kind]
    return Cell(show(difference.estimate.value), _interval(difference.estimate, show), verdict=difference.verdict)


def _times(value: float) -> str:
    return plain(value) if value >= 10 else f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _client(perplexity: Estimate, exact: Estimate | None, preference: Preference) -> tuple[Cell, ...]:
    return _cell(perplexity, plain), _cell(exact, percent), _cell(preference.accuracy, percent)


def _mix(client: ClientEvaluation, mix: ClientMix) -> Iterator[Row]:
    verdicts = {difference.measure: difference.verdict for difference in mix.differences}
    covered = "" if mix.covered > 0.9995 else f"the test split covers {mix.covered:.0%}"
    figures = (
        ("response perplexity", mix.own_perplexity, mix.global_perplexity, plain),
        ("exact answers", mix.own_exact, mix.global_exact, percent),
    )
    for measure, own, everyone, show in figures:
        yield Row(
            f"client {client.client_id}: {measure}",
            covered,
            (_cell(own, show), _cell(everyone, show), Cell(verdicts.get(measure, DASH))),
        )
        covered = ""
