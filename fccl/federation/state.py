"""State of a federation between rounds, and a round's inputs and result, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Parts
from fccl.aggregation.scaffold import Controls
from fccl.aggregation.state import ServerState
from fccl.contribution.protocol import Memory, Weighing
from fccl.federation.declared import Declared
from fccl.federation.down import Down
from fccl.federation.late import Pending
from fccl.federation.members import Members
from fccl.federation.watch import Watch
from fccl.messages import ClientFailure, ClientUpdate, FitTask
from fccl.records.run import MedianNorms, PhaseEnd, RoundRecord, ServerLearning, Validation
from fccl.specs import Phase, RoundPlan, TrainSpec


@dataclass(frozen=True, eq=False)
class FederationState:
    """All that the next round starts from. `adapter` is the last round's. `reference` is set once the SFT rounds are
    done: the result of that phase. Without an SFT round it is the adapter that the run starts from, set in the first VA
    round. A VA phase begins with its reference.

    `server` is what the aggregation rule carries from round to round, `memory` what the weighing rule does, `controls`
    SCAFFOLD's c_i, `watch` what PATIENCE and RESULT_ROUND go by. Each phase begins anew, with the rule's initial state,
    without memory and controls, and with nothing watched. Until then they are what the phase before ended with. `early`
    has the number of rounds of each phase that PATIENCE ended.
    """

    next_round: int
    adapter: Adapter
    reference: Adapter | None = None
    server: ServerState = field(default_factory=ServerState)
    controls: Controls = field(default_factory=dict)
    norms: MedianNorms = field(
        default_factory=MedianNorms
    )  # what few updates are measured by: the last accepted round's, over both phases
    declared: Declared = field(default_factory=dict)  # by clients that hold their own data
    watch: Watch = field(default_factory=Watch)
    early: Mapping[Phase, int] = field(default_factory=dict)
    releases: Mapping[int, int] = field(default_factory=dict)  # noised updates of each client that adds its own noise
    va_releases: Mapping[int, int] = field(default_factory=dict)  # those of them in VA rounds
    clip: float | None = None  # of the next round, where it adapts
    down: Down | None = None  # the adapter's way to the clients, where UPDATE_CODEC makes it shorter
    members: Members | None = None  # of an open federation, once its first round has begun
    memory: Memory = field(default_factory=dict)  # of the weighing rule, by client
    pending: Pending | None = None  # under LATE_UPDATES=next: the last round's missing answers, within its phase

    @property
    def here(self) -> tuple[int, ...] | None:
        """The members of an open federation; None where the members are fixed."""
        return self.members.clients if self.members else None

    @property
    def result(self) -> Adapter:
        """The result of the phase if it ended here: its best round's adapter under RESULT_ROUND=best, else the last."""
        return self.watch.best.adapter if self.watch.best else self.adapter

    def phase_end(self, plan: RoundPlan) -> PhaseEnd | None:
        """The record's word on the phase's end, if the round before was the last of its phase."""
        number, went = self.next_round - 1, plan.as_it_went(self.early)
        if not went.ends_phase(number):
            return None
        phase = went.phase_of(number)
        return PhaseEnd(
            rounds=went.rounds_of(phase),
            early=phase in self.early,
            result_round=self.watch.best.round if self.watch.best else number,
            adapter_sha256=self.result.sha256,
        )


@dataclass(frozen=True, eq=False)
class RoundInputs:
    """All that a round's result follows from. With the weights of its record they give the aggregate again: the next
    adapter, unless the server has trained it as `learn` says.

    `server`, `controls`, `norms` and `memory` are those before the round. `arrived` has the updates that answered the
    task, as they came and in client order, late ones among them; `before` is what those began with. `examples` has the
    places in the learn split that the weights were made from. `lag` is what a codec had left out of the adapter: it is
    added to the next one.
    """

    task: FitTask
    server: ServerState
    controls: Controls
    norms: MedianNorms
    arrived: tuple[ClientUpdate, ...]
    examples: tuple[int, ...]
    learn: TrainSpec | None = None
    before: Adapter | None = None  # that the round before began with, where an update is late
    lag: Adapter | None = None
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RoundResult:
    """A complete round: its record, the state after it, and the inputs that it was made from.

    `updates` are those that were aggregated, in client order, each with the directions that it did not train. `counted`
    says how much each counted in the end; None where the rule cannot say.

    >>> import fccl
    >>> data = fccl.prepare(max_sft_examples=60, max_va_examples=30)
    >>> result = next(iter(fccl.FederatedRun(data, fed_rounds=1, log_dir="logs-of-one-round")))
    >>> result.record.phase, [update.client_id for update in result.updates]
    ('sft', [0, 1, 2])
    >>> result.record.adapter_sha256 == result.state.adapter.sha256
    True
    """

    record: RoundRecord
    counted: tuple[float, ...] | None
    updates: tuple[ClientUpdate, ...]
    state: FederationState
    inputs: RoundInputs


@dataclass(frozen=True, eq=False)
class SettledRound:
    """A round's weights and aggregate, the next adapter with its validation, and the clients that are excluded.

    The next adapter is the aggregate, or what server learning and a codec have made of it.
    """

    updates: tuple[ClientUpdate, ...]
    excluded: tuple[ClientFailure, ...]
    weighing: Weighing
    parts: Parts
    aggregated: Aggregated
    adapter: Adapter
    validation: Validation | None
    learning: ServerLearning | None = None
    clip: float | None = None  # of the next round, where the server adapts it
    down: Down | None = None  # the next adapter's way to the clients
