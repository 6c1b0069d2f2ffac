"""`fccl orchestrator`: a federation whose clients are other processes, over an exchange directory.

Started again after a crash, with the same settings, it goes on with the run that is in `LOG_DIR`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from fccl.apps.interrupt import terminate_as_interrupt
from fccl.apps.run import FREE_TO_CHANGE, prepared_run, recorded_settings
from fccl.checkpoint import RunFolder
from fccl.config import Settings
from fccl.journal import Journal, read_records
from fccl.keys import server_keys
from fccl.paths import ExchangePaths, KeyPaths, LogPaths
from fccl.records import RunEvent
from fccl.training.learner import GenericLearner
from fccl.transports.exchange import ExchangeTransport


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run, or go on with the run that is here; then evaluate. Returns the exit status."""
    console = Console()
    folder = RunFolder(LogPaths(settings.log_dir), Journal(LogPaths(settings.log_dir)))
    resume = options.resume or (not options.new and is_unfinished(folder, settings))
    if resume:
        settings = recorded_settings(folder, settings, options.given)
    keys = server_keys(KeyPaths(Path(settings.keys_dir))) if settings.keys_dir else None
    exchange = ExchangeTransport(ExchangePaths(settings.exchange_dir), settings.exchange_spec(), folder.paths.received, keys)
    with terminate_as_interrupt(), exchange as transport:
        run = prepared_run(settings, console, folder, GenericLearner(), "Start the orchestrator again to go on")
        transport.on_status, transport.tell = run.on_status, run.tell
        last = run.plan.num_clients - 1
        run.tell(f"Clients are awaited in {settings.exchange_dir}/: start `fccl client --client-id i` for every i from 0 to {last}.")
        state = run.conduct(transport, resume)
        transport.finish(run.run_id, state.next_round, state.adapter)
        run.finish(state)
        run.evaluate()
    return 0


def is_unfinished(folder: RunFolder, settings: Settings) -> bool:
    """Whether the log folder holds a run with these settings whose rounds, or whose evaluation, are not complete."""
    info, state = folder.info(), folder.state()
    if info is None or state is None:
        return False
    same = all(info.settings.get(name) == str(value) for name, value in settings.model_dump().items() if name not in FREE_TO_CHANGE)
    return same and not (state.finished and _has_finished(folder) and (not settings.evaluate or folder.paths.evaluation_json.is_file()))


def _has_finished(folder: RunFolder) -> bool:
    events = read_records(folder.paths.progress, RunEvent, lambda row: row.get("event") == "finished")
    return bool(events)
