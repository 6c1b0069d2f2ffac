"""The report as Markdown: `logs/evaluation.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fccl.plain_text import visible
from fccl.records.evaluation import FEWEST_FOR_A_VERDICT, EvaluationReport, Generation
from fccl.view import evaluation_tables as tables
from fccl.view.evaluation_tables import Cell, Row

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~$])")
_MEASURES = f"""\
- *Response perplexity* is exp of the mean negative log-likelihood (NLL) of the response tokens, end-of-text included, given the prompt.
- *Exact answers*: the greedy response equals the example's answer but for white space. A dash where the data has no answers.
- *Preference accuracy* is right / (right + wrong): a pair is right when the chosen response has the higher log p(response | instruction), the sum
  over its tokens, or the higher mean over them. Ties are neither and are counted apart. *Margin*: log p(chosen) - log p(rejected).
- Brackets hold the 95 % percentile bootstrap interval over examples. Comparisons are paired: both models answer the same resampled examples.
  A difference is significant when its interval leaves out "no difference"; fewer than {FEWEST_FOR_A_VERDICT} examples never are.
"""


def to_markdown(report: EvaluationReport) -> str:
    """The whole report. Text of the data and of the models is quoted, so none of it acts as Markdown or HTML."""
    return "\n".join(line for part in _parts(report) for line in [part.rstrip("\n"), ""]).rstrip("\n") + "\n"


def _parts(report: EvaluationReport) -> Iterator[str]:
    names = [model.name for model in report.models]
    yield "# Evaluation"
    yield _what(report)
    yield _table(["", *names], tables.measures(report))
    yield _MEASURES
    if report.comparisons:
        yield "## Differences"
        yield "Of perplexities, the second divided by the first; of all else, the second minus the first."
        yield _table(
            ["", *(f"{each.second} against {each.first}" for each in report.comparisons)], tables.comparisons(report)
        )
    for title, rows in (
        ("Response perplexity by topic", tables.topic_perplexities(report)),
        ("Exact answers by topic", tables.topic_exact_answers(report)),
        ("Preference accuracy by flaw of the rejected response", tables.flaws(report)),
    ):
        if rows:
            yield f"## {title}"
            yield _table(["", *names], rows)
    yield from _clients(report)
    yield from _generations(report)


def _what(report: EvaluationReport) -> str:
    cut = f" {report.truncated} of these were cut to fit the context." if report.truncated else ""
    return (
        f"{quoted(report.model)} on the test split: {report.sft_examples:,} instructions with "
        f"{report.models[0].tokens:,} response tokens, "
        f"{report.va_pairs:,} preference pairs.{cut} Bold is the best of a row; higher is better "
        "unless the row says otherwise."
    )


def _clients(report: EvaluationReport) -> Iterator[str]:
    if not report.clients:
        return
    yield "## Each client's own last update"
    yield "On the whole test split, as above."
    yield _table(["", *tables.CLIENT_COLUMNS], tables.clients(report))
    if rows := tables.client_mixes(report):
        yield (
            "With the test examples weighted as the client's topics are: does the global model serve its kind of "
            "data "
            "better than its own update?"
        )
        yield _table(["", *tables.MIX_COLUMNS], rows)


def _generations(report: EvaluationReport) -> Iterator[str]:
    samples = list(zip(*(model.generations for model in report.models), strict=True))
    if not samples:
        return
    yield "## Generations"
    yield (
        f"At most {report.options.gen_tokens} tokens. Sampled at temperature {report.options.gen_temperature:g} "
        "with "
        f"seed {report.options.seed}."
    )
    for number, answers in enumerate(samples, start=1):
        yield f"**{number}.** {quoted(answers[0].instruction)}"
        yield _answers([model.name for model in report.models], answers)


def _answers(names: Sequence[str], answers: Sequence[Generation]) -> str:
    lines = ["| | greedy | sampled |", "|---|---|---|", f"| *reference* | {quoted(answers[0].reference)} | |"]
    lines += [
        f"| {quoted(name)} | {quoted(answer.greedy)} | {quoted(answer.sampled)} |"
        for name, answer in zip(names, answers, strict=True)
    ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(quoted(name) for name in header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    for row in rows:
        note = f" ({quoted(row.note)})" if row.note else ""
        lines.append(f"| {quoted(row.label)}{note} | " + " | ".join(_figure(cell) for cell in row.cells) + " |")
    return "\n".join(lines)


def _figure(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    interval = f" [{cell.interval}]" if cell.interval else ""
    return f"{text}{interval}" + (f", {cell.verdict}" if cell.verdict else "")


def quoted(text: str) -> str:
    """Text as Markdown that shows just this text, in one line and fit for a table's cell."""
    return _SPECIAL.sub(r"\\\1", visible(text)).replace("\n", "<br>").replace("\t", " ")
