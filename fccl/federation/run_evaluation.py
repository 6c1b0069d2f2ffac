"""A run's global adapters, and its clients' last updates, on the test split; and the report in its files.

report = evaluate_run(model, run_adapters(logs), data, logs, options, topic_counts(manifest))
write_report(logs, report)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fccl.adapters.adapter import Adapter, adapter_file, load_adapter
from fccl.adapters.middle import has_middle, without_effect
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.shards import read_manifest, require_unchanged
from fccl.errors import DataError, FederationError, SettingsError
from fccl.evaluation.bootstrap import Bootstrap
from fccl.evaluation.by_client import evaluate_client
from fccl.evaluation.comparison import compare_all
from fccl.evaluation.suite import Evaluate, Evaluated, EvaluationSplit, ToEvaluate, one_by_one, subset, summarise
from fccl.evaluation.tasks import TaskMeasure, task_result
from fccl.model.language_model import LanguageModel
from fccl.model.scoring import Progress, no_progress
from fccl.paths import DataPaths, LogPaths
from fccl.records.evaluation import EvaluationOptions, EvaluationReport, TaskResult, UpdateEvaluation
from fccl.records.manifest import Manifest
from fccl.records.run import RunInfo, RunState
from fccl.specs import PHASES, ModelSpec, Phase, named_seed
from fccl.storage.files import sha256_of, write_text
from fccl.storage.reading import read_value
from fccl.storage.temporary import sweep_for
from fccl.view.evaluation_markdown import to_markdown

TaskMeasures = Callable[[LanguageModel, int, Progress], Sequence[TaskMeasure]]  # model, rows at once, progress
TopicShares = Mapping[int, Mapping[str, float]]  # client -> topic -> its share, or count, in the client's SFT data


class EvaluationListener:
    """Hears how far an evaluation is. This one does nothing with it."""

    @contextmanager
    def evaluating(self, models: int) -> Iterator[Callable[[str], Progress]]:
        """Entered while so many models are evaluated. Gives a function from a model's name to its progress."""
        yield lambda name: no_progress

    def told(self, line: str) -> None:
        """A line that a person should read."""

    def evaluated(self, report: EvaluationReport) -> None:
        """The report, before it is written: a disk that refuses it then does not lose it."""


SILENT = EvaluationListener()


def starting_points(logs: LogPaths) -> dict[str, Adapter | None]:
    """The base model, which is None, and the adapter that the run started from where it is another model.

    Raises `FederationError` when that is not the one that the run's record names.
    """
    info = read_value(logs.run, RunInfo)
    if info is None or not info.start_sha256:
        return {"base": None}
    start = load_adapter(logs.start)
    if start.sha256 != info.start_sha256:
        raise FederationError(
            f"{logs.start} is not the adapter that {logs.run} speaks of", hint="put a copy of the right one back"
        )
    is_base = has_middle(start.form) and without_effect(start).sha256 == start.sha256
    return {"base": None} if is_base else {"base": None, "start": start}


def run_adapters(logs: LogPaths) -> dict[str, Adapter | None]:
    """The global adapters that a run has so far, by name, after those that it began with; the base model is None.

    Raises `FederationError` when no phase is finished.
    """
    state = read_value(logs.state, RunState)
    has_va = state is None or state.first_va < state.total_rounds
    files = {"SFT": logs.global_sft, **({"FedVA": logs.global_final} if has_va else {})}
    found = {name: load_adapter(path) for name, path in files.items() if adapter_file(path).is_file()}
    if not found:
        raise FederationError(f"{logs.root} has no finished phase yet", hint="`fccl run --resume` goes on with the run")
    return {**starting_points(logs), **found}


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


def evaluate_run(
    model: LanguageModel,
    adapters: Mapping[str, Adapter | None],
    data: DataPaths,
    logs: LogPaths,
    options: EvaluationOptions,
    topic_shares: TopicShares,
    listener: EvaluationListener = SILENT,
    tasks: TaskMeasures | None = None,
    evaluate: Evaluate | None = None,
) -> EvaluationReport:
    """Evaluate every adapter (None is the base model) on the test split; the last one is the global model that clients
    are held against. `tasks` measures the model under the adapter that is loaded on tasks of others. `evaluate` does
    the rest elsewhere, or with another number of threads.

    Raises `DataError` when the test split is not there, `SettingsError` when nothing is left.
    """
    wanted = [
        ToEvaluate(name, adapter, options)
        for name, adapter in adapters.items()
        if adapter is not None or not options.skip_base
    ]
    if not wanted:
        raise SettingsError(
            "nothing to evaluate but the base model, and --skip-base leaves it out", hint="use `fccl run` first"
        )
    own, split = _client_adapters(logs, options.per_client, listener), load_split(data, options)
    boot = Bootstrap(options.bootstrap_samples, named_seed(options.seed, "bootstrap"))
    with listener.evaluating(len(wanted) * (2 if tasks else 1) + len(own)) as listen:
        found = (evaluate or one_by_one(model))([*wanted, *_alone(own, options)], split, listen)
        outside = _on_tasks(model, wanted, tasks, options, listen, boot) if tasks else ()
    models = found[: len(wanted)]
    clients = [
        evaluate_client(client_id, phase, each, models[-1], topic_shares.get(client_id, {}), boot)
        for (client_id, (phase, _)), each in zip(own.items(), found[len(wanted) :], strict=True)
    ]
    report = _report(model.spec, models, clients, options, boot).model_copy(update={"tasks": outside})
    listener.evaluated(report)
    return report


def _alone(own: Mapping[int, tuple[Phase, Adapter]], options: EvaluationOptions) -> list[ToEvaluate]:
    """The clients' updates, of which no generations are shown."""
    figures = options.model_copy(update={"gen_samples": 0})
    return [ToEvaluate(f"client {client_id}", adapter, figures) for client_id, (_, adapter) in own.items()]


def _on_tasks(
    model: LanguageModel,
    wanted: Sequence[ToEvaluate],
    measure: TaskMeasures,
    options: EvaluationOptions,
    listen: Callable[[str], Progress],
    boot: Bootstrap,
) -> tuple[TaskResult, ...]:
    """Every measure of the tasks, of all models in order. Leaves the last adapter loaded."""
    found = []
    for each in wanted:
        model.load(each.adapter or model.initial_adapter(seed=0))
        found.append(measure(model, options.batch_size, listen(f"{each.name} on tasks")))
    return tuple(task_result(same, boot) for same in zip(*found, strict=True))


def write_report(logs: LogPaths, report: EvaluationReport) -> None:
    """Write `evaluation.md`, and last `evaluation.json`, which says that the run is evaluated."""
    for path in (logs.evaluation_markdown, logs.evaluation_json):
        sweep_for(path)
    write_text(logs.evaluation_markdown, to_markdown(report))
    write_text(logs.evaluation_json, report.model_dump_json(indent=2) + "\n")


def topic_counts(manifest: Manifest) -> TopicShares:
    """The number of SFT examples of each topic at each client."""
    return {
        client: dict(zip(manifest.topics, counts, strict=True))
        for client, counts in enumerate(manifest.topics_by_client["sft"])
    }


def _client_adapters(
    logs: LogPaths, client_ids: Sequence[int], listener: EvaluationListener
) -> dict[int, tuple[Phase, Adapter]]:
    """Each client's last update: of VA where there is one, else of SFT. A client without any is named and passed
    over.
    """
    phases: tuple[Phase, ...] = ("va", "sft")
    found: dict[int, tuple[Phase, Adapter]] = {}
    for client_id in client_ids:
        phase = next((phase for phase in phases if adapter_file(logs.client_adapter(client_id, phase)).is_file()), None)
        if phase is None:
            listener.told(f"client {client_id} has no update in {logs.root}: left out")
        else:
            found[client_id] = phase, load_adapter(logs.client_adapter(client_id, phase))
    return found


def load_split(data: DataPaths, options: EvaluationOptions) -> EvaluationSplit:
    """The test split, or as much of it as the options take. Raises `DataError` when it is not there."""
    return EvaluationSplit(
        subset(read_examples(data.server_split("test", "sft"), SftExample), options.max_sft, options.seed),
        subset(read_examples(data.server_split("test", "va"), PreferencePair), options.max_va, options.seed),
    )


def _report(
    model: ModelSpec,
    models: Sequence[Evaluated],
    clients: Sequence[UpdateEvaluation],
    options: EvaluationOptions,
    boot: Bootstrap,
) -> EvaluationReport:
    return EvaluationReport(
        model=model.name,
        base_precision=model.base_precision,
        sft_examples=len(models[0].split.sft),
        va_pairs=len(models[0].split.va),
        truncated=models[0].truncated,
        options=options,
        models=tuple(summarise(one, boot) for one in models),
        comparisons=compare_all(models, boot),
        clients=tuple(clients),
    )
