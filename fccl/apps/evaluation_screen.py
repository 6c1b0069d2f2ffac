"""An evaluation on the screen: how far it is, then its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fccl.federation.run_evaluation import EvaluationListener
from fccl.model.scoring import Progress as Listener
from fccl.paths import LogPaths
from fccl.plain_text import one_line
from fccl.records.evaluation import EvaluationReport, Generation
from fccl.view import evaluation_tables as tables
from fccl.view.evaluation_tables import Cell, Row

QUIET, BEST = "dim", "bold"
VERDICTS = {"better": "green", "worse": "red"}
SHOWN_LETTERS = 280  # of an instruction or a response; the Markdown has all


@dataclass(frozen=True)
class EvaluationScreen(EvaluationListener):
    """A bar on a terminal, elsewhere a line when a model begins."""

    console: Console

    @contextmanager
    def evaluating(self, models: int) -> Iterator[Callable[[str], Listener]]:
        if not self.console.is_terminal:
            yield self._announce
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=self.console, transient=True) as bar:
            task, begun = bar.add_task("evaluating", total=models), iter(range(models))

            def listen(name: str) -> Listener:
                before = next(begun)
                return lambda done, total: bar.update(
                    task, completed=before + done / total, description=f"evaluating {name}"
                )

            yield listen

    def told(self, line: str) -> None:
        self.console.print(Text(line, "yellow"), soft_wrap=True)

    def _announce(self, name: str) -> Listener:
        self.console.print(Text(f"evaluating {name}"), soft_wrap=True)
        return lambda done, total: None


def show_written(report: EvaluationReport, logs: LogPaths, console: Console) -> None:
    """The report, and where it is."""
    show(report, console)
    console.print(f"Written to {logs.evaluation_markdown} and {logs.evaluation_json}.", soft_wrap=True)


def show(report: EvaluationReport, console: Console) -> None:
    """The report on the screen, what matters most last: generations, flaws, clients, the main table, differences.

    Topics are in the Markdown.
    """
    names = [model.name for model in report.models]
    _show_generations(console, names, list(zip(*(model.generations for model in report.models), strict=True)))
    _table(console, "Preference accuracy by flaw of the rejected response", ["", *names], tables.flaws(report))
    if report.clients:
        _table(
            console,
            "Each client's own last update, on the whole test split",
            ["", *tables.CLIENT_COLUMNS],
            tables.clients(report),
        )
    _table(
        console,
        "The same, with the test examples weighted as the client's topics are",
        ["", *tables.MIX_COLUMNS],
        tables.client_mixes(report),
    )
    title = (
        f"{report.model} on the test split: {report.sft_examples:,} instructions, {report.va_pairs:,} preference pairs"
    )
    _table(console, title, ["", *names], tables.measures(report))
    couples = [f"{each.second} against {each.first}" for each in report.comparisons]
    _table(console, "Differences, on the same examples", ["", *couples], tables.comparisons(report))
    marks = "* best of its row. " if len(names) > 1 else ""
    console.print(Text(f"{marks}Higher is better unless said. Below each figure: its 95 % bootstrap interval.", QUIET))


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    if not rows:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(Text(one_line(name)), justify="right" if index else "left")
    for row in rows:
        table.add_row(
            _lines(Text(one_line(row.label)), f"  {row.note}" if row.note else ""),
            *(_figure(cell) for cell in row.cells),
        )
    console.print()
    console.print(Text(one_line(title), BEST))
    console.print(table)


def _figure(cell: Cell) -> Text:
    text = _lines(Text(f"{cell.text} *" if cell.best else cell.text, BEST if cell.best else ""), cell.interval)
    return text.append("\n").append(cell.verdict, VERDICTS.get(cell.verdict, "")) if cell.verdict else text


def _lines(text: Text, below: str) -> Text:
    return Text.assemble(text, "\n", (below, QUIET)) if below else text


def _show_generations(console: Console, names: Sequence[str], samples: Sequence[Sequence[Generation]]) -> None:
    for number, answers in enumerate(samples, start=1):
        console.print()
        console.print(Text.assemble((f"{number}. ", QUIET), (_short(answers[0].instruction), BEST)))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style=QUIET)
        grid.add_column(style=QUIET)
        grid.add_column(overflow="fold")
        grid.add_row("reference", "", Text(_short(answers[0].reference)))
        for name, answer in zip(names, answers, strict=True):
            grid.add_row(Text(one_line(name)), "greedy", Text(_short(answer.greedy)))
            grid.add_row("", "sampled", Text(_short(answer.sampled)))
        console.print(grid)


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= SHOWN_LETTERS else line[: SHOWN_LETTERS - 2] + " …"
