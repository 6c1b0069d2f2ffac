"""The records of a run: one value a line of `logs/*.jsonl`, or a small JSON file."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, ValidationError

from fccl.records.late import KeptPending, LateUpdate
from fccl.records.members import Departure, KeptMembers
from fccl.records.privacy import RoundPrivacy
from fccl.records.secure import SecureRound
from fccl.records.sent import SentBytes
from fccl.specs import (
    ClientId,
    Count,
    Grown,
    Phase,
    PreferenceSpec,
    Rate,
    Round,
    Samples,
    Seconds,
    SignedLoss,
    Time,
    Value,
)


class Contribution(Value):
    """A client's report of its own training. Finite and with at least one sample, or it cannot be built."""

    avg_loss: SignedLoss  # over the last local epoch; SFT: nats per response token, VA: preference loss per pair
    num_samples: Samples
    seconds: Seconds


class TrainingReport(Value):
    """The figures of one local training, beside those of `Contribution`."""

    tokens: Count  # tokens read in all epochs, padding not counted
    tokens_per_second: Rate
    steps: Count
    truncated: Count = 0  # examples whose prompt or response was cut to fit the context
    first_loss: SignedLoss | None = None  # of the first batch, before any step


# The contribution and the report of a client that says nothing of its training, under differential privacy.
WITHHELD = Contribution(avg_loss=0.0, num_samples=1, seconds=0.0)
WITHHELD_REPORT = TrainingReport(tokens=0, tokens_per_second=0.0, steps=0)

_LATEST = frozenset({"late", "joined", "left"})  # of the fields of a round
_LATEST_STATE = frozenset({"pending", "members", "down"})  # and of those of a state
ClientState = Literal["idle", "training", "evaluating", "done", "failed", "declined"]


class ClientStatus(Value):
    """A heartbeat: what a client is doing now. Replaced whole, never appended."""

    client_id: ClientId
    state: ClientState
    run_id: str = Field(max_length=100)
    round: Round
    phase: Phase
    step: Count = 0
    steps: Count = 0
    loss: SignedLoss | None = None
    tokens_per_second: Rate = 0.0
    pid: Count = 0
    host: str = Field(default="", max_length=255)
    time: Time = 0.0  # by the writer's clock


class ClientMetrics(Grown):
    """One client in one round: a line of `client_metrics.jsonl`. `round` is the one that its update counted in."""

    LATER = frozenset({"trained_for"})

    run_id: str
    time: float
    round: int = Field(ge=0)
    phase: Phase
    client_id: int = Field(ge=0)
    avg_loss: float
    num_samples: int
    seconds: float
    tokens: int
    tokens_per_second: float
    steps: int
    truncated: int
    first_loss: float | None
    update_norm: float  # L2 norm of (update - global adapter)
    trained_for: int | None = Field(default=None, ge=0)  # of a late update: the round before


class Validation(Value):
    """The global adapter on the server's validation split after a round."""

    loss: float  # SFT rounds: nats per response token; VA rounds: preference loss per pair
    # VA rounds: share of pairs whose chosen response is likelier (sum of log-probs)
    preference_accuracy: float | None = None
    examples: int = Field(ge=1)


_VALIDATION = AliasChoices("validation", "held_out")  # `held_out` in logs of version 0.1


class ExampleLosses(Value):
    """The losses of an adapter on the validation split, by example."""

    losses: tuple[float, ...]  # nats: the sum over the response, or of the pair
    units: tuple[float, ...]  # response tokens, or 1


class Watched(Value):
    """A round on the validation split beside the rounds of its phase before it, under PATIENCE or RESULT_ROUND=best."""

    gain: float | None = None  # fall of the loss since the last round that gained beyond its noise
    noise: float | None = None  # the standard error of that, paired by example; None where it is infinite
    waited: int = Field(ge=0)  # rounds since then
    best_round: int | None = None  # the phase's lowest loss so far, under RESULT_ROUND=best


class PhaseEnd(Value):
    """The end of a phase that PATIENCE or RESULT_ROUND=best had a say in, by the validation split alone."""

    rounds: int = Field(ge=1)  # that the phase had
    early: bool  # PATIENCE ended it
    result_round: int = Field(ge=0)  # whose adapter is the phase's result
    adapter_sha256: str  # of that


class ExcludedClient(Value):
    """A client that was excluded from a round, and why."""

    client_id: int
    reason: str


class ArrivedUpdate(Value):
    """A client's update as it arrived: the SHA-256 of its file, and of its control variate's file under SCAFFOLD."""

    client_id: int
    sha256: str
    control_sha256: str = ""


class Verification(Value):
    """The verification of a round's updates by the server's own examples.

    The tuples run over the record's `clients`. `None` is a loss that is not finite. From prior to weights: prior_i ·
    exp(score_i / VERIFY_TEMPERATURE), normalised; under `leave_one_out` the scores are first divided by the largest
    |score|. `validation_loss` has no prior.
    """

    examples: int = Field(ge=1)  # of the server's learn split; of its validation split in records of version 0.1
    prior: tuple[float, ...] = ()  # the weights before
    # of the mean with the prior's weights; SFT: nats per response token, VA: preference loss per pair
    loss_prior: float | None = None
    loss_weights: float | None = None  # of the mean with the round's weights
    # `verified`, at the prior: how fast the loss rises as the client's weight grows at the cost of all; < 0 helps
    slopes: tuple[float, ...] = ()
    standing: tuple[float, ...] = ()  # `tempered`: what the phase's rounds say of a client; > 0 speaks against it
    path: tuple[float | None, ...] = ()  # of a search: the loss before its first step and after each that it kept
    taken: int = Field(default=0, ge=0)  # which of the path the weights are; of `verified` the lowest
    passes: int = Field(default=0, ge=0)  # over the examples, forward alone or with a backward pass; 0: not counted
    seconds: float = Field(default=0.0, ge=0)


class ServerLearning(Value):
    """The server's own training in a round, from the aggregate, on its learn split. The record's `validation` is of the
    adapter that it ended with.
    """

    examples: int = Field(ge=1)  # of the learn split: instructions in SFT rounds, pairs in VA rounds
    epochs: int = Field(ge=1)
    steps: int = Field(ge=0)
    avg_loss: float  # on these examples over the last epoch, in the unit of the phase
    before: Validation | None = None  # of the aggregate, as it was before
    aggregate_sha256: str  # of that adapter
    seconds: float = Field(ge=0)


class OwnTestResult(Value):
    """A client's mean losses on the examples that it keeps apart, at the end of a phase, in the phase's unit."""

    client_id: int = Field(ge=0)
    examples: int = Field(ge=1)
    units: int = Field(ge=1)  # response tokens or pairs
    base: float  # of the base model
    alone: float  # of an adapter that the client has trained by itself, for as many rounds
    together: float  # of the phase's global adapter
    personal: float | None = None  # of the client's personal adapter, which never left it


class DeclaredSamples(Value):
    """The numbers of examples that a client with its own data has declared, once in a run."""

    client_id: int = Field(ge=0)
    sft: int = Field(ge=0)
    va: int = Field(ge=0)
    overlap: int | None = None  # instructions that the server's splits have too; None: not checked

    def samples(self, phase: Phase) -> int:
        """The examples of one kind."""
        return self.sft if phase == "sft" else self.va


class DeclaredCount(Value):
    """The number of examples that a client declared for a round's phase, and as how many it counted in weights."""

    client_id: int = Field(ge=0)
    samples: int = Field(ge=0)
    counted: int = Field(ge=0)


class RoundSeconds(Value):
    """The seconds of a round by what they were spent on."""

    training: Seconds = 0.0  # from the first request to the last answer: clients' training, and the way there and back
    verification: Seconds = 0.0
    validation: Seconds = 0.0
    rest: Seconds = 0.0  # aggregation, server learning, the disk

    @property
    def total(self) -> float:
        """All of them."""
        return self.training + self.verification + self.validation + self.rest


class RoundRecord(Grown):
    """One complete round: a line of `progress.jsonl`. The tuples run over `clients`, in client order."""

    LATER = frozenset({"declared", "own_tests", "watched", "phase_end", "spent", "privacy", "secure", "sent"}) | _LATEST

    event: Literal["round"] = "round"
    run_id: str
    time: float
    round: int = Field(ge=0)
    phase: Phase
    selected: tuple[int, ...]
    clients: tuple[int, ...]  # those whose updates were aggregated
    weights: tuple[float, ...]
    scores: tuple[float, ...]  # what the weights were made of: docs/contribution.md has each source's formula
    contributions: tuple[Contribution, ...]
    # by how much each change was stretched before it was aggregated (`fccl.contribution.stretch`); empty: no change was
    stretch: tuple[float, ...] = ()
    own_tests: tuple[OwnTestResult, ...] = ()  # in a phase's last round, of clients that keep examples apart
    declared: tuple[DeclaredCount, ...] = ()  # of clients that hold their own data; the server has not seen it
    excluded: tuple[ExcludedClient, ...] = ()
    declined: tuple[int, ...] = ()  # the clients that take no part in this phase: no failure
    arrived: tuple[ArrivedUpdate, ...] = ()  # all that answered the task, also if excluded later; not in old records
    late: tuple[LateUpdate, ...] = ()  # those of `arrived` that were trained for the round before
    joined: tuple[int, ...] = ()  # the clients that joined an open federation before this round
    left: tuple[Departure, ...] = ()  # and those that left it
    effective_clients: float = Field(ge=1)  # 1 / sum of squared weights
    validation: Validation | None = Field(default=None, validation_alias=_VALIDATION)
    verification: Verification | None = None  # with a source that the server verifies
    aggregation: str = "fedavg"  # the rule, as `AGGREGATION` spells it
    # how much each update counted in the end, where the rule did not take the weights as they are
    counted: tuple[float, ...] | None = None
    # the distance of the new factors' products from the weighted mean of the clients' products, as a share of its norm
    lora_error: float | None = None
    learning: ServerLearning | None = None  # of the server, where LEARN_EPOCHS is not 0
    watched: Watched | None = None
    phase_end: PhaseEnd | None = None  # in the last round of a phase, where anything was watched
    privacy: RoundPrivacy | None = None  # then `contributions` is empty, and with noise at the server all of a client
    secure: SecureRound | None = None  # of a secure sum: then `clients` is empty, and nothing of a single one is said
    sent: SentBytes | None = None  # None in records of earlier versions
    adapter_sha256: str
    update_norm: float  # L2 norm of (new global adapter - old)
    seconds: float = Field(ge=0)
    spent: RoundSeconds | None = None  # what `seconds` were spent on; not in old records


EventName = Literal["started", "resumed", "extended", "interrupted", "failed", "finished"]


class RunEvent(Value):
    """An event of a run that is no round: a line of `progress.jsonl`."""

    event: EventName
    run_id: str
    time: float
    round: int
    message: str = ""
    # with `started`: the base model
    validation: Validation | None = Field(default=None, validation_alias=_VALIDATION)
    start: Validation | None = None  # with `started`: the adapter that START_FROM names, on the instructions


class RunInfo(Value):
    """`run.json`: settings, data and versions of a run. Written when it starts, and again when it is given other
    numbers of rounds; a resumed run reads it.
    """

    run_id: str
    created: float
    settings: dict[str, str]
    data_sha256: str  # of the data's manifest
    versions: dict[str, str]
    # rules that are classes of one's own: the SHA-256 of the file of each
    rules: dict[str, str] = Field(default_factory=dict)
    start_sha256: str = ""  # of the adapter that START_FROM named; empty: the run started from a fresh one
    chat_template: str = ""  # its SHA-256, where conversations go through it

    @property
    def preference(self) -> PreferenceSpec:
        """The loss of its VA rounds. Runs of version 0.1 do not name it, and had DPO's."""
        names = {"preference_loss": "loss", "dpo_beta": "beta"} | {
            name: name for name in ("label_smoothing", "simpo_gamma")
        }
        said = {field: self.settings[name] for name, field in names.items() if name in self.settings}
        try:
            return PreferenceSpec.model_validate(said)
        except ValidationError:
            return PreferenceSpec()


class MedianNorms(Value):
    """The length of a round's accepted updates: the median L2 norm of those that moved at all.

    None before there were any.
    """

    change: float | None = Field(default=None, gt=0)
    control: float | None = Field(default=None, gt=0)  # of SCAFFOLD's control variates


class KeptControl(Value):
    """SCAFFOLD's c_i of one client: the SHA-256 of its file, its share in c."""

    client_id: int
    sha256: str
    share: float


class KeptDown(Value):
    """The global adapter in few bytes, and what those have left out: the SHA-256 of both files; empty: no such file."""

    sha256: str = ""
    lag_sha256: str = ""


class KeptWatch(Value):
    """The facts that PATIENCE and RESULT_ROUND go by: `fccl.federation.watch.Watch`, its adapter by hash."""

    anchor: ExampleLosses | None = None
    waited: int = Field(default=0, ge=0)
    best_round: int | None = Field(default=None, ge=0)
    best_loss: float = 0.0
    best_sha256: str = ""


class RunState(Grown):
    """`state.json`: the last complete round. Written last, it commits the round."""

    LATER = frozenset({"declared", "watch", "early", "releases", "va_releases", "clip", "memory"}) | _LATEST_STATE

    run_id: str
    next_round: int = Field(ge=0)  # 0: no round is complete
    total_rounds: int = Field(ge=1)
    sft_rounds: int | None = Field(default=None, ge=0)  # None in states of earlier versions: half of all
    adapter_sha256: str
    # of the last SFT global adapter, once there is one; without an SFT round of the adapter that the run starts from
    reference_sha256: str = ""
    server_sha256: str = ""  # of the aggregation rule's state; empty when it carries no state
    controls: tuple[KeptControl, ...] = ()
    norms: MedianNorms = MedianNorms()  # of the last round that had updates which moved
    declared: tuple[DeclaredSamples, ...] = ()  # by clients that hold their own data
    watch: KeptWatch | None = None
    early: dict[Phase, int] = Field(default={})  # the rounds of each phase that PATIENCE or the privacy budget ended
    releases: dict[int, int] = Field(default={})  # noised updates of each client, where clients add the noise
    va_releases: dict[int, int] = Field(default={})  # those of them in VA rounds
    clip: float | None = None  # of the next round, where it adapts
    pending: KeptPending | None = None  # under LATE_UPDATES=next
    members: KeptMembers | None = None  # of an open federation
    memory: dict[int, tuple[float, ...]] = Field(default={})  # of the weighing rule, by client
    down: KeptDown | None = None  # where UPDATE_CODEC makes the way down shorter

    @property
    def first_va(self) -> int:
        """The number of the first VA round: so many SFT rounds the run has."""
        return self.total_rounds // 2 if self.sft_rounds is None else min(self.sft_rounds, self.total_rounds)

    @property
    def finished(self) -> bool:
        return self.next_round >= self.total_rounds
