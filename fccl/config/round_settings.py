"""The settings of a run's rounds: where they start, how many of each phase, what ends one, whose adapter is its result,
the learning rate over them.
"""

from __future__ import annotations

from pydantic_settings import BaseSettings

from fccl.config.fields import knob
from fccl.specs import LateUpdates, ResultRound, Schedule

AS_FED_ROUNDS = -1  # of SFT_ROUNDS and VA_ROUNDS


class RoundSettings(BaseSettings):
    """The settings that say which rounds a run has."""

    start_from: str = knob(
        "model", "", "the adapter that a run starts from: a folder of PEFT, a .safetensors or a .pt; empty: a fresh one"
    )
    fed_rounds: int = knob(
        "federation", 3, "rounds of each phase whose own number is not given: so many of SFT, then as many of VA", ge=1
    )
    sft_rounds: int = knob("federation", AS_FED_ROUNDS, "SFT rounds; 0: none; -1: FED_ROUNDS", ge=AS_FED_ROUNDS)
    va_rounds: int = knob("federation", AS_FED_ROUNDS, "VA rounds; 0: none; -1: FED_ROUNDS", ge=AS_FED_ROUNDS)

    patience: int = knob(
        "federation",
        0,
        "so many rounds without a gain of the validation loss beyond its own noise end a phase; 0: all rounds are done",
        ge=0,
    )
    result_round: ResultRound = knob(
        "federation", "last", "the result of a phase: its last round's adapter, or that of the lowest validation loss"
    )
    late_updates: LateUpdates = knob(
        "federation",
        "drop",
        "an answer that comes after its round is closed: dropped, or counted in the next round of the phase, for less",
    )
    round_lr_schedule: Schedule = knob(
        "training", "constant", "how the learning rate falls over the planned rounds of a phase, beside LR_SCHEDULE"
    )
    round_lr_floor: float = knob("training", 0.0, "the share of it that this schedule falls to", ge=0, le=1)
