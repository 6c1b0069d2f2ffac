"""The report as Markdown: `logs/evaluation.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fccl.display.tables import Table
from fccl.records.evaluation import FEWEST_FOR_A_VERDICT, EvaluationReport, Generation
from fccl.view import evaluation_tables as tables
from fccl.view.markdown import markdown_table, quoted

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
    yield "# Evaluation"
    yield _what(report)
    yield markdown_table(tables.measures(report))
    yield _MEASURES
    if report.comparisons:
        yield from _titled(tables.differences(report))
    for table in tables.details(report):
        yield from _titled(table)
    yield from _generations(report)


def _titled(table: Table) -> Iterator[str]:
    yield f"## {table.title}"
    if table.note:
        yield table.note
    yield markdown_table(table)


def _what(report: EvaluationReport) -> str:
    best = "Bold is the best of a row; higher is better unless the row says otherwise."
    return f"{quoted(report.model)} in {report.base_precision} on the test split: {tables.extent(report)} {best}"


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
    rows = [("reference", answers[0].reference, "")]
    rows += [(name, answer.greedy, answer.sampled) for name, answer in zip(names, answers, strict=True)]
    return markdown_table(Table("", ("", "greedy", "sampled"), tuple(rows), words=frozenset({1, 2})))
