"""The parts of a comparison, as values: the JSON files of its trials. What it says in the end is
`fccl.records.comparison`. Imports no torch.

Conventions. A trial is one scenario, one method, one seed. Its `losses` and `units` run over the test examples: the
test loss is sum(losses) / sum(units). In SFT scenarios it is nats per response token, in VA scenarios the DPO loss
(nats) per pair. Lower is better.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AliasChoices, Field, model_validator

from fccl.records.comparison import Aside
from fccl.specs import ModelSpec, Phase, RoundPlan, TrainSpec, Value

Attack = Literal[
    "none",
    "free_rider",
    "free_rider_noise",
    "sign_flip",
    "scaling",
    "loss_forger",
    "sacrifice",
    "reversal",
    "dp_noise",
    "hidden_flip",
    "backdoor",
    "unsafe",
    "little_is_enough",
    "inner_product",
    "min_max",
    "copycat",
    "mirror",
]
Way = Literal["base", "alone", "centralised", "server", "federated"]


class Participant(Value):
    """One client of a trial: its data, and what it does to its update and its report."""

    client_id: int = Field(ge=0)
    shard: str  # SHA-256 of its shard file
    attack: Attack = "none"


class ServerView(Value):
    """The part of its learning examples that the server really has, and what is wrong with them. By default all."""

    topics: int = Field(default=0, ge=0)  # only those of so many topics; 0: of all
    examples: int = Field(default=0, ge=0)  # at most so many; 0: all
    mislabelled: float = Field(default=0.0, ge=0, le=1)  # share that have the answer of another one
    elsewhere: bool = False  # from another source than the clients' data


WHOLE = ServerView()


class TrialSpec(Value):
    """All that the result of a trial depends on.

    Two trials with an equal spec are one: scenarios that agree in it share the result.
    """

    versions: dict[str, str]
    model: ModelSpec
    model_sha256: str  # of the base model's weights
    phase: Phase
    train: TrainSpec  # of that phase
    plan: RoundPlan
    start: str  # the key of the spec that makes the starting adapter; empty: a fresh one from the plan's seed
    clients: tuple[Participant, ...]  # those that take part, in client order
    way: Way
    # those of weights and aggregation that the method reads; `rule` is their name in the key and in earlier files
    settings: dict[str, str | int | float] = Field(
        validation_alias=AliasChoices("settings", "rule"), serialization_alias="rule"
    )
    validation: str  # SHA-256 of the server's validation file of the phase
    test: str  # and of the test file
    learn: str = ""  # and of the learn file, where the method uses it
    learn_train: TrainSpec | None = None  # of the server on its learn split, after every aggregation
    eval_batch_size: int = Field(ge=1)
    rules: dict[str, str] = Field(default_factory=dict)  # classes of one's own: the SHA-256 of the file of each
    # of the sources that start from a prior; 2: far out is beyond three medians, steps in a unit that no client sets
    # alone
    formula: int = 1
    server: ServerView = WHOLE  # what the server has of its split
    specialist: str = ""  # a topic that the first client alone holds, and the server has no example of
    aside: Aside = ""  # what is measured beside the test loss
    until_flat: bool = False  # ends when FedAvg has stopped gaining, at the latest after all rounds
    agreement: bool = False  # whether each round's weights are held against the exact Shapley values
    tuning: bool = False  # whether the final adapter is judged on the learn split

    @property
    def key(self) -> str:
        """A hash of everything that is not its default: an equal spec, the same key, and a setting that is new in the
        program changes none.
        """
        text = self.model_dump_json(exclude_defaults=True, by_alias=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def rounds(self) -> int:
        """The number of rounds of the trial's phase, at most."""
        return self.plan.rounds_of(self.phase)

    def with_rounds(self, rounds: int) -> Self:
        """The same trial with so many rounds, whether or not anything is gained in them.

        A VA trial begins with the number of the round after the SFT rounds, however many VA rounds it has.
        """
        if self.phase == "sft":
            changes: dict[str, int | None] = {"fed_rounds": rounds}
        else:
            changes = {"va_rounds": None if rounds == self.plan.fed_rounds else rounds}
        return self.model_copy(update={"plan": self.plan.model_copy(update=changes), "until_flat": False})


class RoundSummary(Value):
    """One round of a trial. The tuples run over `clients`."""

    clients: tuple[int, ...]
    weights: tuple[float, ...] | None  # how much each counted in the end; None for a rule that is no weighted sum
    loss: float  # of the new adapter on the server's validation split, in the unit of the phase
    tokens: int = 0  # trained by all clients; 0 in earlier files
    bytes: int = 0  # of adapters, sent to the clients and received from them
    # the rank correlation of how much each change counted with exact Shapley values on the whole learn split
    agreement: float | None = None
    halves: float | None = None  # and of the values on two halves of that split with each other


class TrialResult(Value):
    """One trial. Written whole when it is done."""

    spec: TrialSpec = Field(validation_alias=AliasChoices("spec", "work"))  # `work` in earlier files
    # of processors, in this process; updates that were trained before do not count, and the beginning of a longer trial
    # takes 0
    seconds: float = Field(ge=0)
    training_seconds: float = Field(ge=0)  # of all clients' training, whoever trained it
    weighing_seconds: float = Field(ge=0)  # of the server's verification, where there is one
    rounds: tuple[RoundSummary, ...] = ()  # none for `base`, and for `alone`, which is as many federations as clients
    losses: tuple[float, ...] = ()  # empty when the model cannot be scored
    units: tuple[float, ...] = ()
    right: tuple[float, ...] = ()  # VA: 1 where the chosen response is the likelier one
    decided: tuple[float, ...] = ()  # VA: 1 where it is no tie
    aside: tuple[float, ...] = ()  # the figure beside the loss is sum(aside) / sum(aside_units)
    aside_units: tuple[float, ...] = ()
    by_client: dict[int, float] = Field(
        default_factory=dict
    )  # `alone`: each client's own test loss; their range stands in the trial's line
    learn_loss: float | None = None  # of the final adapter on the server's learn split; tuning alone reads it
    adapter_sha256: str = ""  # of the final adapter, to tell whether another run came to the same; empty for `alone`
    trouble: tuple[
        str, ...
    ] = ()  # what went wrong: a client that was excluded from a round, rounds that could not be run

    @model_validator(mode="after")
    def _one_of_each_for_every_example(self) -> Self:
        if len({len(self.losses), len(self.units), len(self.right), len(self.decided)} - {0}) > 1:
            raise ValueError("losses, units, right and decided are of unlike length")
        return self

    @property
    def loss(self) -> float | None:
        """The test loss. None when the model cannot be scored."""
        return mean_loss(self.losses, self.units) if self.units else None


def mean_loss(losses: ArrayLike, units: ArrayLike) -> float:
    """Of one model on all test examples."""
    return float(np.sum(losses) / np.sum(units))
