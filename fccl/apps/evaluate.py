"""`fccl evaluate`: base, SFT and FedVA on the test split."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fccl.adapters.adapter import Adapter, adapter_file, load_adapter
from fccl.apps.console import plain_console
from fccl.config import Settings, load_settings
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.shards import read_manifest, require_unchanged
from fccl.errors import DataError, FederationError, SettingsError
from fccl.evaluation.bootstrap import Bootstrap
from fccl.evaluation.by_client import evaluate_client
from fccl.evaluation.comparison import compare_all
from fccl.evaluation.suite import Evaluated, EvaluationSplit, evaluate_model, subset, summarise
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import evaluation_options
from fccl.model.language_model import LanguageModel
from fccl.model.loading import load_model
from fccl.model.scoring import Progress as Listener
from fccl.paths import DataPaths, LogPaths
from fccl.plain_text import one_line
from fccl.records.evaluation import ClientEvaluation, EvaluationOptions, EvaluationReport, Generation
from fccl.records.journal import Journal
from fccl.records.manifest import Manifest
from fccl.records.run import RunInfo
from fccl.specs import PHASES, Phase, named_seed
from fccl.storage.files import sha256_of, write_text
from fccl.storage.locks import in_use
from fccl.view import evaluation_tables as tables
from fccl.view.evaluation_markdown import to_markdown
from fccl.view.evaluation_tables import Cell, Row

TopicShares = Mapping[int, Mapping[str, float]]  # client -> topic -> its share, or count, in the client's SFT data

QUIET, BEST = "dim", "bold"
VERDICTS = {"better": "green", "worse": "red"}
SHOWN_LETTERS = 280  # of an instruction or a response; the Markdown has all


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Evaluate the run in `LOG_DIR`, with the model that it was run with. Returns the exit status."""
    logs = LogPaths(settings.log_dir)
    folder = RunFolder(logs, Journal(logs))
    info = folder.info()
    if info is None:
        raise FederationError(
            f"{logs.root} holds no run to evaluate", hint="start one with `fccl run`, or name the folder with --log-dir"
        )
    recorded = load_settings(info.settings)
    data = DataPaths(settings.data_dir if "data_dir" in settings.model_fields_set else recorded.data_dir)

    def require_same_run(report: EvaluationReport) -> None:
        folder.require_here(info.run_id)

    with in_use(data.lock, f"the data in {data.root}/"):
        manifest = own_data(data, info)
        wanted = evaluation_options(settings, recorded.seed).model_copy(
            update={
                "max_sft": options.sft,
                "max_va": options.va,
                "skip_base": options.skip_base,
                "per_client": tuple(range(recorded.num_clients)) if options.per_client else (),
            }
        )
        evaluate_and_show(
            load_model(recorded.model_spec()), manifest, data, logs, wanted, plain_console(), require_same_run
        )
    return 0


def own_data(data: DataPaths, info: RunInfo) -> Manifest:
    """The manifest of the data that the run was made with. Another test split may hold what its clients have trained
    on, so it is refused.

    Raises `DataError`, or `StorageError` when a file is not what it was.
    """
    manifest = read_manifest(data)
    if sha256_of(data.manifest) != info.data_sha256:
        way = "prepare it again with the run's settings, or name the folder with the run's own data with --data-dir"
        raise DataError(
            f"the data in {data.root}/ is not what run {info.run_id} was made with: its test split may hold the "
            "run's training data",
            way,
        )
    require_unchanged(data, manifest, [data.server_split("test", phase) for phase in PHASES])
    return manifest


def evaluate_and_show(
    model: LanguageModel,
    manifest: Manifest,
    data: DataPaths,
    logs: LogPaths,
    options: EvaluationOptions,
    console: Console,
    before_writing: Callable[[EvaluationReport], None],
) -> None:
    """Evaluate the global adapters that the run has so far, write the report, print it, and say where it is."""
    files = {"SFT": logs.global_sft, "FedVA": logs.global_final}
    adapters: dict[str, Adapter | None] = {"base": None} | {
        name: load_adapter(path) for name, path in files.items() if adapter_file(path).is_file()
    }
    if len(adapters) == 1:
        raise FederationError(
            f"{logs.root} has no finished phase to evaluate", hint="`fccl run --resume` goes on with the run"
        )
    report = evaluate_run(model, adapters, data, logs, options, console, topic_counts(manifest))
    before_writing(report)
    write_report(logs, report)
    show(report, console)
    console.print(f"Written to {logs.evaluation_markdown} and {logs.evaluation_json}.", soft_wrap=True)


def write_report(logs: LogPaths, report: EvaluationReport) -> None:
    """Write `evaluation.md`, and last `evaluation.json`, which says that the run is evaluated."""
    write_text(logs.evaluation_markdown, to_markdown(report))
    write_text(logs.evaluation_json, report.model_dump_json(indent=2) + "\n")


def topic_counts(manifest: Manifest) -> TopicShares:
    """How many SFT examples of each topic each client holds."""
    return {
        client: dict(zip(manifest.topics, counts, strict=True))
        for client, counts in enumerate(manifest.topics_by_client["sft"])
    }


def evaluate_run(
    model: LanguageModel,
    adapters: Mapping[str, Adapter | None],
    data: DataPaths,
    logs: LogPaths,
    options: EvaluationOptions,
    console: Console,
    topic_shares: TopicShares,
) -> EvaluationReport:
    """Evaluate every adapter (None is the base model) on the test split; the last one is the global model that clients
    are held against.

    Raises `DataError` when the test split is not there, `SettingsError` when nothing is left.
    """
    wanted = {name: adapter for name, adapter in adapters.items() if adapter is not None or not options.skip_base}
    if not wanted:
        raise SettingsError(
            "nothing to evaluate but the base model, and --skip-base leaves it out", hint="use `fccl run` first"
        )
    own = _client_adapters(logs, options.per_client, console)
    split = _test_split(data, options)
    boot = Bootstrap(options.bootstrap_samples, named_seed(options.seed, "bootstrap"))
    with _progress(console, len(wanted) + len(own)) as listen:
        models = [
            evaluate_model(model, name, adapter, split, options, listen(name)) for name, adapter in wanted.items()
        ]
        clients = []
        for client_id, (phase, adapter) in own.items():
            name = f"client {client_id}"
            alone = evaluate_model(
                model, name, adapter, split, options.model_copy(update={"gen_samples": 0}), listen(name)
            )
            clients.append(evaluate_client(client_id, phase, alone, models[-1], topic_shares.get(client_id, {}), boot))
    return _report(model.spec.name, models, clients, options, boot)


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


def _client_adapters(logs: LogPaths, client_ids: Sequence[int], console: Console) -> dict[int, tuple[Phase, Adapter]]:
    """Each client's last update: of VA where there is one, else of SFT. A client without any is named and left out."""
    phases: tuple[Phase, ...] = ("va", "sft")
    found: dict[int, tuple[Phase, Adapter]] = {}
    for client_id in client_ids:
        phase = next((phase for phase in phases if adapter_file(logs.client_adapter(client_id, phase)).is_file()), None)
        if phase is None:
            console.print(Text(f"client {client_id} has no update in {logs.root}: left out", "yellow"), soft_wrap=True)
        else:
            found[client_id] = phase, load_adapter(logs.client_adapter(client_id, phase))
    return found


def _test_split(data: DataPaths, options: EvaluationOptions) -> EvaluationSplit:
    return EvaluationSplit(
        subset(read_examples(data.server_split("test", "sft"), SftExample), options.max_sft, options.seed),
        subset(read_examples(data.server_split("test", "va"), PreferencePair), options.max_va, options.seed),
    )


def _report(
    model_name: str,
    models: Sequence[Evaluated],
    clients: Sequence[ClientEvaluation],
    options: EvaluationOptions,
    boot: Bootstrap,
) -> EvaluationReport:
    return EvaluationReport(
        model=model_name,
        sft_examples=len(models[0].split.sft),
        va_pairs=len(models[0].split.va),
        truncated=models[0].truncated,
        options=options,
        models=tuple(summarise(one, boot) for one in models),
        comparisons=compare_all(models, boot),
        clients=tuple(clients),
    )


@contextmanager
def _progress(console: Console, count: int) -> Iterator[Callable[[str], Listener]]:
    """A bar on a terminal, elsewhere a line when a model begins.

    Gives a function from a model's name to its listener.
    """
    if not console.is_terminal:
        yield lambda name: _announce(console, name)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task, begun = bar.add_task("evaluating", total=count), iter(range(count))

        def listen(name: str) -> Listener:
            before = next(begun)
            return lambda done, total: bar.update(
                task, completed=before + done / total, description=f"evaluating {name}"
            )

        yield listen


def _announce(console: Console, name: str) -> Listener:
    console.print(Text(f"evaluating {name}"), soft_wrap=True)
    return lambda done, total: None


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
