"""`fccl evaluate`: base, SFT and FedVA on the test split."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from fccl.apps.console import plain_console, telling
from fccl.apps.evaluation_screen import EvaluationScreen, say_written
from fccl.config import Settings
from fccl.display.words import plural
from fccl.errors import SettingsError
from fccl.evaluation.harness import HarnessTasks, load_tasks
from fccl.evaluation.outputs import outputs_path, write_outputs
from fccl.evaluation.suite import EvaluationSplit
from fccl.evaluation.task_files import write_tasks
from fccl.federation.run_evaluation import evaluate_run, load_split, own_data, run_adapters, topic_counts, write_report
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import evaluation_options, settings_of
from fccl.library.side_by_side import evaluation_processes, evaluators
from fccl.model.language_model import LanguageModel
from fccl.model.loading import load_model
from fccl.paths import DataPaths
from fccl.processes.memory import free_bytes
from fccl.records.evaluation import EvaluationOptions
from fccl.storage.files import require_writable
from fccl.storage.locks import in_use


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Evaluate the run in `LOG_DIR`, with the model that it was run with. Returns the exit status."""
    folder, console = RunFolder.at(settings.log_dir), plain_console()
    tasks = _tasks(options, telling(console))
    logs, info = folder.paths, folder.recorded("evaluate")
    recorded = settings_of(info, client_processes=str(settings.client_processes))
    data = DataPaths(settings.data_dir if "data_dir" in settings.model_fields_set else recorded.data_dir)
    with in_use(data.lock, f"the data in {data.root}/"):
        shares, adapters = topic_counts(own_data(data, info)), run_adapters(logs)
        model, wanted = load_model(recorded.model_spec()), _wanted(settings, recorded, options)
        if tasks:
            tasks.require(model)
        split = load_split(data, wanted)
        _write_tasks(model, split, options.write_tasks, telling(console))
        for name in adapters if options.outputs_file else ():
            require_writable(outputs_path(Path(options.outputs_file), name))
        screen, measure = EvaluationScreen(console), tasks.measure if tasks else None
        many = len(adapters) - wanted.skip_base + len(wanted.per_client)
        count = evaluation_processes(recorded, options.given, many, model, free_bytes())
        with evaluators(recorded, count, model, options.launch) as how:
            report = evaluate_run(model, adapters, data, logs, wanted, shares, screen, measure, how)
        folder.require_here(info.run_id)
        write_report(logs, report)
        say_written(logs, console)
        if options.outputs_file:
            files = write_outputs(model, adapters, split.sft, wanted, Path(options.outputs_file))
            telling(console)(f"Written in AlpacaEval's form: {', '.join(map(str, files))}.")
    return 0


def _tasks(options: argparse.Namespace, tell: Callable[[str], None]) -> HarnessTasks | None:
    """The tasks of others, loaded before any model. Raises `SettingsError` for a limit or a folder without them."""
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    if names:
        folder = Path(options.tasks_path) if options.tasks_path else None
        return load_tasks(names, folder, options.limit, tell, options.tasks_chat)
    flags = {"--tasks-path": options.tasks_path, "--limit": options.limit, "--tasks-chat": options.tasks_chat}
    for flag, value in flags.items():
        if value:
            raise SettingsError(f"{flag} has no effect without --tasks", hint="name tasks, or leave it out")
    return None


def _write_tasks(model: LanguageModel, split: EvaluationSplit, folder: str, tell: Callable[[str], None]) -> None:
    """The test split as task files, where they are asked for: before the evaluation, which takes longer."""
    if folder:
        written = write_tasks(model, split.sft, split.va, Path(folder))
        counts = ", ".join(f"{name} ({plural(count, 'example')})" for name, count in written.items())
        tell(f"Written to {folder}/ as tasks of lm-evaluation-harness: {counts}.")


def _wanted(settings: Settings, recorded: Settings, options: argparse.Namespace) -> EvaluationOptions:
    """The settings of this command, with the seed and the clients of the run."""
    return evaluation_options(settings, recorded.seed).model_copy(
        update={
            "max_sft": options.sft,
            "max_va": options.va,
            "skip_base": options.skip_base,
            "per_client": tuple(range(recorded.num_clients)) if options.per_client else (),
        }
    )
