"""An evaluation on the screen: how far it is, then its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fccl.apps.terminal_tables import BEST, QUIET, print_table
from fccl.display.plain_text import one_line
from fccl.display.words import plural
from fccl.federation.run_evaluation import EvaluationListener
from fccl.model.scoring import Progress as Listener
from fccl.paths import LogPaths
from fccl.records.evaluation import EvaluationReport, Generation
from fccl.view import evaluation_tables as tables

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
            task, shares = bar.add_task("evaluating", total=models), dict[str, float]()

            def progress(name: str, done: int, total: int) -> None:
                shares[name] = done / total
                at_work = ", ".join(each for each, share in shares.items() if share < 1) or name
                bar.update(task, completed=sum(shares.values()), description=f"evaluating {at_work}")

            def listen(name: str) -> Listener:
                return partial(progress, name)

            yield listen

    def told(self, line: str) -> None:
        self.console.print(Text(line, "yellow"), soft_wrap=True)

    def evaluated(self, report: EvaluationReport) -> None:
        show(report, self.console)

    def _announce(self, name: str) -> Listener:
        self.console.print(Text(f"evaluating {name}"), soft_wrap=True)
        return lambda done, total: None


def say_written(logs: LogPaths, console: Console) -> None:
    """Where the report is."""
    console.print(f"Written to {logs.evaluation_markdown} and {logs.evaluation_json}.", soft_wrap=True)


def show(report: EvaluationReport, console: Console) -> None:
    """The report on the screen, what matters most last: generations, flaws, clients, the main table, differences.

    Topics are in the Markdown.
    """
    names = tables.names(report)
    _show_generations(console, names, list(zip(*(model.generations for model in report.models), strict=True)))
    title = (
        f"{report.model} in {report.base_precision} on the test split: {plural(report.sft_examples, 'instruction')}, "
        f"{plural(report.va_pairs, 'preference pair')}"
    )
    measures = replace(tables.measures(report), title=title)
    for table in (tables.flaws(report), tables.clients(report), tables.client_mixes(report), measures):
        print_table(console, table)
    if report.comparisons:
        print_table(console, tables.differences(report))
    for table in (tables.tasks(report), tables.task_differences(report)):
        print_table(console, table)
    if len(names) > 1:
        console.print(Text("* best of its row", QUIET))


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
