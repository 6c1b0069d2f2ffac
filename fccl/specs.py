"""Specifications, as values: the model, the local training, the rounds, the data. Built valid or not built.

Settings are read once, in `apps` and `library`, and narrowed to these on the way down; nothing below sees a `Settings`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fccl.codecs import WHOLE, CodecSpec
from fccl.personal import PersonalSpec
from fccl.values import Grown as Grown
from fccl.values import Value as Value
from fccl.values import exactly as exactly

Phase = Literal["sft", "va"]
PHASES: tuple[Phase, ...] = ("sft", "va")

# What another process may have written has bounds, so that whoever adds, formats or draws it need not ask.
Round = Annotated[int, Field(ge=0, le=999_999_999)]  # nine digits, as in file names
ClientId = Annotated[int, Field(ge=0, le=999_999_999)]
RunId = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=0, le=10**15)]  # exact as a float too
Samples = Annotated[int, Field(ge=1, le=10**15)]
Rank = Annotated[int, Field(ge=1, le=1024)]  # of LoRA factors
Threads = Annotated[int, Field(ge=0, le=1024)]
Loss = Annotated[float, Field(ge=0, le=1e15)]
SignedLoss = Annotated[float, Field(ge=-1e15, le=1e15)]  # of any preference loss: one has no lower end
Rate = Annotated[float, Field(ge=0, le=1e15)]  # a second
Seconds = Annotated[float, Field(ge=0, le=1e9)]  # 31 years
Time = Annotated[float, Field(ge=0, le=9e9)]  # seconds since 1970, to 2255; pandas counts nanoseconds in 64 bits

Engine = Literal["generic", "gpt2", "auto"]
BasePrecision = Literal["fp32", "bf16", "int8", "bnb-int8", "bnb-nf4"]
PromptFormat = Literal["plain", "chat"]
LearnTurns = Literal["last", "all"]


class TextForm(Value):
    """The form in which conversations reach the model, and the part of them that is learnt."""

    prompt: PromptFormat = "plain"  # `### Instruction`, or the chat template of the tokenizer
    learn: LearnTurns = "last"  # the last assistant turn of a conversation, or every one; pairs: always the last
    template: str = Field(default="", max_length=64)  # SHA-256 of the chat template; empty: any


PLAIN_TEXT = TextForm()


class ModelSpec(Grown):
    """The base model and its LoRA (Hu et al. 2021): update = (alpha / r) · B A on every target module."""

    LATER = frozenset({"text", "middle"})
    name: str = Field(min_length=1)
    lora_r: Rank
    lora_alpha: float = Field(gt=0)
    lora_targets: str = "auto"  # "auto" (PEFT's choice for the architecture), "all-linear", or module names with commas
    lora_layers: Annotated[int, Field(ge=1)] | None = None  # so many layers carry LoRA, the top ones; None is all
    max_length: int = Field(ge=8)  # tokens, prompt and response together
    engine: Engine = "generic"  # the code that computes it; two engines differ in float noise
    base_precision: BasePrecision = "fp32"  # of the frozen base's products; as in tasks and records that do not say it
    text: TextForm = PLAIN_TEXT
    middle: bool = False  # Singhal et al. 2025 (Fed-SB): train R of B R A alone, A and B are frozen

    def of_rank(self, rank: int) -> Self:
        """The same with another rank; alpha / r stays the number that it is."""
        return (
            self
            if rank == self.lora_r
            else self.model_copy(update={"lora_r": rank, "lora_alpha": self.lora_alpha * rank / self.lora_r})
        )


PreferenceLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "simpo",
    "cpo",
    "orpo",
]
REFERENCE_FREE: frozenset[PreferenceLoss] = frozenset({"simpo", "cpo", "orpo"})
SMOOTHED: frozenset[PreferenceLoss] = frozenset({"robust", "exo_pair"})  # that read `label_smoothing`


def require_smooth_labels(loss: PreferenceLoss, label_smoothing: float) -> None:
    """Raises `ValueError` where the loss takes the logarithm of a smoothing that is 0."""
    if loss == "exo_pair" and label_smoothing == 0:
        raise ValueError("PREFERENCE_LOSS=exo_pair needs a LABEL_SMOOTHING above 0")


class PreferenceSpec(Value):
    """The loss of preference pairs. `fccl.model.preference_losses` has its formulas and papers."""

    loss: PreferenceLoss = "sigmoid"
    beta: float = Field(default=0.1, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)  # share of pairs whose preference may be flipped
    simpo_gamma: float = Field(default=0.5, ge=0)  # the margin that SimPO asks for

    @model_validator(mode="after")
    def _labels_are_smooth(self) -> Self:
        require_smooth_labels(self.loss, self.label_smoothing)
        return self

    @property
    def takes_reference(self) -> bool:
        """Whether it is relative to a reference policy."""
        return self.loss not in REFERENCE_FREE

    @property
    def may_be_negative(self) -> bool:
        """Whether it has no lower end."""
        return self.loss == "robust"


Schedule = Literal["constant", "linear", "cosine"]  # of a learning rate


def schedule_share(schedule: Schedule, progress: float) -> float:
    """The share of the peak learning rate at a progress of 0 ... 1: at 0 all of it, at 1 nothing unless constant.

    >>> schedule_share("linear", 0.25), schedule_share("cosine", 0.5)
    (0.75, 0.5)
    """
    return {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[schedule]


class TrainSpec(Grown):
    """One client's local training in one round."""

    LATER = frozenset({"micro_batch_size", "codec", "personal"})

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)  # examples (SFT) or pairs (VA)
    micro_batch_size: int = Field(default=0, ge=0)  # of these computed at a time, their gradients added; 0: all
    warmup: float = Field(ge=0, le=1)  # share of the local steps
    schedule: Schedule = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(gt=0)
    preference_loss: PreferenceLoss = "sigmoid"  # of VA rounds, as the three below
    dpo_beta: float = Field(default=0.1, gt=0)  # Rafailov et al. 2023, beta
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)
    simpo_gamma: float = Field(default=0.5, ge=0)
    prox_mu: float = Field(
        default=0.0, ge=0
    )  # Li et al. 2020 (FedProx), mu: how hard training is pulled back to the global adapter
    freeze_a: bool = False  # Sun et al. 2024 (FFA-LoRA): train B alone
    lower_ranks: bool = False  # a client may train fewer directions than the federation's LoRA has
    threads: Threads = 0  # 0: as many as torch takes; named here since the sums' last bits depend on it
    codec: CodecSpec = WHOLE  # of the update, and of the next round's adapter
    personal: PersonalSpec | None = None  # the client's own adapter, beside the federation's

    @model_validator(mode="after")
    def _labels_are_smooth(self) -> Self:
        require_smooth_labels(self.preference_loss, self.label_smoothing)
        return self

    def with_share(self, share: float) -> Self:
        """The same with so much of the learning rate, 0 < share <= 1."""
        return self if share == 1 else self.model_copy(update={"learning_rate": share * self.learning_rate})

    @property
    def at_a_time(self) -> int:
        """The examples or pairs that go through the model together."""
        return min(self.micro_batch_size or self.batch_size, self.batch_size)

    @property
    def preference(self) -> PreferenceSpec:
        """The loss of VA rounds."""
        return PreferenceSpec(
            loss=self.preference_loss,
            beta=self.dpo_beta,
            label_smoothing=self.label_smoothing,
            simpo_gamma=self.simpo_gamma,
        )


ResultRound = Literal["best", "last"]
LateUpdates = Literal["drop", "next"]  # whether an answer that comes after its round is closed counts in the next


class RoundPlan(Value):
    """The rounds of a run: SFT rounds numbered from 0, then VA rounds. Each phase has `fed_rounds` of them, unless its
    own number is given.

    >>> plan = RoundPlan(fed_rounds=3, va_rounds=5, num_clients=2, clients_per_round=2, seed=0)
    >>> plan.rounds_of("sft"), plan.rounds_of("va"), plan.total_rounds, plan.phase_of(3)
    (3, 5, 8, 'va')
    """

    fed_rounds: int = Field(ge=1)
    sft_rounds: int | None = Field(default=None, ge=0)
    va_rounds: int | None = Field(default=None, ge=0)
    num_clients: int = Field(ge=1)
    clients_per_round: int = Field(ge=1)
    min_clients: int = Field(default=1, ge=1)
    max_update_ratio: float = Field(default=100.0, ge=0)  # of an update's change over the round's median; 0: no bound
    lr_schedule: Schedule = "constant"  # over the rounds of a phase, beside the one within a round
    lr_floor: float = Field(default=0.0, ge=0, le=1)  # the share of the peak that it falls to
    patience: int = Field(default=0, ge=0)  # so many rounds without a gain beyond its noise end a phase; 0: none do
    result_round: ResultRound = "last"  # whose adapter is a phase's result
    late_updates: LateUpdates = "drop"
    open: bool = False  # clients may join and leave between rounds; `num_clients` is their number at the start
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _samples_fit(self) -> Self:
        if self.clients_per_round > self.num_clients:
            raise ValueError(f"CLIENTS_PER_ROUND={self.clients_per_round} is more than NUM_CLIENTS={self.num_clients}")
        if self.min_clients > self.clients_per_round:
            raise ValueError(
                f"MIN_CLIENTS={self.min_clients} is more than the {self.clients_per_round} clients of a round"
            )
        return self

    @model_validator(mode="after")
    def _has_a_round(self) -> Self:
        if self.total_rounds == 0:
            raise ValueError("SFT_ROUNDS=0 and VA_ROUNDS=0: a run has at least one round")
        return self

    def rounds_of(self, phase: Phase) -> int:
        """The number of rounds of a phase, 0 or more."""
        own = self.sft_rounds if phase == "sft" else self.va_rounds
        return self.fed_rounds if own is None else own

    @property
    def total_rounds(self) -> int:
        """The number of rounds of both phases."""
        return self.rounds_of("sft") + self.rounds_of("va")

    def phase_of(self, round_number: int) -> Phase:
        """The phase of a round, 0 … total_rounds - 1."""
        return "sft" if round_number < self.rounds_of("sft") else "va"

    def first_round(self, phase: Phase) -> int:
        """The number of a phase's first round; the number after the last round of the phase before where it has
        none.
        """
        return 0 if phase == "sft" else self.rounds_of("sft")

    def ends_phase(self, round_number: int) -> bool:
        """Whether this round is the last of its phase."""
        phase = self.phase_of(round_number)
        return round_number + 1 == self.first_round(phase) + self.rounds_of(phase)

    @property
    def watches(self) -> bool:
        """Whether the validation split decides on anything."""
        return self.patience > 0 or self.result_round == "best"

    def as_it_went(self, early: Mapping[Phase, int]) -> Self:
        """The plan with the rounds that phases had which ended early."""
        return self.model_copy(update={f"{phase}_rounds": rounds for phase, rounds in early.items()}) if early else self

    def learning_rate_share(self, round_number: int) -> float:
        """The share of the phase's learning rate in this round: all of it in the first, and after i of n rounds
        floor + (1 - floor) s(i / n), s falling from 1 to 0. So it is never 0.
        """
        phase = self.phase_of(round_number)
        done = round_number - self.first_round(phase)
        if done == 0 or self.lr_schedule == "constant":
            return 1.0
        return self.lr_floor + (1 - self.lr_floor) * schedule_share(self.lr_schedule, done / self.rounds_of(phase))

    def begins_phase(self, round_number: int) -> bool:
        """Whether this round is the first of its phase."""
        return round_number == self.first_round(self.phase_of(round_number))


SmallClients = Literal["merge", "drop"]


class ClientColumn(Value):
    """Clients that the data names: a column of its rows says whose each row is."""

    column: str = Field(min_length=1)
    min_examples: int = Field(default=1, ge=1)  # training examples of both kinds together; with fewer it is small
    small: SmallClients = "merge"  # small clients become one that is not, or are left out
    anonymize: bool = False  # the manifest does not say the names


class PartitionSpec(Grown):
    """The partition of the training split to the clients."""

    LATER = frozenset({"clients"})

    num_clients: int = Field(ge=0)  # 0: as many as `clients` finds; none where the data is the server's alone
    alpha: float | None = Field(gt=0)  # of the Dirichlet distribution, per topic; None is infinity, that is IID
    size_skew: float = Field(default=1.0, ge=1)  # largest client : smallest client, geometrically between
    num_topics: int = Field(default=8, ge=1)  # clusters, for free text without a label
    topic_column: str = ""
    clients: ClientColumn | None = None  # in the place of a draw
    seed: int = Field(ge=0)


class ExchangeSpec(Value):
    """The server's settings for an exchange directory."""

    num_clients: int = Field(ge=1)
    quorum: int = Field(ge=1)  # with fewer good updates the round is tried again
    retries: int = Field(ge=0)  # how often
    timeout_s: float = Field(gt=0)  # how long an attempt waits for clients that live
    stale_s: float = Field(gt=0)  # a heartbeat that is older means that the client is dead
    keep_rounds: int = Field(ge=0)  # finished rounds whose files stay
    originals: tuple[int, ...] = ()  # clients that know only the original files
    watch: Literal["auto", "notify", "poll"] = "auto"
    late: LateUpdates = "drop"
    open: bool = False  # clients may join and leave between rounds

    @model_validator(mode="after")
    def _late_answers_stay(self) -> Self:
        if self.late == "next" and self.keep_rounds == 0:
            raise ValueError("LATE_UPDATES=next needs KEEP_ROUNDS >= 1: late answers lie among the last round's files")
        return self

    @model_validator(mode="after")
    def _originals_are_clients(self) -> Self:
        if (last := max(self.originals, default=0)) >= self.num_clients:
            raise ValueError(
                f"original_clients names client {last}, num_clients is {self.num_clients}, and the first is 0"
            )
        return self


def named_seed(seed: int, *names: object) -> int:
    """A seed in [0, 2^63) for one named purpose, e.g. `named_seed(42, "sft", round, client)`.

    Hashing keeps the draws of one purpose independent of how many draws another one makes.
    """
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


SYNTHETIC = "synthetic"
NoiseKind = Literal["shuffled", "flipped", "duplicated"]


class DataSpec(Grown):
    """From sources to shards. Two equal specs over the same sources give the same bytes."""

    LATER = frozenset({"server_only", "client_test_share"})

    sft_data: str = Field(min_length=1)
    va_data: str = Field(min_length=1)  # a source, or `SYNTHETIC`: pairs made from the SFT data
    max_sft_examples: int = Field(default=0, ge=0)  # 0 takes all
    max_va_examples: int = Field(default=0, ge=0)
    test_examples: int = Field(ge=1)  # at most so many of each kind, and never more than a fifth
    learn_examples: int = Field(default=0, ge=0)  # likewise, a twentieth; 0 in manifests of earlier versions
    validation_examples: int = Field(ge=1)  # likewise, a twentieth
    skip_bad_rows: bool = False
    partition: PartitionSpec
    noisy_clients: tuple[int, ...] = ()
    noise_kind: NoiseKind = "shuffled"
    server_only: bool = False  # no shards: every client has its own data
    client_test_share: float = Field(default=0.0, ge=0, le=0.5)  # of a shard, kept apart for the client's own test

    @property
    def seed(self) -> int:
        return self.partition.seed

    def source(self, phase: Phase) -> str:
        return self.sft_data if phase == "sft" else self.va_data

    def max_examples(self, phase: Phase) -> int:
        return self.max_sft_examples if phase == "sft" else self.max_va_examples

    @model_validator(mode="after")
    def _has_clients(self) -> Self:
        if self.server_only != (self.partition.num_clients == 0 and self.partition.clients is None):
            raise ValueError("data without clients is the server's alone, and no other is")
        return self

    @property
    def client_column(self) -> str:
        """The column that names a row's client; empty where rows are dealt by a draw."""
        return self.partition.clients.column if self.partition.clients else ""

    def of_clients(self, count: int) -> Self:
        """The same with so many clients."""
        return self.model_copy(update={"partition": self.partition.model_copy(update={"num_clients": count})})

    def filled(self, made: DataSpec) -> Self:
        """The same with the number of clients in data that was made of it, where it leaves the number to the data."""
        return self if self.partition.num_clients else self.of_clients(made.partition.num_clients)
