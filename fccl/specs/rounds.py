"""The rounds of a run as a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from fccl.specs.bounds import Phase
from fccl.specs.training import Schedule, schedule_share
from fccl.specs.values import Value

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
