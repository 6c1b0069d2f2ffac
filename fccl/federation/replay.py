"""Replay: a finished run aggregated again from its kept updates, by other rules or without some clients. Nobody trains.

The updates of later rounds were trained from the run's own global adapters. A replay under other rules has others, so
each update's change is made from the replay's adapter (`fccl.federation.carried`): a guess, and every output says so.
With the run's own rules nothing is carried, and every round has the bytes that it had.

`aggregated_again` is the one way from a kept round to its aggregate. A kind of update that cannot be aggregated again,
or only with something else at hand, says so there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fccl.adapters.adapter import Adapter, adapter_file, load_adapter
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import unflat
from fccl.contribution.reported import proportional
from fccl.contribution.stretch import as_weighed
from fccl.data.shards import ClientShard
from fccl.errors import FederationError
from fccl.federation.carried import carried
from fccl.federation.declared import Declared
from fccl.federation.down import Down
from fccl.federation.kept_rounds import KeptRound, kept_round, kept_rounds
from fccl.federation.late import Pending, is_late
from fccl.federation.members import Members
from fccl.federation.rounds import Federation
from fccl.federation.state import FederationState, RoundResult
from fccl.messages import (
    Answer,
    ClientFailure,
    ClientUpdate,
    Declaration,
    DeclareTask,
    FitTask,
    Given,
    Request,
    Statement,
    StatusListener,
)
from fccl.paths import LogPaths
from fccl.records.journal import read_rounds
from fccl.records.run import Contribution, RoundRecord, TrainingReport
from fccl.specs import Phase, RoundPlan
from fccl.transports.held import NothingHeld
from fccl.transports.protocol import SILENT, Listener, RunIdentity, Transport

LEFT_OUT = "left out of this replay"
REBASING = ("svd", "exact")  # of `LORA_AGGREGATION`: each round's factors are of other directions than the last's


def aggregated_again(
    kept: KeptRound,
    rule: Aggregation,
    before: Adapter | None = None,
    server: ServerState | None = None,
    clients: Collection[int] | None = None,
) -> Aggregated:
    """The aggregate of a kept round, with the weights of its record: the recorded bytes where nothing else is given.

    From another adapter `before` the updates are carried there; of some `clients` alone their weights are divided by
    their sum. Where none of those has a weight, nothing moves.

    Raises `AdapterError` when a kept file is not what it was, `StorageError` when it is gone, `FederationError` when
    the rule needs more updates.
    """
    start, state = before or kept.adapter, kept.server if server is None else server
    chosen = [place for place, client in enumerate(kept.record.clients) if clients is None or client in clients]
    weights = [kept.record.weights[place] for place in chosen]
    if sum(weights) <= 0:
        return Aggregated(start, state, None)
    task = kept.task if start is kept.adapter else replace(kept.task, adapter=start)
    updates = kept.updates()
    moved = carried([updates[place] for place in chosen], kept.task.trained, task.trained)
    stretch = [kept.record.stretch[place] for place in chosen] if kept.record.stretch else []
    counts = weights if len(chosen) == len(updates) else proportional(weights)
    rule.require(len(moved))
    return rule.aggregate(start, Parts(counts, as_weighed(task, moved, stretch)), state)


def ended_with(logs: LogPaths, record: RoundRecord) -> Adapter | None:
    """The adapter that a round ended with, wherever the run still has it; None where it has it no more."""
    number = record.round + 1
    places = (
        logs.kept_round(number).adapter,
        logs.global_adapter(number),
        *(logs.global_sft, logs.global_final, logs.start),
    )
    for path in places:
        if adapter_file(path).is_file() and (found := load_adapter(path)).sha256 == record.adapter_sha256:
            return found
    return None


def replayable(logs: LogPaths, stop: int) -> range:
    """The kept rounds before `stop` without a gap: from these on a run can be made again.

    Raises `FederationError` when there is none, with the rounds that are kept.
    """
    kept, first = set(kept_rounds(logs)), stop
    while first - 1 in kept:
        first -= 1
    if first == stop:
        kept_round(logs, stop - 1)  # which says what is kept
    return range(first, stop)


def state_before(logs: LogPaths, number: int, declared: Declared) -> FederationState:
    """The state that a kept round began with. Raises `FederationError` when the round is not kept."""
    kept = kept_round(logs, number)
    return FederationState(
        next_round=number,
        adapter=kept.adapter,
        reference=kept.reference,
        server=kept.server,
        controls=kept.controls,
        norms=kept.inputs.norms,
        declared=declared if number else {},  # round 0 asks for all declarations, as it did
        pending=Pending(kept.before, tuple(each.client_id for each in kept.record.late)) if kept.before else None,
        down=None if kept.lag is None else Down(None, kept.lag),
        memory=kept.inputs.memory,
    )


@dataclass(eq=False)
class KeptTransport(NothingHeld):
    """Answers tasks from kept rounds, and declarations from what was declared. `without` are clients that stay away.

    An update is carried to the task's adapter. Its control variate goes with it where the task has corrections.
    """

    logs: LogPaths
    without: Collection[int] = ()
    declared: Declared = field(default_factory=dict)

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Nothing happens while it is asked, so nobody is told."""

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Any]:
        """The kept answers of these clients, or why there is none. Raises `FederationError` for a round not kept."""
        if isinstance(request, FitTask):
            yield from self._updates(request, client_ids)
        elif isinstance(request, DeclareTask):
            yield from map(self._declaration, client_ids)
        else:
            yield from (ClientFailure(client_id, "kept rounds have no such answer") for client_id in client_ids)

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """The kept late answers of these clients to this task: they came in the round after it."""
        kept = kept_round(self.logs, task.round + 1)
        for update in kept.arrived():
            if is_late(update, kept.task) and update.client_id in client_ids and update.client_id not in self.without:
                yield carried([update], kept.before or task.trained, task.trained)[0]

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """None: a replayed round has the members that it had (`ReplayedRun`)."""
        return ()

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Nobody waits for the end."""

    def _updates(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[Answer]:
        kept = kept_round(self.logs, task.round)
        kept.require_updates(self.without)
        arrived = {update.client_id: update for update in kept.arrived() if not is_late(update, kept.task)}
        why = {each.client_id: each.reason for each in kept.record.excluded}
        for client_id in client_ids:
            if client_id in self.without:
                yield ClientFailure(client_id, LEFT_OUT)
            elif client_id in arrived:
                yield self._answer(kept, task, arrived[client_id])
            else:
                declines = client_id in kept.record.declined
                yield ClientFailure(client_id, why.get(client_id, "no update of it is kept"), declines=declines)

    def _answer(self, kept: KeptRound, task: FitTask, update: ClientUpdate) -> ClientUpdate:
        moved = carried([update], kept.task.trained, task.trained)[0]
        return moved if task.corrections is not None else replace(moved, control=None, control_norm=None)

    def _declaration(self, client_id: int) -> Declaration | ClientFailure:
        said = self.declared.get(client_id)
        if said is None or client_id in self.without:
            return ClientFailure(client_id, LEFT_OUT if client_id in self.without else "it has not declared")
        return Declaration(client_id=client_id, sft=said.sft, va=said.va, overlap=said.overlap)


@dataclass(frozen=True)
class CarriedLearning:
    """Stands in for the server's own training: the change that it made in the run, made from another aggregate.

    `rule` is the run's own aggregation. Raises `FederationError` in `fit` where the run no longer has both ends.
    """

    logs: LogPaths
    rule: Aggregation

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        kept = kept_round(self.logs, task.round)
        learning, after = kept.record.learning, ended_with(self.logs, kept.record)
        if learning is None or after is None:
            raise FederationError(f"round {task.round + 1}: the adapter that the server trained is kept no more")
        before = aggregated_again(kept, self.rule).adapter
        moved = task.adapter.vector.double() + (after.vector.double() - before.vector.double())  # (d,)
        same = before.sha256 == task.adapter.sha256
        return task.update(
            shard.client_id,
            adapter=after if same else unflat(moved, task.adapter.form, "the server's learning"),
            contribution=Contribution(avg_loss=learning.avg_loss, num_samples=learning.examples, seconds=0.0),
            report=TrainingReport(tokens=0, tokens_per_second=0.0, steps=learning.steps),
        )


@dataclass(frozen=True, eq=False)
class ReplayedRun:
    """A finished run's rounds again. `federation` has the rules that are asked for, the run's id and its plan.

    Rounds before `retrain_from` come from kept updates; from there on `trainers` train anew, with `trained` as
    federation. `by_round` begins each round with the adapter that it had in the run. `early` are the rounds of phases
    that PATIENCE ended.
    """

    logs: LogPaths
    federation: Federation
    total: int  # rounds of the run
    early: Mapping[Phase, int] = field(default_factory=dict)
    without: frozenset[int] = frozenset()
    declared: Declared = field(default_factory=dict)
    by_round: bool = False
    retrain_from: int | None = None
    from_there: bool = False  # begin there, in the state that the run had
    trainers: Transport | None = None
    trained: Federation | None = None
    start: Callable[[], Adapter] | None = None  # the adapter of round 0, where that round is not kept
    remembers: bool = True  # whether the run's memory of its clients is of the rule that weighs here

    @property
    def numbers(self) -> range:
        """The rounds that are made again. Raises `FederationError` when those that it takes are not kept."""
        if self.retrain_from is None:
            return replayable(self.logs, self.total)
        kept, first = kept_rounds(self.logs), self.retrain_from
        alone = self.from_there or first - 1 not in kept
        if alone and (first in kept or first == 0):
            return range(first, self.total)
        return range(replayable(self.logs, first).start, self.total)

    def rounds(self) -> Iterator[RoundResult]:
        """One result a round. Raises `FederationError` where a round is left with too few clients for its rule."""
        kept = KeptTransport(self.logs, self.without, self.declared)
        state: FederationState | None = None
        for number in self.numbers:
            anew = self.retrain_from is not None and number >= self.retrain_from
            if state is None or (self.by_round and not anew):
                state = self._before(number)
            federation = self.trained if anew and self.trained else self.federation
            transport = self.trainers if anew and self.trainers else kept
            result = replace(federation, plan=self._plan(number)).run_round(self._with_members(state), transport)
            state = result.state
            yield result

    def _with_members(self, state: FederationState) -> FederationState:
        """The state with the members that an open federation had in its round."""
        if not self.federation.plan.open:
            return state
        numbers = set(range(self.federation.plan.num_clients))
        for record in read_rounds(self.logs):
            if record.round <= state.next_round:
                numbers = (numbers | set(record.joined)) - {each.client_id for each in record.left}
        return replace(state, members=Members(tuple(sorted(numbers))))

    def _before(self, number: int) -> FederationState:
        if number == 0 and self.start is not None and 0 not in kept_rounds(self.logs):
            return FederationState(0, self.start())
        state = state_before(self.logs, number, self.declared)
        return state if self.remembers else replace(state, memory={})

    def _plan(self, number: int) -> RoundPlan:
        """The plan as it was when the round began: a phase that PATIENCE ended has fewer rounds once it is over."""
        ended = self.early.get("sft")
        over: dict[Phase, int] = {"sft": ended} if ended is not None and number >= ended else {}
        return self.federation.plan.as_it_went(over).model_copy(update={"patience": 0})
