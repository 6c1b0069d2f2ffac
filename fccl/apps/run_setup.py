"""A run on the console, as `fccl run` and `fccl orchestrator` show it: its screen, its evaluation, and where all is."""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, closing

from rich.console import Console

from fccl.apps.console import telling
from fccl.apps.data_screen import DataScreen
from fccl.apps.evaluation_screen import EvaluationScreen, say_written
from fccl.apps.progress import screen_for
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.display.words import plural
from fccl.federation.more_rounds import OtherRounds
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import arranged, begun, evaluation_options, settled
from fccl.library.natural import require_shards, with_named_clients
from fccl.library.places import require_apart
from fccl.library.setup import PreparedRun, prepared_run, workable
from fccl.library.side_by_side import evaluation_beside, side_by_side
from fccl.library.usage import record_usage
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.tracking.tracker import Tracker
from fccl.transports.protocol import RunIdentity, Transport
from fccl.view.forecast_tables import after_table
from fccl.view.own_tests import own_tests_of, own_tests_table
from fccl.view.taken import actual_of, forecast_of


def asked_for(settings: Settings, options: argparse.Namespace, models: Models, console: Console) -> Settings:
    """The settings of a new run as these arguments ask for it, everything in them decided, where it could begin.

    Raises `SettingsError` where it could not.
    """
    tell = telling(console)
    settings = begun(settled(settings, tell, options.given), tell)
    require_apart(settings, ("data_dir", "log_dir"))
    require_shards(settings)
    settings = side_by_side(with_named_clients(settings, DataScreen(console)), options.given)
    workable(settings, RunFolder.at(settings.log_dir))
    if settings.clients_at_once != "1":
        settings = arranged(settings, models.of(settings.model_spec()).engine)
    return settings


def shown_run(
    settings: Settings,
    folder: RunFolder,
    model: LanguageModel,
    tracker: Tracker,
    console: Console,
    way_on: str,
    identity: RunIdentity | None = None,
    other_rounds: OtherRounds | None = None,
) -> AbstractContextManager[PreparedRun]:
    """The run, prepared, with its screen on the console; `way_on` says how a run that is stopped goes on."""
    screen = screen_for(console, settings.round_plan(), way_on)
    return prepared_run(
        settings, folder, model, tracker, screen, DataScreen(console), identity, other_rounds=other_rounds
    )


def conduct(prepared: PreparedRun, transport: Transport, resume: bool, console: Console) -> None:
    """All rounds, of a new run or of the one that is here; then the final adapter, the evaluation, and where they
    are.
    """
    run, settings = prepared.run, prepared.settings
    prepared.caution()
    with closing(run.rounds(transport, resume)) as rounds:
        for _ in rounds:
            pass
    run.finish(transport)
    began = time.monotonic()
    if settings.evaluate:
        options = evaluation_options(settings, settings.seed)
        prepared.evaluate(options, EvaluationScreen(console), evaluation_beside(transport))
        say_written(run.folder.paths, console)
        run.require_here()
    if (tested := own_tests_table(own_tests_of(run.folder.paths))) is not None:
        print_table(console, tested)
    evaluation = time.monotonic() - began if settings.evaluate else 0.0
    record_usage(run.folder.paths, run.identity.run_id, settings, evaluation)
    _beside_its_plan(run, console)
    where = f"Results: {run.folder.paths.root}/ (adapter/ in PEFT's format, progress.jsonl, client_metrics.jsonl)"
    console.print(f"{where}; {plural(run.plan.total_rounds, 'round')}.", soft_wrap=True)


def _beside_its_plan(run: Run, console: Console) -> None:
    """Print what the run took beside its plan, where one was made for it."""
    logs = run.folder.paths
    if logs.plan.is_file():
        print_table(console, after_table(forecast_of(logs), actual_of(logs)))
