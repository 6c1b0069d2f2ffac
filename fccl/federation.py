"""The federation: rounds of selecting clients, sending a task, weighing the answers, aggregating.

It knows neither how a task travels (`Transport`) nor what training is (`Learner`, behind the transport).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from fccl.adapter import Adapter
from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.lora import LoraMean, product_error, require_frozen_a
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts, Reweighing
from fccl.aggregation.scaffold import SCAFFOLD, ClientControl, Controls, controls_after, corrections
from fccl.aggregation.state import ServerState
from fccl.contribution.rules import effective_clients
from fccl.contribution.weighing import Weigher
from fccl.errors import DIVERGED, LOWER_RATE, FederationError, UpdateRejected
from fccl.lora import distance
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.records import ExcludedClient, HeldOut, RoundRecord
from fccl.specs import ModelSpec, Phase, RoundPlan, TrainSpec, named_seed
from fccl.stored import StoredAdapter

_RESUME = "mend the clients and resume the run: its complete rounds are kept"
MEASURED_CLIENTS = 20  # updates in a round, up to which the error of averaging LoRA factors is measured
Validate = Callable[[Phase, Adapter, Adapter | None], HeldOut]


class Transport(Protocol):
    """Carries a task to clients and their answers back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def fit(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[Answer]:
        """One answer per client, in any order. A late, dead or lying client is a `ClientFailure`, never a hang."""
        ...


@dataclass(frozen=True, eq=False)
class FederationState:
    """All that the next round starts from. `reference` is set once the SFT rounds are done: the last SFT global adapter.

    `server` is what the aggregation rule carries from round to round, `controls` SCAFFOLD's c_i; each phase starts anew, with the rule's initial
    state and without controls.
    """

    next_round: int
    adapter: Adapter
    reference: Adapter | None = None
    server: ServerState = field(default_factory=ServerState)
    controls: Controls = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RoundResult:
    """A complete round: its record, how much each update counted in the end (None where nobody can say), the updates that were aggregated (in client
    order, each whole: with the directions that it did not train), and the state after it."""

    record: RoundRecord
    counted: tuple[float, ...] | None
    updates: tuple[ClientUpdate, ...]
    state: FederationState


@dataclass(frozen=True, eq=False)
class Federation:
    """What stays the same over a run. `keep_control` puts the c_i of an update where it outlives the round, and returns it from there."""

    run_id: str
    plan: RoundPlan
    model: ModelSpec
    train: Mapping[Phase, TrainSpec]
    rule: Weigher
    aggregation: Aggregation = field(default_factory=FedAvg)
    validate: Validate | None = None
    on_answer: Callable[[Answer], None] = lambda answer: None
    keep_control: Callable[[ClientUpdate], Adapter | StoredAdapter | None] = lambda update: update.control
    known_samples: Mapping[Phase, Mapping[int, int]] = field(default_factory=dict)  # where the server knows the shards' sizes

    def run(self, state: FederationState, transport: Transport) -> Iterator[RoundResult]:
        """All rounds from `state.next_round` on. Raises `FederationError` when a round has too few good updates."""
        while state.next_round < self.plan.total_rounds:
            result = self.run_round(state, transport)
            state = result.state
            yield result

    def run_round(self, state: FederationState, transport: Transport) -> RoundResult:
        """One round. The result does not depend on the order in which the answers arrive."""
        started = time.monotonic()
        selected = select_clients(self.plan, state.next_round)
        task = self._task(state)
        updates, excluded = self._gather(task, selected, transport)
        if len(updates) < self.plan.min_clients:
            raise _too_few(task.round, len(updates), self.plan.min_clients, excluded)
        weighing = self.rule.weigh(task, [update.behind(task.trained) for update in updates])
        parts = Parts(weighing.weights, [update.adapter for update in updates])
        aggregated = self._aggregate(state, parts)
        adapter = aggregated.adapter
        record = RoundRecord(
            run_id=self.run_id,
            time=time.time(),
            round=task.round,
            phase=task.phase,
            selected=selected,
            clients=tuple(update.client_id for update in updates),
            weights=weighing.weights,
            scores=weighing.scores,
            contributions=tuple(update.contribution for update in updates),
            excluded=tuple(ExcludedClient(client_id=failure.client_id, reason=failure.reason) for failure in excluded),
            effective_clients=effective_clients(weighing.weights),
            aggregation=self.aggregation.name,
            counted=None if aggregated.weights == weighing.weights else aggregated.weights,
            lora_error=self._lora_error(state.adapter, parts, aggregated),
            held_out=self.validate(task.phase, adapter, task.reference) if self.validate else None,
            verification=weighing.verification,
            adapter_sha256=adapter.sha256,
            update_norm=distance(adapter, state.adapter),
            seconds=time.monotonic() - started,
        )
        whole = tuple(update.behind(task.adapter) for update in updates)
        after = self._state_after(state, aggregated, self._controls_after(state, updates, weighing.weights))
        return RoundResult(record, aggregated.weights, whole, after)

    def _task(self, state: FederationState) -> FitTask:
        phase = self.plan.phase_of(state.next_round)
        reference = state.reference if phase == "va" else None
        told = corrections(state.controls, state.adapter.form) if self.aggregation.name == SCAFFOLD else None
        return FitTask(self.run_id, state.next_round, phase, state.adapter, reference, self.model, self.train[phase], self.plan.seed, told)

    def _gather(self, task: FitTask, selected: Sequence[int], transport: Transport) -> tuple[list[ClientUpdate], list[ClientFailure]]:
        """The good updates and the failures, both in client order: exactly one of them for every selected client."""
        updates: dict[int, ClientUpdate] = {}
        failures: dict[int, ClientFailure] = {}
        for answer in transport.fit(task, selected):
            answer = self._judge(task, answer)
            if answer.client_id not in selected or answer.client_id in updates:
                continue  # nobody asked, or it answered already
            self.on_answer(answer)
            if isinstance(answer, ClientUpdate):
                updates[answer.client_id] = answer
                failures.pop(answer.client_id, None)
            else:
                failures[answer.client_id] = answer
        for client_id in selected:
            if client_id not in updates and client_id not in failures:
                failures[client_id] = ClientFailure(client_id, "no answer")
                self.on_answer(failures[client_id])
        return [updates[key] for key in sorted(updates)], [failures[key] for key in sorted(failures)]

    def _judge(self, task: FitTask, answer: Answer) -> Answer:
        """An update that does not answer the task, or contradicts what the server knows, becomes a failure with its reason."""
        if isinstance(answer, ClientFailure):
            return answer
        try:
            answer.require_answers(task)
            if task.train.freeze_a:
                require_frozen_a(task.adapter, answer.adapter.load())
        except UpdateRejected as error:
            return ClientFailure(answer.client_id, str(error))
        known = self.known_samples.get(task.phase, {}).get(answer.client_id)
        reported = answer.contribution.num_samples
        if known is not None and reported != known:
            return ClientFailure(answer.client_id, f"reports {reported} samples, but its shard has {known}")
        return answer

    def _aggregate(self, state: FederationState, parts: Parts) -> Aggregated:
        first_of_phase = state.next_round in (0, self.plan.fed_rounds)
        return self.aggregation.aggregate(state.adapter, parts, self.aggregation.initial(state.adapter) if first_of_phase else state.server)

    def _lora_error(self, before: Adapter, parts: Parts, aggregated: Aggregated) -> float | None:
        """Of the rules whose result stands for a weighted mean of the updates; the others do not mean to be near it.

        It costs about 15 ms a client for an adapter of GPT-2's size: beyond `MEASURED_CLIENTS` it is left out.
        """
        if aggregated.weights is None or len(parts) > MEASURED_CLIENTS or not isinstance(self.aggregation, Reweighing | LoraMean):
            return None
        return product_error(before, Parts(aggregated.weights, parts.updates), aggregated.adapter)

    def _controls_after(self, state: FederationState, updates: Sequence[ClientUpdate], weights: Sequence[float]) -> Controls:
        if self.aggregation.name != SCAFFOLD or state.next_round == self.plan.fed_rounds - 1:
            return {}
        kept = {update.client_id: (weight, self.keep_control(update)) for update, weight in zip(updates, weights, strict=True)}
        sent = {client_id: ClientControl(weight, control) for client_id, (weight, control) in kept.items() if control is not None}
        return controls_after(state.controls, sent, self.plan.num_clients)

    def _state_after(self, state: FederationState, aggregated: Aggregated, controls: Controls) -> FederationState:
        last_of_sft = state.next_round == self.plan.fed_rounds - 1
        reference = aggregated.adapter if last_of_sft else state.reference
        return FederationState(state.next_round + 1, aggregated.adapter, reference, aggregated.state, controls)


def select_clients(plan: RoundPlan, round_number: int) -> tuple[int, ...]:
    """The clients of one round, drawn without replacement from the plan's seed, in client order."""
    draw = random.Random(named_seed(plan.seed, "clients", round_number))
    return tuple(sorted(draw.sample(range(plan.num_clients), plan.clients_per_round)))


def _too_few(round_number: int, have: int, need: int, excluded: Sequence[ClientFailure]) -> FederationError:
    """With the way out of what is to blame: clients that were not there may be there next time, training that diverged diverges again."""
    reasons = "; ".join(f"client {failure.client_id}: {failure.reason}" for failure in excluded[:3])
    said = f"round {round_number + 1} has {have} good update{'s' * (have != 1)}, MIN_CLIENTS is {need} ({reasons})"
    diverged = sum(failure.reason.startswith(DIVERGED) for failure in excluded)
    others_would_do = have + len(excluded) - diverged >= need
    return FederationError(said, _RESUME) if others_would_do else FederationError(said, LOWER_RATE, resumable=False)
