"""`Run`: a federation in a log folder, round by round. It begins or goes on, commits, finishes, and says how it ended.

    run = Run(federation, RunFolder.at(Path("logs")), lambda: model.initial_adapter(42))
    with transport:
        for result in run.rounds(transport):
            print(result.record.round, result.record.validation)
        run.finish(transport)

A loop that is left early leaves a run that can be resumed: `run.rounds(transport, resume=True)` goes on.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from fccl import __version__, phases
from fccl.adapters.adapter import Adapter, load_adapter
from fccl.display.words import plural
from fccl.errors import AdapterError, FcclError, FederationError, SettingsError, StorageError
from fccl.federation.first_round import loss_before, warning
from fccl.federation.keeper import USUAL_MB, Keeper
from fccl.federation.late import is_late
from fccl.federation.more_rounds import OtherRounds, clear_end
from fccl.federation.own_tests import OwnTests
from fccl.federation.planned import take_plan
from fccl.federation.rounds import Federation
from fccl.federation.run_folder import RunFolder
from fccl.federation.seal import Sign, seal_run
from fccl.federation.server_noise import ServerNoise
from fccl.federation.state import FederationState, RoundResult
from fccl.federation.stopwatch import Stopwatch
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.paths import DataPaths
from fccl.records.evaluation import EvaluationReport
from fccl.records.journal import read_rounds
from fccl.records.run import ClientMetrics, ClientStatus, EventName, PhaseEnd, RunEvent, RunInfo, Validation
from fccl.records.sent import bytes_line
from fccl.specs import Phase, RoundPlan
from fccl.storage.files import sha256_of, write_bytes
from fccl.tracking.listener import RunListener, Stop
from fccl.tracking.tracker import base_so_far, rounds_so_far
from fccl.transports.protocol import Listener, RunIdentity, Transport

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy")  # whose versions a run writes down


def ignore(status: ClientStatus) -> None:
    """Hears a heartbeat and does nothing."""


def new_run() -> RunIdentity:
    """A name for a run that begins now."""
    return RunIdentity(time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex(), time.time())


@dataclass(eq=False)
class Run:
    """One run and all that it writes, whatever carries its tasks.

    `federation` has the rules, the clients' training and the validation; its `run_id`, `on_answer` and `keep_control`
    become this run's. `fresh` gives an adapter that changes nothing, with which round 0 begins unless `start_from`
    gives another one. `data` is where prepared data lies that must not change meanwhile, if there is any. `export`
    writes the final adapter in another form, to the folder that it is given.
    """

    federation: Federation
    folder: RunFolder
    fresh: Callable[[], Adapter]
    listener: RunListener = field(default_factory=RunListener)
    data: DataPaths | None = None
    settings: Mapping[str, str] = field(default_factory=dict)  # written down, and never read here
    rules: Mapping[str, str] = field(default_factory=dict)  # somebody's own, with their files' hashes
    identity: RunIdentity = field(default_factory=new_run)
    export: Callable[[Adapter, Path], None] | None = None
    keep_updates_mb: int = USUAL_MB
    start_from: Callable[[], Adapter] | None = None
    start_named: str = "START_FROM"  # where that adapter comes from
    other_rounds: OtherRounds | None = None  # of the run in the folder, which is to have those of this plan from now on
    own_tests: OwnTests | None = None  # asked for at the end of each phase
    sign: Sign | None = None  # signs the seal of the finished run with the server's key
    state: FederationState | None = field(default=None, init=False)  # after the last complete round
    _base: Validation | None = field(default=None, init=False)  # the start adapter on the validation split
    _watch: Stopwatch = field(default_factory=Stopwatch, init=False)

    def __post_init__(self) -> None:
        self._data_sha256 = sha256_of(self.data.manifest) if self.data else ""
        self._keeper = Keeper(self.folder.paths, self.keep_updates_mb, self.listener.told)

    @property
    def plan(self) -> RoundPlan:
        """The numbers of rounds, with those of phases that ended early, and of clients in each."""
        return self.federation.plan.as_it_went(self.state.early if self.state else {})

    def rounds(self, transport: Transport, resume: bool = False) -> Generator[RoundResult, None, None]:
        """All rounds of a new run, or with `resume` those that are left of the one in the folder. Each is on the disk
        before it is given.

        Raises `FederationError` where there is nothing to resume, or a round has too few good updates.
        """
        self.state, announce = self._resumed() if resume else self._started()
        with self._how_it_stopped():  # from here on there is a run that can say so
            announce()
            if (privacy := self.federation.privacy) is not None:
                privacy.begin(self.identity.run_id, self.state.next_round, resume)
            heard = ignore if self._drawn_in_secret else self._heard
            transport.begin(self.identity, Listener(heard, self.listener.told))
            for result in self._federation().run(self.state, self._watch.transport(transport)):
                taken = self._watch.taken(result.record)
                spent = {} if self._drawn_in_secret else {"spent": taken}
                timed = replace(result, record=result.record.model_copy(update=spent))
                tested = self._tested(timed, transport)
                self._commit(tested)
                yield tested

    def finish(self, transport: Transport) -> Adapter:
        """Tell the clients that the run is done and write the final adapter. Returns it.

        Raises `FederationError` before the run has begun, `StorageError` when it or its data are no longer there.
        """
        if self.state is None:
            raise FederationError("the run has not begun", hint="iterate over its rounds first")
        adapter = self.state.result
        transport.finish(self.identity.run_id, self.state.next_round, adapter)
        adapter.save(self.folder.paths.global_final)
        if said := bytes_line(read_rounds(self.folder.paths)):
            self.listener.told(said)
        if self.export is not None:
            self.export(adapter, self.folder.paths.adapter)
        self.require_here()
        done = self._record("finished")
        seal_run(self.folder.paths, self.identity.run_id, done.model_dump_json(), self.sign)
        self.folder.journal.write(done)
        self.listener.finished()
        return adapter

    def evaluated(self, report: EvaluationReport) -> None:
        """The run is evaluated, and the report is about to be written: once that is there it is not made again.

        Raises `StorageError` when the run or its data are no longer there.
        """
        self.require_here()
        self.listener.evaluated(report)

    def require_here(self) -> None:
        """Raises `StorageError` unless the run and its data are where they were."""
        self.folder.require_here(self.identity.run_id)
        if self.data is not None and sha256_of(self.data.manifest) != self._data_sha256:
            raise StorageError(
                f"the data in {self.data.root}/ was changed while the run was at work",
                hint="prepare it again with the run's settings",
            )

    def _tested(self, result: RoundResult, transport: Transport) -> RoundResult:
        """The result, with what clients report of their own tests where the round ends its phase."""
        train = self.federation.train[result.record.phase]
        ended = self.federation.plan.as_it_went(result.state.early).ends_phase(result.record.round)
        if self.own_tests is None or not ended:
            return result
        return self.own_tests.with_results(result, self.plan, train, self._first, transport, self.listener.told)

    def _first(self) -> Adapter:
        """The adapter that round 0 began with."""
        info = self.folder.info()
        return load_adapter(self.folder.paths.start) if info and info.start_sha256 else self.fresh()

    def _federation(self) -> Federation:
        validate, by_example = self.federation.validate, self.federation.by_example
        return replace(
            self.federation,
            validate=validate and self._watch.validation(validate),
            by_example=by_example and self._watch.validation(by_example),
            run_id=self.identity.run_id,
            on_answer=self._answered if self._drawn_in_secret else self.listener.answer,
            tell=self.listener.told,
            keep_control=self.folder.keep_control,
            learn=self.federation.learn and replace(self.federation.learn, on_status=self.listener.learning),
        )

    @property
    def _drawn_in_secret(self) -> bool:
        """Whether nobody may hear whom a round asks."""
        return isinstance(self.federation.privacy, ServerNoise)

    def _answered(self, answer: Answer) -> None:
        """Of clients drawn in secret the screen says only what has failed."""
        if isinstance(answer, ClientFailure) and not answer.declines:
            self.listener.answer(answer)

    def _started(self) -> tuple[FederationState, Callable[[], None]]:
        """Begin a new run; one that was here moves to `runs/`. Returns its state, and what tells the listener of it."""
        fresh, given = self.fresh(), self.start_from and self.start_from()  # which may lie in the folder of that run
        # before the run is there to be resumed, so that a kill does not lose it, and before an earlier one is moved
        base, start = self._on_instructions(fresh), self._on_start(given) if given else None
        self._base = start or base
        if earlier := self.folder.archive():
            self.listener.told(f"The run that was here is kept in {self.folder.paths.archive / earlier}/.")
        info = self._info(given.sha256 if given else "")
        if self.data is not None:
            write_bytes(self.folder.paths.manifest, self.data.manifest.read_bytes())
        event = self._record("started").model_copy(update={"validation": base, "start": start})
        state = self.folder.start(info, self.plan, given or fresh, event)
        take_plan(self.folder.paths, self.settings)

        def announce() -> None:
            self.listener.started(info, base)
            self.listener.told(self._keeper.promise(state.adapter, self.plan))
            for line in _beginning(info, base, start, self.plan, self.start_named):
                self.listener.told(line)

        return state, announce

    def _on_instructions(self, adapter: Adapter) -> Validation | None:
        validate = self.federation.validate
        return validate("sft", adapter, None) if validate else None

    def _on_start(self, given: Adapter) -> Validation | None:
        """The loss under the adapter that START_FROM names. Raises `SettingsError` where it is not finite."""
        try:
            return self._on_instructions(given)
        except AdapterError as error:
            raise SettingsError(
                "START_FROM: under this adapter the model's log-probabilities are not finite, before any round",
                hint="start from another adapter, such as one of an earlier round, or leave START_FROM out",
            ) from error

    def _resumed(self) -> tuple[FederationState, Callable[[], None]]:
        """Go on with the run that is here. Returns its state, and what tells the listener of it."""
        info = self.folder.info()
        if info is None or info.data_sha256 != self._data_sha256:
            raise FederationError(
                "the data was prepared anew since the run began",
                hint="prepare it with the run's settings, or start a new run",
            )
        if info.chat_template != self.federation.model.text.template:
            raise FederationError(
                "the chat template of the model is no longer the one that the run began with",
                hint="put the tokenizer's files back, or start a new run",
            )
        self.identity = RunIdentity(info.run_id, info.created)
        if other := self.other_rounds:
            other.apply(info, self.settings)
        self.state = state = self.folder.resume()
        clear_end(self.folder.paths, self.folder.state_here())
        self._keeper.tidy(state.next_round)
        for line in other.lines() if other else ():
            self._event("extended", line)
            self.listener.told(line)
        self.other_rounds = None
        self._event("resumed")
        past = list(rounds_so_far(self.folder.paths))
        base = self._base = base_so_far(self.folder.paths)
        return state, lambda: self.listener.resumed(info, base, past, state.next_round)

    def _commit(self, result: RoundResult) -> None:
        """Everything of a round, and last that it is complete."""
        self.folder.require_here(self.identity.run_id)
        self._keeper.keep(result)
        reported = result.updates if self.federation.privacy is None else ()
        metrics = [_metrics(update, result.inputs.task) for update in reported]
        for line in metrics:
            self.folder.journal.write(line)
        self.folder.commit(result, self.plan)
        self.state = result.state
        self.listener.round(result.record, metrics)
        before = loss_before(result.inputs.task, self._base)
        if said := warning(result.record, before, self.federation.train[result.record.phase].learning_rate):
            self.listener.told(said)
        if end := result.record.phase_end:
            self.listener.told(_ended(result.record.phase, end))

    @contextmanager
    def _how_it_stopped(self) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit):  # the latter of a loop that was left
            if self._complete < self.plan.total_rounds:
                self._stopped("interrupted")
            raise
        except FcclError as error:
            self._stopped("failed", str(error), error.resumable)
            raise

    def _stopped(self, event: EventName, message: str = "", resumable: bool = True) -> None:
        with suppress(FcclError):  # the disk may be the very reason
            self.folder.require_here(self.identity.run_id)
            self._event(event, message)
        can_go_on = resumable and self.folder.info() is not None
        self.listener.stopped(Stop(self._complete, self.plan.total_rounds, can_go_on))

    def _heard(self, status: ClientStatus) -> None:
        self.listener.status(status)
        self.folder.journal.heartbeat(status)

    @property
    def _complete(self) -> int:
        return self.state.next_round if self.state else 0

    def _info(self, start_sha256: str) -> RunInfo:
        return RunInfo(
            run_id=self.identity.run_id,
            created=self.identity.created,
            settings=dict(self.settings),
            data_sha256=self._data_sha256,
            rules=dict(self.rules),
            start_sha256=start_sha256,
            chat_template=self.federation.model.text.template,
            versions={"fccl": __version__, "python": platform.python_version()}
            | {name: version(name) for name in PACKAGES},
        )

    def _event(self, event: EventName, message: str = "") -> None:
        self.folder.journal.write(self._record(event, message))

    def _record(self, event: EventName, message: str = "") -> RunEvent:
        return RunEvent(
            event=event,
            run_id=self.identity.run_id,
            time=time.time(),
            round=self._complete,
            message=message,
        )


def _beginning(
    info: RunInfo, base: Validation | None, start: Validation | None, plan: RoundPlan, named: str
) -> Iterator[str]:
    """Lines on what a new run starts from, where that is not a fresh adapter and SFT."""
    if info.start_sha256:
        loss = f", validation loss {start.loss:.3f} {phases.of('sft').short_unit}" if start else ""
        yield f"The run starts from the adapter {info.start_sha256[:12]} ({named}){loss}; LOG_DIR keeps it."
    if start and base and start.loss > base.loss:
        yield (
            f"That loss is above the base model's {base.loss:.3f}: the adapter may be another model's or have diverged."
        )
    if plan.rounds_of("sft") == 0:
        policy = "that adapter" if info.start_sha256 else "the base model, an adapter with B = 0"
        yield f"No SFT round (SFT_ROUNDS=0): the reference policy of the VA rounds is {policy}."


def _ended(phase: Phase, end: PhaseEnd) -> str:
    """A line on a phase that has ended, where PATIENCE or RESULT_ROUND had a say."""
    why = ": PATIENCE rounds without a gain of the validation loss beyond its noise" if end.early else ""
    return (
        f"{phases.of(phase).title} ends after {plural(end.rounds, 'round')}{why}. Its result is the adapter of round "
        f"{end.result_round + 1}."
    )


def _metrics(update: ClientUpdate, task: FitTask) -> ClientMetrics:
    return ClientMetrics(
        run_id=update.run_id,
        time=time.time(),
        round=task.round,
        phase=update.phase,
        client_id=update.client_id,
        **update.contribution.model_dump(),
        **update.report.model_dump(),
        update_norm=update.change_from(task.adapter),
        trained_for=update.round if is_late(update, task) else None,
    )
