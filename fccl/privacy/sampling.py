"""`ExampleSampling`: the draw of a client's batches under DP-SGD, which its privacy follows from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import numpy as np
from pydantic import Field

from fccl.privacy.secrets import Draws
from fccl.specs import TrainSpec, Value


class ExampleSampling(Value):
    """`steps` batches in a round. Each takes every example by itself with probability `rate` (Poisson sampling)."""

    rate: float = Field(gt=0, le=1)
    steps: int = Field(ge=1)

    @classmethod
    def of(cls, train: TrainSpec, examples: int) -> Self:
        """That of a client with so many examples: as many steps as without privacy, of BATCH_SIZE examples on average.

        >>> spec = TrainSpec(epochs=2, learning_rate=0.1, batch_size=8, warmup=0, max_grad_norm=1)
        >>> ExampleSampling.of(spec, 20)
        ExampleSampling(rate=0.4, steps=6)
        """
        steps = train.epochs * math.ceil(examples / train.batch_size)
        return cls(rate=min(1.0, train.batch_size / examples), steps=steps)

    def batches(self, examples: int, draws: Callable[[int], Draws]) -> list[list[int]]:
        """The examples of every step, by their places; a batch may be empty. `draws` has the stream of each step."""
        drawn = (draws(step).uniforms(examples) < self.rate for step in range(self.steps))  # each (examples,)
        return [np.flatnonzero(each).tolist() for each in drawn]
