"""The evaluation of each phase's model on the test split."""

from __future__ import annotations

from fccl.display.plain_text import one_line, visible
from fccl.display.tables import SIGNS, Table
from fccl.pages.report.parts import Answer, Example
from fccl.records.evaluation import EvaluationReport
from fccl.view import evaluation_tables as tables


def lead(report: EvaluationReport) -> str:
    """A sentence on the model and the examples of an evaluation."""
    split = f"in {report.base_precision} on the test split, which no client and no round has seen"
    return f"{one_line(report.model)} {split}: {tables.extent(report)}"


def evaluation_tables(report: EvaluationReport) -> tuple[Table, ...]:
    """The main table, the paired differences, and the details for those who ask."""
    differences = (tables.differences(report),) if report.comparisons else ()
    return (tables.measures(report), *differences, *tables.details(report))


def verdict(report: EvaluationReport, measure: str) -> str:
    """The verdict on the last model against the one before it, in a few words; empty where nothing was compared."""
    if len(report.models) < 2:
        return ""
    first, second = report.models[-2].name, report.models[-1].name
    pairs = [each for each in report.comparisons if (each.first, each.second) == (first, second)]
    found = next((each.verdict for pair in pairs for each in pair.differences if each.measure == measure), "")
    against = {
        "better": "better than",
        "worse": "worse than",
        "no significant difference": "no significant difference to",
    }
    return f"{SIGNS[found]} {against[found]} {one_line(first)}" if found in against else ""


def examples(report: EvaluationReport) -> tuple[Example, ...]:
    """The generations, one instruction after the other."""
    found = []
    for said in zip(*(model.generations for model in report.models), strict=False):
        answers = tuple(
            Answer(one_line(model.name), _text(each.greedy), _text(each.sampled))
            for model, each in zip(report.models, said, strict=True)
        )
        found.append(Example(_text(said[0].instruction), _text(said[0].reference), answers))
    return tuple(found)


def _text(words: str) -> str:
    return visible(words.strip()) or "(nothing)"
