"""`FederatedRun`: a federation from Python, its clients in this process or beside it; a loop over it is the run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Unpack

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.config import AUTO, Settings
from fccl.display.words import plural
from fccl.errors import FederationError, SettingsError
from fccl.federation.run import new_run
from fccl.federation.run_evaluation import starting_points
from fccl.federation.run_folder import RunFolder
from fccl.federation.state import RoundResult
from fccl.library.arguments import EvaluationArguments
from fccl.library.data import Data, Tell, Telling, quiet, require_no_other_data
from fccl.library.export import require_new, write_adapter
from fccl.library.given import WholeRunArguments, require_count, settings_from
from fccl.library.narrow import (
    arranged,
    begun,
    each_alone,
    evaluation_options,
    plan_as_it_went,
    recorded_settings,
    rounds_asked,
    settled,
)
from fccl.library.natural import require_shards, with_named_clients
from fccl.library.personal import require_own_steps
from fccl.library.places import require_apart
from fccl.library.privacy import require_learner
from fccl.library.setup import PreparedRun, prepared_run, workable
from fccl.library.side_by_side import side_by_side, transport_for
from fccl.library.standing import has_finished
from fccl.library.usage import record_usage
from fccl.messages import Learner, SeveralAtOnce
from fccl.model.loading import Models
from fccl.records.evaluation import EvaluationReport
from fccl.records.run import RunInfo, RunState
from fccl.specs import RoundPlan
from fccl.tracking.listener import Listeners, RunListener, Stop
from fccl.training.engines import learner_for
from fccl.transports.protocol import RunIdentity, Transport


class FederatedRun:
    """A federated run: rounds of SFT, then rounds of value alignment, weighed by contribution: `fed_rounds` of each, or
    `sft_rounds` and `va_rounds`, of which one may be 0.

    A loop over it is the run: each round is on the disk before its `RoundResult` is given. A loop that is left by
    `break`, Ctrl-C or an error leaves a run that can go on. The next loop over the same object,
    `FederatedRun(resume=True)` and `fccl run --resume` all go on with it. The last round done, the final adapter is in
    `log_dir`, in PEFT's format in `log_dir/adapter`. An earlier run in `log_dir` moves to `log_dir/runs/` first.

    The arguments have the settings' names (docs/settings.md), and the same settings give the same bytes as `fccl run`.
    One that is not given comes from `data`, the environment, `.env`, the preset or its default. `contribution_source`
    and `aggregation` also take a class of your own, which must be in a module's file. `resume` goes on with the run in
    `log_dir` and its settings. With `sft_rounds`, `va_rounds` or `fed_rounds` it has so many rounds from now on; more
    SFT rounds have the VA rounds done anew after them, which `redo_va` allows. `learner` trains in the place of our own
    (`fccl.messages.Learner`), at the server too where `learn_epochs` asks for it. `listener` hears of heartbeats and
    answers within a round (`fccl.tracking.listener.RunListener`), `tell` a line of each thing worth knowing; by default
    nothing is printed.

    With `client_column` the data is prepared at once: it says how many clients there are.

    Raises `SettingsError` for a setting that is unknown, out of range, without effect, or another than the data was
    prepared with or the resumed run has. So it does for a `data_dir` without the settings of the data in it, which
    would be replaced. The loop raises `DataError`, `ModelError`, `StorageError`, and
    `FederationError` when a round has too few good updates. FedIT: Zhang et al. 2023; value alignment by DPO: Rafailov
    et al. 2023.

    >>> import fccl
    >>> data = fccl.prepare(max_sft_examples=60, max_va_examples=30, num_clients=3)
    >>> run = fccl.FederatedRun(data, fed_rounds=1, log_dir="logs-of-mine")
    >>> for result in run:
    ...     record = result.record
    ...     print(record.phase, record.clients, round(sum(record.weights), 6))
    sft (0, 1, 2) 1.0
    va (0, 1, 2) 1.0
    >>> run.finished, run.adapter.sha256 == record.adapter_sha256
    (True, True)
    """

    _name: ClassVar[str] = "fccl.FederatedRun"
    _arguments: ClassVar[type] = WholeRunArguments
    _folders: ClassVar[tuple[str, ...]] = ("data_dir", "log_dir")
    _work: PreparedRun  # while a loop is at work

    def __init__(
        self,
        data: Data | None = None,
        *,
        resume: bool = False,
        redo_va: bool = False,
        learner: Learner | None = None,
        listener: RunListener | None = None,
        tell: Tell = quiet,
        **settings: Unpack[WholeRunArguments],
    ) -> None:
        given = self._given(data, settings)
        asked = settings_from(self._name, given, self._arguments)
        if why := self._each_alone(learner):
            asked = each_alone(asked, given, why)
        self._folder, self._tell = RunFolder.at(asked.log_dir), tell
        asked = asked if resume else self._with_named_clients(asked, given)
        fresh = asked if resume else settled(asked, tell, given)
        resume = resume or self._goes_on(fresh)
        decided = recorded_settings(self._folder, asked, given) if resume else begun(fresh, tell)
        self.settings = self._side_by_side(decided, given, learner)
        require_learner(self.settings, learner)
        self._other_rounds = rounds_asked(self._folder, self.settings, resume, redo_va)
        if not resume:
            require_no_other_data(self.settings, given)
        require_apart(self.settings, self._folders)
        self._tracker = workable(self.settings, self._folder)
        self._models = Models()
        self._own_learner = learner
        self._learner = learner or learner_for(self._models, self.settings.client_ranks)
        self._listener = Listeners([Teller(tell), *([listener] if listener else [])])
        info = self._folder.info() if resume else None
        self._identity = RunIdentity(info.run_id, info.created) if info else None  # None: it has not begun
        self._finished = info is not None and self._other_rounds is None and has_finished(self._folder)

    def __repr__(self) -> str:
        """Folder and rounds: what a notebook shows of it."""
        state = self._folder.state() if self._identity is not None else None
        done = f"{state.next_round if state else 0} of {plural(self.plan.total_rounds, 'round')}"
        return f"<{self._name} in {self.log_dir}/: {done}>"

    @property
    def log_dir(self) -> Path:
        """The folder of everything that the run writes; `fccl.read_run(run.log_dir)` reads it."""
        return self._folder.paths.root

    @property
    def plan(self) -> RoundPlan:
        """The number of rounds (`plan.total_rounds`), with those of phases that ended early, and of clients in each."""
        plan = self.settings.round_plan()
        return plan if self._identity is None else plan_as_it_went(self.settings, self._folder)

    @property
    def finished(self) -> bool:
        """Whether all rounds are done and the final adapter is written."""
        return self._finished

    @property
    def adapter(self) -> Adapter:
        """The global adapter after the last complete round; before the first, the one that the run starts from; of a
        finished run its result.

        Raises `FederationError` before the run has begun.

        >>> FederatedRun(resume=True).adapter.sha256 == load_adapter("logs/global_final.safetensors").sha256
        True
        """
        number, paths = self._state().next_round, self._folder.paths
        return load_adapter(paths.global_final if self._finished else paths.global_adapter(number))

    def __iter__(self) -> Iterator[RoundResult]:
        if self._finished:
            return
        with (
            self._at_work() as (work, transport),
            closing(work.run.rounds(transport, self._identity is not None)) as rounds,
        ):
            work.caution()
            try:
                yield from rounds
            finally:
                self._other_rounds = work.run.other_rounds
                self._identity = work.run.identity if work.run.state is not None else self._identity
            work.run.finish(transport)
            record_usage(self._folder.paths, work.run.identity.run_id, self.settings, evaluation=0.0)
            self._finished = True

    def train(self) -> Adapter:
        """Do all rounds that are left. Returns the final adapter; raises as the loop does.

        >>> FederatedRun(resume=True).train().sha256 == FederatedRun(resume=True).adapter.sha256
        True
        """
        for _ in self:
            pass
        return self.adapter

    def evaluate(
        self,
        *,
        sft: int = 0,
        va: int = 0,
        per_client: bool = False,
        skip_base: bool = False,
        **settings: Unpack[EvaluationArguments],
    ) -> EvaluationReport:
        """Base, SFT and FedVA on the test split: perplexity, exact answers, preference accuracy, each with its 95 %
        interval, and the differences on the same examples. For a run that has been left, its last round is the end.

        Takes at most `sft` instructions and `va` pairs; 0 takes all. `per_client` evaluates each client's own last
        update too. `settings` are those of the group evaluation, in the place of the run's. A finished run's report is
        also written to `log_dir/evaluation.md` and `.json`.

        Raises `FederationError` before the run has begun, `StorageError` when data or run were changed meanwhile.

        >>> report = FederatedRun(resume=True).evaluate(sft=6, va=6, gen_samples=0)
        >>> [model.name for model in report.models]
        ['base', 'SFT', 'FedVA']
        """
        require_count("sft", sft)
        require_count("va", va)
        clients = tuple(range(self.settings.num_clients)) if per_client else ()
        wanted = {"max_sft": sft, "max_va": va, "skip_base": skip_base, "per_client": clients}
        asked = settings_from(f"{self._name}.evaluate", settings, EvaluationArguments)
        own = self.settings.model_copy(update={name: getattr(asked, name) for name in settings})
        options = evaluation_options(own, self.settings.seed).model_copy(update=wanted)
        adapters = {} if self._finished else self._adapters_so_far()
        with self._prepared() as work:
            return work.evaluate(options) if self._finished else work.evaluated(adapters, options)

    def export(self, out: str | os.PathLike[str], *, merge: bool = False) -> Path:
        """Write the adapter of the last complete round in PEFT's format, or with `merge` base model and adapter as one
        plain model folder. Returns the folder.

        Raises `StorageError` when `out` exists, `FederationError` before the run has begun.

        >>> sorted(path.name for path in FederatedRun(resume=True).export("mine").iterdir())
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors']
        """
        adapter = self.adapter
        require_new(self.settings, Path(out))
        with self._prepared() as work:
            return write_adapter(self.settings, self.plan, work.model, work.manifest, adapter, Path(out), merge)

    @contextmanager
    def _at_work(self) -> Iterator[tuple[PreparedRun, Transport]]:
        """The folder held, the clients told which run it is, and all in its place."""
        seen = self._seen()
        with self._transport() as transport, self._folder.held(seen):
            identity = self._identity or new_run()
            transport.begin(identity)  # before the model is there: an idle client may remember another run's end
            with self._prepared(identity) as self._work:
                yield self._work, transport

    @contextmanager
    def _prepared(self, identity: RunIdentity | None = None) -> Iterator[PreparedRun]:
        model = self._models.of(self.settings.model_spec())
        with prepared_run(
            self.settings,
            self._folder,
            model,
            self._tracker,
            nullcontext(self._listener),
            Telling(self._tell),
            identity or self._identity,
            self._own_learner,
            self._other_rounds,
        ) as work:
            yield work

    def _transport(self) -> Transport:
        require_shards(self.settings)
        if self._identity is None and self.settings.clients_at_once != "1":
            own = self._own_learner is not None  # which decides by itself
            self.settings = arranged(self.settings, AUTO if own else self._models.of(self.settings.model_spec()).engine)
        return transport_for(self.settings, self._learner, lambda: self._work, models=self._models)

    def _side_by_side(self, settings: Settings, given: Mapping[str, Any], learner: Learner | None) -> Settings:
        """The settings with the processes and threads that the clients train with."""
        require_own_steps(settings, learner)
        return side_by_side(
            settings, given, f"{type(learner).__name__} is an object of this process" if learner else ""
        )

    def _with_named_clients(self, asked: Settings, given: Mapping[str, Any]) -> Settings:
        """The settings with the number of clients that the data names, which is prepared for that."""
        if not asked.client_column:
            return asked
        require_no_other_data(asked, given)
        require_apart(asked, self._folders)
        return with_named_clients(asked, Telling(self._tell))

    def _each_alone(self, learner: Learner | None) -> str:
        """Why clients cannot train in one batch, if they cannot."""
        takes_several = learner is None or isinstance(learner, SeveralAtOnce)
        return "" if takes_several else f"{type(learner).__name__} has no fit_together, so it trains one at a time"

    def _seen(self) -> RunInfo | None:
        """The run in the folder. Raises `FederationError` when this one has begun and another is there now."""
        info = self._folder.info()
        if self._identity is not None and (info is None or info.run_id != self._identity.run_id):
            raise FederationError(
                f"{self.log_dir} no longer holds run {self._identity.run_id}",
                hint="an archived run goes on where it is: log_dir=…/runs/<run id>, resume=True",
            )
        return info

    def _state(self) -> RunState:
        self._seen()
        state = self._folder.state()
        if self._identity is None or state is None:
            raise FederationError("the run has not begun", hint="loop over it, or call train()")
        return state

    def _adapters_so_far(self) -> dict[str, Adapter | None]:
        state, paths = self._state(), self._folder.paths
        sft = {"SFT": load_adapter(paths.global_sft)} if 0 < state.first_va < state.next_round else {}
        return {**starting_points(paths), **sft, f"round {state.next_round}": self.adapter}

    def _goes_on(self, settings: Settings) -> bool:
        """Whether the run in the folder goes on though nobody asked for it."""
        return False

    def _given(self, data: Data | None, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with those that the data was prepared with. Raises `SettingsError` where they differ."""
        if data is not None and not isinstance(data, Data):
            raise SettingsError(
                f"{self._name} takes prepared data, not {type(data).__name__}", hint="data = fccl.prepare(…)"
            )
        prepared = data.arguments if data else {}
        for name in sorted(prepared.keys() & settings.keys()):
            if prepared[name] != settings[name]:
                raise SettingsError(
                    f"{name}={settings[name]!r}: the data was prepared with {prepared[name]!r}", hint="leave it out"
                )
        return {**prepared, **settings}


class Teller(RunListener):
    """Passes lines on, and says how a run that was left goes on."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def told(self, line: str) -> None:
        self._tell(line)

    def stopped(self, stop: Stop) -> None:
        on = " Loop over it again, or use resume=True, to go on." if stop.resumable else ""
        self._tell(f"Stopped with {stop.complete} of {plural(stop.total, 'round')} complete.{on}")
