"""From settings to a run that can begin: the model, the data, the rules and the tracker in their places.

`fccl run`, `fccl orchestrator` and `fccl.FederatedRun` set a run up here, so the same settings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fccl.adapters.adapter import Adapter
from fccl.config import Settings
from fccl.data import in_use
from fccl.data.overlap import server_instructions
from fccl.data.shards import ClientShard, load_shard, require_unchanged, server_examples
from fccl.evaluation.suite import Evaluate, one_by_one
from fccl.evaluation.validation import Validator
from fccl.federation.declared import OwnData
from fccl.federation.more_rounds import OtherRounds
from fccl.federation.own_tests import OwnTests
from fccl.federation.rounds import Federation
from fccl.federation.run import Run, new_run
from fccl.federation.run_evaluation import (
    SILENT,
    EvaluationListener,
    evaluate_run,
    run_adapters,
    topic_counts,
    write_report,
)
from fccl.federation.run_folder import RunFolder
from fccl.federation.seal import Sign
from fccl.federation.server_learning import ServerLearner
from fccl.keys import server_keys
from fccl.library.few_examples import cautions
from fccl.library.narrow import (
    aggregation_rule,
    data_spec,
    plan_as_it_went,
    require_client_ranks,
    require_fed_sb,
    require_late_updates,
    require_scores,
    weigher,
)
from fccl.library.own_rules import own_rules
from fccl.library.personal import require_personal
from fccl.library.privacy import require_sound, run_privacy
from fccl.library.secure import secure_aggregation
from fccl.library.start import start_adapter
from fccl.messages import Learner
from fccl.model.card import CardWriter
from fccl.model.export import save_peft
from fccl.model.first_update import first_adapter
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.model.middle_model import MiddleModel
from fccl.model.text_form import with_template
from fccl.paths import DataPaths, KeyPaths
from fccl.records.evaluation import EvaluationOptions, EvaluationReport
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, TrainSpec
from fccl.tracking.listener import Listeners, RunListener
from fccl.tracking.tracker import GuardedTracker, Tracker, tracker_for
from fccl.training.engines import learner_for
from fccl.transports.protocol import RunIdentity


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run that can begin, with the model and the data that it is evaluated on."""

    run: Run
    settings: Settings
    model: LanguageModel
    data: DataPaths
    manifest: Manifest

    def shard(self, client_id: int) -> ClientShard:
        """One client's examples, as they were prepared."""
        return load_shard(self.data, client_id, self.manifest)

    def caution(self) -> None:
        """Tell the listener what the run decides by too few examples or topics; before the first round."""
        learn = {phase: server_examples(self.data, "learn", phase) for phase in PHASES}
        topics = {phase: [example.topic for example in examples] for phase, examples in learn.items()}
        for line in cautions(self.settings, self.manifest, topics):
            self.run.listener.told(line)

    def evaluate(
        self, options: EvaluationOptions, listener: EvaluationListener = SILENT, evaluate: Evaluate | None = None
    ) -> EvaluationReport:
        """The finished phases on the test split; written to the run's folder. `evaluate` as for `evaluated`.

        Raises `FederationError` when no phase is finished, `StorageError` when run or data are no longer what they
        were.
        """
        logs = self.run.folder.paths
        report = self.evaluated(run_adapters(logs), options, listener, evaluate)
        self.run.evaluated(report)
        write_report(logs, report)
        return report

    def evaluated(
        self,
        adapters: dict[str, Adapter | None],
        options: EvaluationOptions,
        listener: EvaluationListener = SILENT,
        evaluate: Evaluate | None = None,
    ) -> EvaluationReport:
        """These adapters, by name, on the test split; None is the base model. Nothing is written.

        `evaluate` does the work, this process if there is none; it has the threads of a client's training.
        """
        require_unchanged(self.data, self.manifest, [self.data.server_split("test", phase) for phase in PHASES])
        shares = topic_counts(self.manifest)
        how, logs = evaluate or one_by_one(self.model, self.settings.threads), self.run.folder.paths
        return evaluate_run(self.model, adapters, self.data, logs, options, shares, listener, evaluate=how)


@contextmanager
def prepared_run(
    settings: Settings,
    folder: RunFolder,
    model: LanguageModel,
    tracker: Tracker,
    screen: AbstractContextManager[RunListener],
    witness: in_use.Witness = in_use.SILENT,
    identity: RunIdentity | None = None,
    learner: Learner | None = None,
    other_rounds: OtherRounds | None = None,
) -> Iterator[PreparedRun]:
    """The data in its place, then the screen, then the run; the data stays as it is while the block runs.

    `learner` trains at the server in the place of our own, where the settings ask for server learning.
    """
    data = DataPaths(settings.data_dir)
    with (
        in_use.data_in_use(data_spec(settings), data, witness) as manifest,
        screen as listener,
        GuardedTracker(tracker, listener.told) as guarded,
    ):
        run = Run(
            federation_of(settings, model, data, manifest, learner),
            folder,
            lambda: model.initial_adapter(settings.seed),
            Listeners((guarded, listener)),
            data,
            {name: str(value) for name, value in settings.model_dump().items()},
            rules=own_rules(settings),
            export=PeftExport(settings, model, manifest, folder),
            keep_updates_mb=settings.keep_updates_mb,
            own_tests=_own_tests(settings),
            identity=identity or new_run(),
            start_from=_start_from(settings, model, data),
            start_named="START_FROM" if settings.start_from else "factors of the learn split's first gradient",
            other_rounds=other_rounds,
            sign=_sign(settings),
        )
        yield PreparedRun(run, settings, model, data, manifest)


def workable(settings: Settings, folder: RunFolder) -> Tracker:
    """The tracker of a run of these settings.

    Raises `SettingsError` when they do not go together or a library is missing.
    """
    aggregation_rule(settings).require(settings.round_plan().clients_per_round)
    require_client_ranks(settings)
    require_scores(settings)
    require_sound(settings)
    secure_aggregation(settings)
    require_late_updates(settings)
    require_personal(settings)
    require_fed_sb(settings)
    return tracker_for(settings.track, folder.paths)


def _start_from(settings: Settings, model: LanguageModel, data: DataPaths) -> Callable[[], Adapter] | None:
    """The reading of the adapter that the settings name to start from, if they name one. Under fed_sb, without one, the
    making of the factors.
    """
    if settings.start_from:
        form = model.whole_form if isinstance(model, MiddleModel) else model.form
        return partial(start_adapter, Path(settings.start_from), model.spec, form)
    return partial(_first_adapter, settings, model, data) if isinstance(model, MiddleModel) else None


def _first_adapter(settings: Settings, model: MiddleModel, data: DataPaths) -> Adapter:
    preference = settings.train_spec("va").preference
    learn = Validator.of(model, data, "learn", preference=preference, batch_size=settings.eval_batch_size)
    return first_adapter(model, learn.examples("sft"), settings.batch_size, settings.threads)


def _sign(settings: Settings) -> Sign | None:
    """Signs the finished run with the server's key, where the settings name keys and that one is there."""
    keys = KeyPaths(Path(settings.keys_dir))
    return server_keys(keys).sign if settings.keys_dir and keys.server.is_file() else None


def _own_tests(settings: Settings) -> OwnTests | None:
    """Own tests of clients that keep examples apart, if the settings may give them any."""
    share = settings.file_test_share if settings.some_declare else settings.shard_test_share
    return OwnTests(settings.eval_batch_size) if share else None


def federation_of(
    settings: Settings, model: LanguageModel, data: DataPaths, manifest: Manifest, learner: Learner | None = None
) -> Federation:
    """The federation that the settings ask for, weighed by the server's learn split and watched by its validation."""
    preference = settings.train_spec("va").preference
    on_split = partial(Validator.of, model, data, preference=preference, batch_size=settings.eval_batch_size)
    learn, train = on_split("learn"), {phase: _here(settings.train_spec(phase)) for phase in PHASES}
    known = manifest.samples_by_client()
    validation = on_split("validation", threads=train["va"].threads)
    return Federation(
        run_id="",
        plan=settings.round_plan(),
        model=with_template(settings.model_spec(), model.tokenizer),
        train=train,
        rule=weigher(settings, learn),
        aggregation=aggregation_rule(settings),
        validate=validation,
        by_example=validation.by_example,
        learn=_server_learner(settings, learner or learner_for(Models.holding(model)), learn),
        known_samples=known,
        privacy=run_privacy(settings, known),
        secure=secure_aggregation(settings),
        own=OwnData(server_instructions(data), settings.max_client_samples, known) if settings.some_declare else None,
    )


def _server_learner(settings: Settings, learner: Learner, learn: Validator) -> ServerLearner | None:
    """The server's own training on its learn split, if the settings ask for any."""
    specs = {phase: spec for phase in PHASES if (spec := settings.learn_spec(phase))}
    examples = ClientShard(0, tuple(learn.sft), tuple(learn.va))
    return ServerLearner(learner, examples, {name: _here(spec) for name, spec in specs.items()}) if specs else None


def _here(spec: TrainSpec) -> TrainSpec:
    """With the number of threads that this process has, where the settings name none."""
    return spec.model_copy(update={"threads": spec.threads or torch.get_num_threads()})


@dataclass(frozen=True, eq=False)
class PeftExport:
    """Writes an adapter in PEFT's format, with a model card."""

    settings: Settings
    model: LanguageModel
    manifest: Manifest
    run: RunFolder

    def __call__(self, adapter: Adapter, folder: Path) -> None:
        spec, plan = self.settings.model_spec(), plan_as_it_went(self.settings, self.run)
        cards = CardWriter(spec, self.model.made_of, plan, self.manifest)
        save_peft(self.model, adapter, folder, cards.adapter(adapter))
