"""`fccl replay`: a finished run aggregated again from its kept updates, and who mattered in it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.apps.console import plain_console, telling
from fccl.apps.evaluation_screen import EvaluationScreen
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.display import words
from fccl.errors import SettingsError
from fccl.evaluation.suite import one_by_one
from fccl.federation.run_evaluation import evaluate_run, topic_counts, write_report
from fccl.library.answers import earlier_replay, measured_influence, replayed, write_influence, write_replay
from fccl.library.client_matrix import client_matrix, write_matrix
from fccl.library.export import require_new
from fccl.library.narrow import evaluation_options
from fccl.library.past_run import AtWork, at_work, changed, past_run
from fccl.paths import LogPaths
from fccl.records.after import Replay, ReplayedRound
from fccl.view.after import influence_tables, matrix_tables, replay_table


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Replay the run with what the arguments change. Returns the exit status."""
    _require_sense(options)
    console, given = plain_console(), options.given
    past = past_run(settings.log_dir, options.run, "replay", given, may_replace=True)
    asked, changes = changed(past, given)
    if options.out:
        require_new(settings, Path(options.out))
    with at_work(past, asked, settings.data_dir if "data_dir" in given else None) as work:
        if options.influence:
            return _influence(work, options, console)
        if options.matrix:
            return _matrix(work, console)
        record, adapter = replayed(
            work,
            changes,
            options.without_client,
            options.by_round,
            None if options.retrain is None else options.retrain - 1,
            on_round=lambda each: _say(each, console),
        )
        print_table(console, replay_table(record))
        earlier = None if options.out else earlier_replay(past.after, record)
        folder = write_replay(past.after, record, adapter, Path(options.out) if options.out else None)
        if earlier:
            telling(console)(_beside(earlier, record))
        if given.get("evaluate"):
            _evaluate(work, adapter, LogPaths(folder), console)
    telling(console)(f"Written to {folder}/: record.json, adapter.safetensors.")
    return 0


def _beside(earlier: Replay, record: Replay) -> str:
    """A line on the earlier answer to the same question, in whose place this one is."""
    asked = f"The same was asked at {words.moment(earlier.time)}"
    if earlier.adapter_sha256 == record.adapter_sha256:
        return f"{asked} and gave the same adapter: what was evaluated of it stays."
    return f"{asked} and gave another adapter: that, and what was evaluated of it, is replaced."


def _require_sense(options: argparse.Namespace) -> None:
    """Raises `SettingsError` for options that say nothing together."""
    if options.orders and not options.influence:
        raise SettingsError("--orders has no effect without --influence", hint="leave it out")
    beside = [options.without_client, options.by_round, options.retrain, options.given.get("evaluate"), options.out]
    for name in ("influence", "matrix"):
        if getattr(options, name) and any(beside):
            raise SettingsError(f"--{name} is a question of its own", hint="leave the other options out")
    if options.influence and options.matrix:
        raise SettingsError("--influence and --matrix are two questions", hint="ask one after the other")
    if options.by_round and options.retrain == 1:
        raise SettingsError("--by-round has no effect with --retrain 1", hint="leave one of them out")


def _say(each: ReplayedRound, console: Console) -> None:
    if each.trained:
        telling(console)(f"round {each.round + 1}: {words.plural(len(each.clients), 'client')} trained anew")


def _influence(work: AtWork, options: argparse.Namespace, console: Console) -> int:
    """Measure who mattered, show it, and write it down."""
    found = measured_influence(work, options.orders)
    for table in influence_tables(found):
        print_table(console, table)
    path = write_influence(work.past.after, found)
    telling(console)(f"Written to {path}. `fccl dashboard` and `fccl report` show it.")
    return 0


def _matrix(work: AtWork, console: Console) -> int:
    """Measure whose update helps whom, show it, and write it down."""
    found = client_matrix(work)
    for table in matrix_tables(found):
        print_table(console, table)
    telling(console)(f"Written to {write_matrix(work.past.after, found)}. `fccl dashboard` and `fccl report` show it.")
    return 0


def _evaluate(work: AtWork, adapter: Adapter, out: LogPaths, console: Console) -> None:
    """The run's final adapter and the replay's on the test split, in the replay's own folder."""
    adapters = {"base": None, "the run": load_adapter(work.past.logs.global_final), "the replay": adapter}
    options, shares = evaluation_options(work.settings, work.settings.seed), topic_counts(work.manifest)
    how, screen = one_by_one(work.model, work.settings.threads), EvaluationScreen(console)
    report = evaluate_run(work.model, adapters, work.data, out, options, shares, screen, evaluate=how)
    write_report(out, report)
