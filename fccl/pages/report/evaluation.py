"""What the phases brought on the test split."""

from __future__ import annotations

from collections.abc import Sequence

from fccl.pages.report.parts import Answer, Example
from fccl.plain_text import one_line, visible
from fccl.records.evaluation import FEWEST_FOR_A_VERDICT, EvaluationReport
from fccl.tables import Cell, Table
from fccl.view import evaluation_tables as tables
from fccl.view.evaluation_tables import Row

VERDICTS = {"better": "▲ better", "worse": "▼ worse", "no significant difference": "≈ no significant difference"}


def lead(report: EvaluationReport) -> str:
    """On what, and how."""
    cut = f" {report.truncated} of these were cut to fit the context." if report.truncated else ""
    return (
        f"{one_line(report.model)} on the test split, which no client and no round has seen: "
        f"{report.sft_examples:,} instructions with "
        f"{report.models[0].tokens:,} response tokens, {report.va_pairs:,} preference pairs.{cut}"
    )


def evaluation_tables(report: EvaluationReport) -> tuple[Table, ...]:
    """The main table, the paired differences, and the details for those who ask."""
    names = tuple(one_line(model.name) for model in report.models)
    couples = tuple(f"{one_line(each.second)} against {one_line(each.first)}" for each in report.comparisons)
    paired = (
        "Both models answer the same examples. Of perplexities the second divided by the first, of all else the "
        "second minus the first. "
        f"A verdict needs {FEWEST_FOR_A_VERDICT} examples and an interval that leaves out “no difference”."
    )
    own = tables.clients(report) if report.clients else []
    found = [
        _table(
            "Measures",
            names,
            tables.measures(report),
            "In brackets the 95 % bootstrap interval over examples; the best of a row is bold.",
        )
    ]
    found += [_table("Differences", couples, tables.comparisons(report), paired)]
    found += [
        _table("Response perplexity by topic", names, tables.topic_perplexities(report), "", aside=True),
        _table("Exact answers by topic", names, tables.topic_exact_answers(report), "", aside=True),
        _table("Preference accuracy by flaw of the rejected response", names, tables.flaws(report), "", aside=True),
        _table("Each client's own last update", tables.CLIENT_COLUMNS, own, "On the whole test split.", aside=True),
        _table(
            "Own update against the global model",
            tables.MIX_COLUMNS,
            tables.client_mixes(report),
            "With the test examples weighted as each client's topics are.",
            aside=True,
        ),
    ]
    return tuple(table for table in found if table.rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Row], note: str, aside: bool = False) -> Table:
    return Table(title, ("measure", *head), tuple(_row(row) for row in rows), note, aside=aside)


def _row(row: Row) -> tuple[Cell, ...]:
    figures = []
    for cell in row.cells:
        interval = f"[{cell.interval}]" if cell.interval else ""
        figures.append(Cell(cell.text, interval, VERDICTS.get(cell.verdict, cell.verdict), strong=cell.best))
    return (Cell(row.label, row.note), *figures)


def verdict(report: EvaluationReport, measure: str) -> str:
    """What the last model is against the one before it, in a few words; empty where nothing was compared."""
    if len(report.models) < 2:
        return ""
    first, second = report.models[-2].name, report.models[-1].name
    pairs = [each for each in report.comparisons if (each.first, each.second) == (first, second)]
    found = next((each.verdict for pair in pairs for each in pair.differences if each.measure == measure), "")
    against = {
        "better": "▲ better than",
        "worse": "▼ worse than",
        "no significant difference": "≈ no significant difference to",
    }
    return f"{against[found]} {one_line(first)}" if found in against else ""


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
