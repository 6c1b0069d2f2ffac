"""`fccl evaluate`: base, SFT and FedVA on the test split."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console
from fccl.apps.evaluation_screen import EvaluationScreen, say_written
from fccl.config import Settings
from fccl.federation.run_evaluation import evaluate_run, own_data, run_adapters, topic_counts, write_report
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import evaluation_options, settings_of
from fccl.model.loading import load_model
from fccl.paths import DataPaths
from fccl.records.evaluation import EvaluationOptions
from fccl.storage.locks import in_use


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Evaluate the run in `LOG_DIR`, with the model that it was run with. Returns the exit status."""
    folder, console = RunFolder.at(settings.log_dir), plain_console()
    logs, info = folder.paths, folder.recorded("evaluate")
    recorded = settings_of(info)
    data = DataPaths(settings.data_dir if "data_dir" in settings.model_fields_set else recorded.data_dir)
    with in_use(data.lock, f"the data in {data.root}/"):
        shares, adapters = topic_counts(own_data(data, info)), run_adapters(logs)
        model, wanted = load_model(recorded.model_spec()), _wanted(settings, recorded, options)
        report = evaluate_run(model, adapters, data, logs, wanted, shares, EvaluationScreen(console))
        folder.require_here(info.run_id)
        write_report(logs, report)
    say_written(logs, console)
    return 0


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
