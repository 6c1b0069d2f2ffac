"""Local training as a value, and learning rates over steps and rounds."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from fccl.specs.bounds import Threads
from fccl.specs.codecs import WHOLE, CodecSpec
from fccl.specs.personal import PersonalSpec
from fccl.specs.preference import PreferenceLoss, PreferenceSpec, require_smooth_labels
from fccl.specs.values import Grown

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
