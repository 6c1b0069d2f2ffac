"""A run as `fccl run` and `fccl orchestrator` set it up: from settings to a `Run`, its screen and its tracker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from fccl.adapters.adapter import Adapter
from fccl.apps.data_screen import DataScreen
from fccl.apps.evaluation_screen import EvaluationScreen, show_written
from fccl.apps.progress import screen_for
from fccl.config import Settings
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.in_use import data_in_use
from fccl.data.shards import require_unchanged
from fccl.evaluation.validation import Validator
from fccl.federation.rounds import Federation
from fccl.federation.run import Run, new_run
from fccl.federation.run_evaluation import evaluate_run, run_adapters, topic_counts, write_report
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import aggregation_rule, data_spec, evaluation_options, require_client_ranks, weigher
from fccl.library.own_rules import own_rules
from fccl.model.card import CardWriter
from fccl.model.export import save_peft
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase, TrainSpec
from fccl.tracking.listener import Listeners
from fccl.tracking.tracker import GuardedTracker, Tracker, tracker_for
from fccl.transports.protocol import RunIdentity, Transport


@dataclass(frozen=True, eq=False)
class RunCommand:
    """A run on its console, with the model and the data that it is evaluated on."""

    run: Run
    settings: Settings
    console: Console
    model: LanguageModel
    data: DataPaths
    manifest: Manifest

    def conduct(self, transport: Transport, resume: bool) -> None:
        """All rounds, of a new run or of the one that is here; then the final adapter, the evaluation, and where they
        are.
        """
        with closing(self.run.rounds(transport, resume)) as rounds:
            for _ in rounds:
                pass
        self.run.finish(transport)
        if self.settings.evaluate:
            self._evaluate()
        root = self.run.folder.paths.root
        where = f"Results: {root}/ (adapter/ in PEFT's format, progress.jsonl, client_metrics.jsonl)"
        self.console.print(f"{where}; {self.run.plan.total_rounds} rounds.", soft_wrap=True)

    def _evaluate(self) -> None:
        logs, screen = self.run.folder.paths, EvaluationScreen(self.console)
        require_unchanged(self.data, self.manifest, [self.data.server_split("test", phase) for phase in PHASES])
        options = evaluation_options(self.settings, self.settings.seed)
        shares = topic_counts(self.manifest)
        report = evaluate_run(self.model, run_adapters(logs), self.data, logs, options, shares, screen)
        self.run.evaluated(report)
        write_report(logs, report)
        show_written(report, logs, self.console)
        self.run.require_here()


@contextmanager
def prepared_run(
    settings: Settings,
    console: Console,
    folder: RunFolder,
    models: Models,
    way_on: str,
    place: AbstractContextManager[None] | None = None,
    identity: RunIdentity | None = None,
) -> Iterator[RunCommand]:
    """The model and the data in their places, screen and tracker ready; the data stays as it is while the block runs.
    `place` is entered as soon as the model is there.

    A tracker or a model that cannot be had, and settings that cannot work, end the command before any other work.
    """
    tracker = workable(settings, folder)
    model, data = models.of(settings.model_spec()), DataPaths(settings.data_dir)
    with (
        place or nullcontext(),
        data_in_use(data_spec(settings), data, DataScreen(console)) as manifest,
        screen_for(console, settings.round_plan(), way_on) as screen,
        GuardedTracker(tracker, screen.told) as guarded,
    ):
        run = Run(
            federation_of(settings, model, data, manifest),
            folder,
            lambda: model.initial_adapter(settings.seed),
            Listeners((guarded, screen)),
            data,
            {name: str(value) for name, value in settings.model_dump().items()},
            rules=own_rules(settings),
            export=PeftExport(settings, model, manifest),
            keep_updates_mb=settings.keep_updates_mb,
            identity=identity or new_run(),
        )
        yield RunCommand(run, settings, console, model, data, manifest)


def workable(settings: Settings, folder: RunFolder) -> Tracker:
    """The tracker of a run of these settings.

    Raises `SettingsError` when they do not go together or a library is missing.
    """
    aggregation_rule(settings).require(settings.round_plan().clients_per_round)
    require_client_ranks(settings)
    return tracker_for(settings.track, folder.paths)


def federation_of(settings: Settings, model: LanguageModel, data: DataPaths, manifest: Manifest) -> Federation:
    """The federation that the settings ask for, validated on the server's own split."""
    validator = Validator(
        model,
        read_examples(data.server_split("validation", "sft"), SftExample),
        read_examples(data.server_split("validation", "va"), PreferencePair),
        beta=settings.dpo_beta,
        batch_size=settings.eval_batch_size,
    )
    return Federation(
        run_id="",
        plan=settings.round_plan(),
        model=settings.model_spec(),
        train={phase: _train_spec(settings, phase) for phase in PHASES},
        rule=weigher(settings, validator),
        aggregation=aggregation_rule(settings),
        validate=validator,
        known_samples=manifest.samples_by_client(),
    )


def _train_spec(settings: Settings, phase: Phase) -> TrainSpec:
    """With the number of threads that this process has, where the settings name none."""
    spec = settings.train_spec(phase)
    return spec.model_copy(update={"threads": spec.threads or torch.get_num_threads()})


@dataclass(frozen=True, eq=False)
class PeftExport:
    """Writes an adapter in PEFT's format, with a model card."""

    settings: Settings
    model: LanguageModel
    manifest: Manifest

    def __call__(self, adapter: Adapter, folder: Path) -> None:
        spec, plan = self.settings.model_spec(), self.settings.round_plan()
        cards = CardWriter(spec, self.model.made_of, plan, self.manifest)
        save_peft(self.model, adapter, folder, cards.adapter(adapter))
