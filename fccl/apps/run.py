"""`fccl run`: a whole federation in this process."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.metadata import version

import torch
from rich.console import Console
from rich.text import Text

from fccl import __version__
from fccl.adapters.adapter import Adapter
from fccl.apps.console import plain_console
from fccl.apps.evaluate import evaluate_and_show
from fccl.apps.output import terminate_as_interrupt
from fccl.apps.prepare import DataScreen
from fccl.apps.progress import RunScreen, screen_for
from fccl.config import Settings
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.in_use import data_in_use
from fccl.data.shards import load_shard, require_unchanged
from fccl.errors import FcclError, FederationError, StorageError
from fccl.evaluation.validation import Validator
from fccl.federation.rounds import Federation, FederationState
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import (
    aggregation_rule,
    data_spec,
    evaluation_options,
    recorded_settings,
    require_client_ranks,
    settled,
    weigher,
)
from fccl.library.own_rules import own_rules
from fccl.library.places import require_apart
from fccl.messages import ClientUpdate
from fccl.model.card import CardWriter
from fccl.model.export import save_peft
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.paths import DataPaths, LogPaths
from fccl.plain_text import MAX_LINE, printable
from fccl.records.evaluation import EvaluationReport
from fccl.records.journal import Journal
from fccl.records.manifest import Manifest
from fccl.records.run import ClientMetrics, ClientStatus, EventName, RunEvent, RunInfo, Validation
from fccl.specs import PHASES, Phase, TrainSpec
from fccl.storage.files import sha256_of, write_bytes
from fccl.storage.locks import exclusive
from fccl.tracking.tracker import GuardedTracker, Tracker, base_so_far, rounds_so_far, tracker_for
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import Listener, RunIdentity, Transport


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run or resume, then evaluate. Returns the exit status."""
    console = plain_console()
    folder = RunFolder(LogPaths(settings.log_dir), Journal(LogPaths(settings.log_dir)))
    if options.resume:
        settings = recorded_settings(folder, settings, options.given)
    else:
        settings = settled(settings, console, options.given)
    require_apart(settings, ("data_dir", "log_dir"))
    models, place = Models(), held(folder, folder.info())
    learner = learner_for(models, settings.client_ranks)
    with prepared_run(settings, console, folder, models, "`fccl run --resume` goes on", place) as run:
        in_process = InProcessTransport(learner, lambda client_id: load_shard(run.data, client_id, run.manifest))
        with run.follower:
            with terminate_as_interrupt(), in_process as transport:
                state = run.conduct(transport, options.resume)
            run.finish(state)
            run.evaluate()
    return 0


@contextmanager
def held(folder: RunFolder, seen: RunInfo | None) -> Iterator[None]:
    """The log folder is this command's alone while the block runs. `seen` is the run that the command has found there,
    and decided by.

    Raises `FederationError` when another command is at work there, or was since.
    """
    with exclusive(folder.paths.lock, "another run", needed=False):
        if folder.info() != seen:
            raise FederationError(
                f"another command has changed the run in {folder.paths.root} meanwhile", hint="start this one again"
            )
        folder.tidy()
        yield


@contextmanager
def prepared_run(
    settings: Settings,
    console: Console,
    folder: RunFolder,
    models: Models,
    way_on: str,
    place: AbstractContextManager[None] | None = None,
    identity: RunIdentity | None = None,
) -> Iterator[Run]:
    """The model and the data in their places; the data stays as it is while the block runs. `place` is entered as soon
    as the model is there.

    What cannot be had, a tracker or the model, or cannot work ends the command before any other work.
    """
    tracker = workable(settings, folder)
    model = models.of(settings.model_spec())
    data = data_in_use(data_spec(settings), DataPaths(settings.data_dir), DataScreen(console))
    with place or nullcontext(), data as manifest:
        yield Run(settings, console, folder, model, manifest, way_on, tracker, identity or new_run())


def workable(settings: Settings, folder: RunFolder) -> Tracker:
    """The tracker of a run of these settings.

    Raises `SettingsError` when they do not go together or a library is missing.
    """
    aggregation_rule(settings).require(settings.round_plan().clients_per_round)
    require_client_ranks(settings)
    return tracker_for(settings.track, folder.paths)


def new_run() -> RunIdentity:
    """A name for a run that begins now."""
    return RunIdentity(time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex(), time.time())


@dataclass
class Run:
    """One run and all it writes, whatever carries its tasks."""

    settings: Settings
    console: Console
    folder: RunFolder
    model: LanguageModel
    manifest: Manifest
    way_on: str  # how a person goes on with a run that was stopped
    tracker: Tracker
    identity: RunIdentity = field(default_factory=lambda: new_run())
    screen: RunScreen | None = None

    def __post_init__(self) -> None:
        self.plan, self.aggregation = self.settings.round_plan(), aggregation_rule(self.settings)
        self.data = DataPaths(self.settings.data_dir)
        self.data_sha256 = sha256_of(self.data.manifest)
        self.run_id, self.created = self.identity.run_id, self.identity.created
        self.round = 0
        self.follower = GuardedTracker(self.tracker, self.tell)
        self.validator = Validator(
            self.model,
            read_examples(self.data.server_split("validation", "sft"), SftExample),
            read_examples(self.data.server_split("validation", "va"), PreferencePair),
            beta=self.settings.dpo_beta,
            batch_size=self.settings.eval_batch_size,
        )

    def conduct(self, transport: Transport, resume: bool) -> FederationState:
        """All rounds, of a new run or of the one that is here.

        When something stops them it says so, and how to go on.
        """
        state = self.resumed() if resume else self.started()
        transport.begin(RunIdentity(self.run_id, self.created), Listener(self.on_status, self.tell))
        try:
            return self.rounds(state, transport)
        except KeyboardInterrupt:
            self.stopped("interrupted")
            raise
        except FcclError as error:
            self.stopped("failed", str(error), error.resumable)
            raise

    def started(self) -> FederationState:
        """Begin a new run; one that was here moves to `runs/`."""
        if earlier := self.folder.archive():
            self.console.print(
                f"The run that was here is kept in {self.folder.paths.archive / earlier}/.", soft_wrap=True
            )
        adapter = self.model.initial_adapter(self.settings.seed)
        base = self.validator(
            "sft", adapter, None
        )  # before the run is there to be resumed, so that a kill does not lose it
        info = self._info()
        write_bytes(self.folder.paths.manifest, self.data.manifest.read_bytes())
        state = self.folder.start(info, self.plan, adapter, self._record("started", validation=base))
        self.follower.started(info, base)
        self.console.print(f"Base model: validation loss {base.loss:.3f} nats/token.", soft_wrap=True)
        return state

    def resumed(self) -> FederationState:
        """Go on with the run that is here."""
        info = self.folder.info()
        if info is None or info.data_sha256 != self.data_sha256:
            raise FederationError(
                "the data was prepared anew since the run began",
                hint="prepare it with the run's settings, or start a new run",
            )
        self.run_id, self.created = info.run_id, info.created
        state = self.folder.resume(self.plan)
        self.round = state.next_round
        self._event("resumed")
        self.follower.resumed(info, base_so_far(self.folder.paths), rounds_so_far(self.folder.paths))
        self.console.print(
            f"Resuming {self.run_id} after round {state.next_round} of {self.plan.total_rounds}.", soft_wrap=True
        )
        return state

    def rounds(self, state: FederationState, transport: Transport) -> FederationState:
        """All rounds that are left, each committed before the next begins."""
        with screen_for(self.console, self.plan, state.next_round) as self.screen:
            federation = Federation(
                run_id=self.run_id,
                plan=self.plan,
                model=self.settings.model_spec(),
                train={phase: self._train_spec(phase) for phase in PHASES},
                rule=weigher(self.settings, self.validator),
                aggregation=self.aggregation,
                validate=self.validator,
                on_answer=self.screen.answer,
                keep_control=self.folder.keep_control,
                known_samples=self.manifest.samples_by_client(),
            )
            for result in federation.run(state, transport):
                metrics = [_metrics(update, state.adapter) for update in result.updates]
                for line in metrics:
                    self.folder.journal.write(line)
                self.folder.commit(result, self.plan)
                self.screen.round(result.record)
                self.follower.round(result.record, metrics)
                state, self.round = result.state, result.state.next_round
        return state

    def on_status(self, status: ClientStatus) -> None:
        """A client's heartbeat, for the screen and the log."""
        if self.screen is not None:
            self.screen.status(status)
        self.folder.journal.heartbeat(status)

    def tell(self, line: str) -> None:
        """Something that a person should know."""
        self.console.print(Text(printable(line, MAX_LINE)), soft_wrap=True)

    def finish(self, state: FederationState) -> None:
        """Write the final adapter, in both forms."""
        state.adapter.save(self.folder.paths.global_final)
        cards = CardWriter(self.settings.model_spec(), self.model.made_of, self.plan, self.manifest)
        save_peft(self.model, state.adapter, self.folder.paths.adapter, cards.adapter(state.adapter))
        self.require_here()
        self._event("finished")

    def require_here(self) -> None:
        """Raises `StorageError` unless the run and its data are where they were."""
        self.folder.require_here(self.run_id)
        if sha256_of(self.data.manifest) != self.data_sha256:
            raise StorageError(
                f"the data in {self.data.root}/ was changed while the run was at work",
                hint="prepare it again with the run's settings",
            )

    def evaluate(self) -> None:
        """Evaluate on the test split, if the settings ask for it, and say where everything is."""
        paths = self.folder.paths
        if self.settings.evaluate:
            require_unchanged(self.data, self.manifest, [self.data.server_split("test", phase) for phase in PHASES])
            options = evaluation_options(self.settings, self.settings.seed)
            evaluate_and_show(self.model, self.manifest, self.data, paths, options, self.console, self.evaluated)
            self.require_here()
        where = f"Results: {paths.root}/ (adapter/ in PEFT's format, progress.jsonl, client_metrics.jsonl)"
        self.console.print(f"{where}; {self.plan.total_rounds} rounds.", soft_wrap=True)

    def evaluated(self, report: EvaluationReport) -> None:
        """The evaluation is about to be written: the last moment to tell anybody else, since once it is there it is not
        made again.
        """
        self.require_here()
        self.follower.evaluated(report)

    def stopped(self, event: EventName, message: str = "", resumable: bool = True) -> None:
        """Say how far the run is and how it goes on, if it can."""
        with suppress(FcclError):  # the disk may be the very reason
            self.folder.require_here(self.run_id)
            self._event(event, message)
        on = f" {self.way_on}." if resumable and self.folder.info() else ""
        self.console.print(
            f"Stopped with {self.round} of {self.plan.total_rounds} rounds complete.{on}", soft_wrap=True
        )

    def _train_spec(self, phase: Phase) -> TrainSpec:
        spec = self.settings.train_spec(phase)
        return spec.model_copy(update={"threads": spec.threads or torch.get_num_threads()})

    def _info(self) -> RunInfo:
        packages = ("torch", "transformers", "peft", "tokenizers", "numpy")
        return RunInfo(
            run_id=self.run_id,
            created=self.created,
            settings={name: str(value) for name, value in self.settings.model_dump().items()},
            data_sha256=self.data_sha256,
            rules=own_rules(self.settings),
            versions={"fccl": __version__, "python": platform.python_version()}
            | {name: version(name) for name in packages},
        )

    def _event(self, event: EventName, message: str = "") -> None:
        self.folder.journal.write(self._record(event, message))

    def _record(self, event: EventName, message: str = "", validation: Validation | None = None) -> RunEvent:
        return RunEvent(
            event=event, run_id=self.run_id, time=time.time(), round=self.round, message=message, validation=validation
        )


def _metrics(update: ClientUpdate, before: Adapter) -> ClientMetrics:
    return ClientMetrics(
        run_id=update.run_id,
        time=time.time(),
        round=update.round,
        phase=update.phase,
        client_id=update.client_id,
        **update.contribution.model_dump(),
        **update.report.model_dump(),
        update_norm=update.change_from(before),
    )
