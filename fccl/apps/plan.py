"""`fccl plan`: what a run will take and what will not fit, before it is run; after it, how good the plan was."""

from __future__ import annotations

import argparse

from rich.console import Console

from fccl.apps.console import plain_console, say
from fccl.apps.run_setup import asked_for
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.errors import FederationError, no_run
from fccl.library.plan import planned
from fccl.model.loading import Models
from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.view.forecast_tables import after_table, plan_tables
from fccl.view.runs import list_runs
from fccl.view.taken import actual_of, forecast_of

THIS = "LOG_DIR"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Print the plan and keep it for the run, or with `--after` hold it against the run.

    Returns the exit status: 1 where something will not fit.
    """
    console = plain_console()
    if options.after is not None:
        logs = _run(LogPaths(settings.log_dir), options.after)
        print_table(console, after_table(forecast_of(logs), actual_of(logs)))
        return 0
    return _ahead(settings, options, console)


def _ahead(settings: Settings, options: argparse.Namespace, console: Console) -> int:
    models = Models()
    settings = asked_for(settings, options, models, console)
    say("Trying a few steps ...")
    forecast = planned(settings, models)
    for table in plan_tables(forecast):
        print_table(console, table)
    logs = LogPaths(settings.log_dir)
    write_text(logs.planned, forecast.model_dump_json(indent=1) + "\n")
    fits = "" if forecast.obstacles else "Everything fits. "
    say(
        f"{fits}The plan is kept in {logs.planned}: the next run with these settings takes it along, and prints it "
        "beside what it took."
    )
    return 1 if forecast.obstacles else 0


def _run(logs: LogPaths, run_id: str) -> LogPaths:
    """The folder of a run, by its id; the one in LOG_DIR where none is named. Raises `FederationError`."""
    runs = list_runs(logs.root)
    if not runs:
        raise no_run(logs.root, "hold a plan against")
    found = next((entry for entry in runs if run_id in (THIS, entry.run_id)), None)
    if found is None:
        raise FederationError(
            f"{logs.root} holds no run {run_id}", hint=f"there are {', '.join(entry.run_id for entry in runs[:5])}"
        )
    return found.paths
