"""The federation: rounds of selecting clients, sending a task, weighing the answers, aggregating.

It knows neither how a task travels (`Transport`) nor what training is (`Learner`, behind the transport).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fccl import phases
from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import distance
from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.lora_mean import lora_error
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts
from fccl.aggregation.scaffold import SCAFFOLD, Controls, corrections
from fccl.contribution.protocol import NO_LOSS, Weigher, Weighing, with_memory
from fccl.contribution.reported import effective_clients
from fccl.contribution.stretch import as_weighed
from fccl.errors import AdapterError, BadAggregate, FederationError
from fccl.federation.arrived import arrived, sent
from fccl.federation.bounds import medians, require_usable, too_long
from fccl.federation.declared import Declared, OwnData
from fccl.federation.down import begun, is_shorter, rounded
from fccl.federation.gathering import gathered
from fccl.federation.judging import judged
from fccl.federation.late import Pending, as_counted, by_client, discounted, late_updates, recorded, still_missing
from fccl.federation.members import Members, Moves, after_news
from fccl.federation.next_controls import KeepControl, next_controls
from fccl.federation.privacy import RunPrivacy
from fccl.federation.quorum import declined_clients, failed_clients, reasons, too_few
from fccl.federation.secure_aggregation import SecureAggregation, SecureSum
from fccl.federation.selection import select_clients
from fccl.federation.server_learning import ServerLearner, failed
from fccl.federation.server_noise import Released, ServerNoise
from fccl.federation.state import FederationState, RoundInputs, RoundResult, SettledRound
from fccl.federation.suspects import suspects
from fccl.federation.watch import LossByExample, Watch
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.records.run import ExampleLosses, RoundRecord, Validation, Watched
from fccl.specs import ModelSpec, Phase, RoundPlan, TrainSpec
from fccl.transports.protocol import Transport

Validate = Callable[[Phase, Adapter, Adapter | None], Validation]


@dataclass(frozen=True, eq=False)
class Federation:
    """All that stays the same over a run.

    `keep_control` puts the c_i of an update where it outlives the round, and returns it from there.
    """

    run_id: str
    plan: RoundPlan
    model: ModelSpec
    train: Mapping[Phase, TrainSpec]
    rule: Weigher
    aggregation: Aggregation = field(default_factory=FedAvg)
    validate: Validate | None = None
    by_example: LossByExample | None = None  # on the validation split, for PATIENCE
    learn: ServerLearner | None = None  # trains the aggregate on the server's own examples
    on_answer: Callable[[Answer], None] = lambda answer: None
    keep_control: KeepControl = lambda update: update.control
    known_samples: Mapping[Phase, Mapping[int, int]] = field(default_factory=dict)  # where shards' sizes are known
    privacy: RunPrivacy | None = None  # differential privacy of clients
    secure: SecureAggregation | None = None  # updates are masked, and known by their sum alone
    own: OwnData | None = None  # where clients hold their own data, and declare how much
    tell: Callable[[str], None] = lambda line: None  # hears what a person should read

    def run(self, state: FederationState, transport: Transport) -> Iterator[RoundResult]:
        """All rounds from `state.next_round` on. Raises `FederationError` when a round has too few good updates."""
        while state.next_round < self.plan.as_it_went(state.early).total_rounds:
            result = replace(self, plan=self.plan.as_it_went(state.early)).run_round(state, transport)
            state = result.state
            yield result

    def run_round(self, state: FederationState, transport: Transport) -> RoundResult:
        """One round. The result does not depend on the order in which the answers arrive."""
        started = time.monotonic()
        state, moves = self._with_news(self._opened(state), transport)
        task = self._task(state)
        state, able, silent = self._able(state, task, transport)
        judge = partial(self._judged, state.declared)
        sums = self.secure
        secured = sums.summed(task, able, transport, judge, self.on_answer) if sums else None
        updates, excluded = (
            secured.none if secured else gathered(task, able, transport, partial(judge, task), self.on_answer)
        )
        late = self._late(state, task, updates, transport)
        counted = as_counted(task, by_client(updates, late), state.pending)
        failures = [failure for failure in excluded if failure.client_id not in {each.client_id for each in late}]
        far_out = too_long(counted, self.plan.max_update_ratio, state.norms)
        settled = self._settle(state, task, *self._exclude(counted, [*failures, *silent], far_out), secured)
        settled = self._rounded(state, task, settled) if is_shorter(task) else settled
        inputs = self._inputs(state, task, by_client(updates, late), settled.weighing)
        watch, watched = self._watched(state, task, settled)
        after = self._state_after(state, settled, watch, still_missing(excluded, task.adapter))
        selected = tuple(sorted([*able, *(failure.client_id for failure in silent)]))
        record = self._record(inputs, selected, settled, state.declared, started)
        end = after.phase_end(self.plan) if self.plan.watches else None
        said = {"watched": watched, "phase_end": end, "joined": moves.joined, "left": moves.left}
        whole = tuple(update.with_frozen(task.adapter) for update in settled.updates)
        result = RoundResult(record.model_copy(update=said), settled.aggregated.weights, whole, after, inputs)
        result = secured.shown(result) if secured else result
        return self.privacy.result(result, state, able, settled.clip, self.tell) if self.privacy else result

    def _with_news(self, state: FederationState, transport: Transport) -> tuple[FederationState, Moves]:
        """The state with the members that an open federation has from this round on, and who has moved."""
        if not self.plan.open:
            return state, Moves()
        members = state.members or Members(tuple(range(self.plan.num_clients)))
        may_join = None if self.own is not None else range(self.plan.num_clients)
        members, moves = after_news(members, transport.news(members.heard), may_join, self.tell)
        return replace(state, members=members), moves

    def _able(
        self, state: FederationState, task: FitTask, transport: Transport
    ) -> tuple[FederationState, tuple[int, ...], list[ClientFailure]]:
        """The state with what the round's clients declare, those that can train, and those that have not declared."""
        without = {client for client, samples in self.known_samples.get(task.phase, {}).items() if samples == 0}
        without |= {client for client, said in state.declared.items() if said.samples(task.phase) == 0}
        selected = self._selected(state, without)
        if self.own is None:
            return state, selected, []
        declared, silent = self.own.ask(task, selected, state.declared, transport, self.tell)
        for failure in silent:
            self.on_answer(failure)
        able = (client for client in selected if self._has_some(client, declared, task.phase))
        return replace(state, declared=declared), tuple(able), silent

    def _has_some(self, client: int, declared: Declared, phase: Phase) -> bool:
        """Whether a client has examples of the phase, by its shard or by its word."""
        return bool(self._known(declared, phase, client)[0])

    def _selected(self, state: FederationState, without: Collection[int]) -> tuple[int, ...]:
        """The clients that a round asks. Raises `FederationError` where the privacy budget does not allow it."""
        if self.privacy is None:
            return select_clients(self.plan, state.next_round, without, state.here)
        self.privacy.require_room(self.run_id, state)
        return self.privacy.selected(self.run_id, state, without)

    def _known(self, declared: Declared, phase: Phase, client_id: int) -> tuple[int | None, str]:
        """A client's number of examples in a phase, where it is known, and from where."""
        if self.own is not None and client_id in declared:
            return declared[client_id].samples(phase), "it declared"
        return self.known_samples.get(phase, {}).get(client_id), "its shard has"

    def _judged(self, declared: Declared, task: FitTask, answer: Answer) -> Answer:
        return judged(task, answer, *self._known(declared, task.phase, answer.client_id))

    def _opened(self, state: FederationState) -> FederationState:
        """The state as its round begins. A phase begins with the aggregation rule's own state, without memory and
        controls, and with nothing watched. VA begins with its reference: the result of the phase before.
        """
        if not self.plan.begins_phase(state.next_round):
            return state
        phase = self.plan.phase_of(state.next_round)
        adapter = state.result if state.reference is None else state.reference
        reference = adapter if phase == "va" else None
        anchor = self._by_example(phase, adapter, self._reference(phase, reference))
        server, seed = self.aggregation.initial(adapter), self.plan.seed if state.next_round == 0 else None
        down = begun(self.train[phase].codec, state.down, state.adapter, adapter, seed)
        opened = replace(state, adapter=adapter, reference=reference, server=server, watch=Watch(anchor=anchor))
        return replace(opened, controls={}, memory={}, pending=None, down=down)

    def _reference(self, phase: Phase, adapter: Adapter | None) -> Adapter | None:
        """The reference, where the phase's loss takes one."""
        return adapter if phases.takes_reference(phase, self.train[phase].preference) else None

    def _by_example(self, phase: Phase, adapter: Adapter, reference: Adapter | None) -> ExampleLosses | None:
        return self.by_example(phase, adapter, reference) if self.plan.patience and self.by_example else None

    def _watched(self, state: FederationState, task: FitTask, settled: SettledRound) -> tuple[Watch, Watched | None]:
        loss = settled.validation.loss if settled.validation else None
        losses = self._by_example(task.phase, settled.adapter, task.reference)
        return state.watch.after(self.plan, task.round, settled.adapter, loss, losses)

    def _record(
        self, inputs: RoundInputs, selected: tuple[int, ...], settled: SettledRound, declared: Declared, started: float
    ) -> RoundRecord:
        task, weighing, aggregated = inputs.task, settled.weighing, settled.aggregated
        clients = tuple(update.client_id for update in settled.updates)
        return RoundRecord(
            run_id=self.run_id,
            time=time.time(),
            round=task.round,
            phase=task.phase,
            selected=selected,
            clients=clients,
            weights=weighing.weights,
            scores=weighing.scores,
            contributions=tuple(update.contribution for update in settled.updates),
            stretch=weighing.stretch,
            excluded=failed_clients(settled.excluded),
            declared=self.own.record(clients, declared, task.phase) if self.own else (),
            declined=declined_clients(settled.excluded),
            arrived=tuple(map(arrived, inputs.arrived)),
            late=recorded(task, inputs.arrived),
            effective_clients=effective_clients(weighing.weights),
            aggregation=self.aggregation.name,
            counted=None if aggregated.weights == weighing.weights else aggregated.weights,
            lora_error=lora_error(self.aggregation, task.adapter, settled.parts, aggregated),
            validation=settled.validation,
            verification=weighing.verification,
            learning=settled.learning,
            sent=sent(task, inputs.arrived, aggregated.adapter),
            adapter_sha256=settled.adapter.sha256,
            update_norm=distance(settled.adapter, task.adapter),
            seconds=time.monotonic() - started,
        )

    def _task(self, state: FederationState) -> FitTask:
        phase, share = self.plan.phase_of(state.next_round), self.plan.learning_rate_share(state.next_round)
        reference = self._reference(phase, state.reference)
        told = corrections(state.controls, state.adapter.form) if self.aggregation.name == SCAFFOLD else None
        return FitTask(
            self.run_id,
            state.next_round,
            phase,
            state.adapter,
            reference,
            self.model,
            self.train[phase].with_share(share),
            self.plan.seed,
            told,
            self.privacy.spec if self.privacy else None,
            state.down.content if state.down else None,
        )

    def _late(
        self, state: FederationState, task: FitTask, updates: Sequence[ClientUpdate], transport: Transport
    ) -> list[ClientUpdate]:
        """Answers to the round before of clients that were given up in it and have none in this one, checked alike."""
        clients = state.pending.without(updates, state.here) if state.pending else ()
        if not clients or state.pending is None:
            return []
        earlier = self._task(replace(state, next_round=task.round - 1, adapter=state.pending.adapter))
        answers = (self._judged(state.declared, earlier, answer) for answer in transport.late(earlier, clients))
        found = late_updates(answers, clients, self.tell)
        for update in found:
            self.on_answer(update)
        return found

    def _exclude(
        self, updates: Sequence[ClientUpdate], excluded: Sequence[ClientFailure], reasons: Mapping[int, str]
    ) -> tuple[list[ClientUpdate], list[ClientFailure]]:
        """Both lists once the clients of `reasons` have moved from one to the other, in client order."""
        failures = [ClientFailure(client_id, reason) for client_id, reason in reasons.items()]
        for failure in failures:
            self.on_answer(failure)
        kept = [update for update in updates if update.client_id not in reasons]
        return kept, sorted([*excluded, *failures], key=lambda failure: failure.client_id)

    def _settle(
        self,
        state: FederationState,
        task: FitTask,
        updates: list[ClientUpdate],
        excluded: list[ClientFailure],
        secured: SecureSum | None,
    ) -> SettledRound:
        """Weigh, aggregate and validate. Where that comes to nothing that can be used, it is done once more without
        those who brought it there.

        Raises `FederationError` when too few are left, or nobody in particular brought it there.
        """
        released = self.privacy.released if isinstance(self.privacy, ServerNoise) else None
        if one := secured or (released and released(task, updates, len(updates) + len(excluded), state.clip)):
            return self._settle_as_one(one, state, task, excluded)
        rule = with_memory(self.rule, state.memory)
        while True:
            self._require_quorum(task, updates, excluded)
            whole = [update.with_frozen(task.trained) for update in updates]
            weighing = rule.weigh(task, self.own.weighed(whole, state.declared) if self.own else whole)
            if weighing.unfit:
                updates, excluded = self._exclude(
                    updates, excluded, {updates[index].client_id: NO_LOSS for index in weighing.unfit}
                )
                self._require_quorum(task, updates, excluded)
            try:
                weighing = discounted(task, updates, weighing)
                parts = Parts(weighing.weights, as_weighed(task, updates, weighing.stretch))
                aggregated = self._aggregate(state, parts)
                validation = self._validated(task, aggregated.adapter)
            except BadAggregate as error:
                updates, excluded = self._exclude(
                    updates, excluded, suspects(task, updates, error, partial(self._validated, task))
                )
                continue
            clients = tuple(updates), tuple(excluded)
            return self._learned(
                task, SettledRound(*clients, weighing, parts, aggregated, aggregated.adapter, validation)
            )

    def _settle_as_one(
        self,
        released: Released | SecureSum,
        state: FederationState,
        task: FitTask,
        excluded: Sequence[ClientFailure],
    ) -> SettledRound:
        """One update in the place of all, noised or of a secure sum: nothing from here on looks at a single one."""
        parts = Parts((1.0,), (released.adapter,))
        aggregated = self._aggregate(state, parts)
        validation = self._validated(task, aggregated.adapter)
        said = Weighing((1.0,), (1.0,)), parts, aggregated, aggregated.adapter, validation
        return self._learned(task, SettledRound((), tuple(excluded), *said, clip=released.clip))

    def _learned(self, task: FitTask, settled: SettledRound) -> SettledRound:
        """The same once the server has learned from its own examples, if it does. No client is to blame from here on.

        Raises `FederationError` when it comes to nothing that can be used.
        """
        if self.learn is None:
            return settled
        learner = self.learn.with_share(self.plan.learning_rate_share(task.round))
        adapter, said = learner.learn(task, settled.adapter, settled.validation)
        try:
            require_usable(adapter, "the adapter that it ends with")
            return replace(settled, adapter=adapter, validation=self._validated(task, adapter), learning=said)
        except BadAggregate as error:
            raise failed(task, str(error)) from error

    def _rounded(self, state: FederationState, task: FitTask, settled: SettledRound) -> SettledRound:
        """The same with the next adapter as the clients will have it. Raises `BadAggregate` when that is of no use."""
        adapter, down = rounded(task, state.down, settled.adapter, task.round + 1 == self.plan.total_rounds)
        require_usable(adapter, f"UPDATE_CODEC={task.train.codec.name}: the next adapter")
        validation = settled.validation if adapter is settled.adapter else self._validated(task, adapter)
        return replace(settled, adapter=adapter, down=down, validation=validation)

    def _require_quorum(
        self, task: FitTask, updates: Sequence[ClientUpdate], excluded: Sequence[ClientFailure]
    ) -> None:
        """Raises `FederationError` when so many updates are too few, for `MIN_CLIENTS` or for the rule, with who is
        missing and why.
        """
        if len(updates) < self.plan.min_clients:
            raise too_few(task, len(updates), self.plan.min_clients, excluded)
        try:
            self.aggregation.require(len(updates))
        except FederationError as error:
            raise FederationError(f"round {task.round + 1}: {error}{reasons(excluded)}", hint=error.hint) from error

    def _validated(self, task: FitTask, adapter: Adapter) -> Validation | None:
        """On the server's validation split, if there is one. Raises `BadAggregate` where that is no finite number."""
        try:
            return self.validate(task.phase, adapter, task.reference) if self.validate else None
        except AdapterError as error:
            raise BadAggregate(str(error), error.hint, error.resumable) from error

    def _aggregate(self, state: FederationState, parts: Parts) -> Aggregated:
        """Raises `BadAggregate` when no client could start from it."""
        aggregated = self.aggregation.aggregate(state.adapter, parts, state.server)
        require_usable(aggregated.adapter, f"AGGREGATION={self.aggregation.name}: the aggregated adapter")
        return aggregated

    def _state_after(
        self, state: FederationState, settled: SettledRound, watch: Watch, missing: Pending | None
    ) -> FederationState:
        number, phase = state.next_round, self.plan.phase_of(state.next_round)
        stops = 0 < self.plan.patience <= watch.waited and not self.plan.ends_phase(number)
        early = {phase: number + 1 - self.plan.first_round(phase)} if stops else {}
        ends = stops or self.plan.ends_phase(number)
        after = FederationState(
            next_round=number + 1,
            adapter=settled.adapter,
            reference=state.reference,
            server=settled.aggregated.state,
            controls=self._controls_after(state, settled),
            norms=medians(settled.updates, state.norms),
            declared=state.declared,
            watch=watch,
            early={**state.early, **early},
            clip=state.clip,
            members=state.members,
            pending=missing if self.plan.late_updates == "next" and not ends else None,
            down=settled.down,
            memory=settled.weighing.memory,
        )
        return replace(after, reference=after.result) if phase == "sft" and ends else after

    def _controls_after(self, state: FederationState, settled: SettledRound) -> Controls:
        if self.aggregation.name != SCAFFOLD:
            return {}
        sent = settled.updates, settled.weighing.weights
        return next_controls(state.controls, *sent, self.plan.num_clients, self.keep_control)

    def _inputs(
        self, state: FederationState, task: FitTask, updates: Sequence[ClientUpdate], weighing: Weighing
    ) -> RoundInputs:
        share = self.plan.learning_rate_share(task.round)
        learn = self.learn.with_share(share).train[task.phase] if self.learn else None
        before = state.pending.adapter if state.pending and recorded(task, updates) else None
        given, last = (state.server, state.controls, state.norms), (before, state.down.lag if state.down else None)
        return RoundInputs(task, *given, tuple(updates), weighing.examples, learn, *last, state.memory)
