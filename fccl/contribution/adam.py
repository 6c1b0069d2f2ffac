"""Adam on a handful of numbers (Kingma & Ba 2015), for rules that learn their weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
EPSILON = 1e-8


@dataclass
class Adam:
    """m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g²; a step is -rate m̂ / (√v̂ + ε), both corrected for their start."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    steps: int = 0
    _mean: Numbers = field(default_factory=lambda: np.zeros(1))
    _square: Numbers = field(default_factory=lambda: np.zeros(1))

    def step(self, gradient: Numbers) -> Numbers:
        """The change of the numbers whose gradient this is: of its shape."""
        self.steps += 1
        self._mean = self.beta1 * self._mean + (1 - self.beta1) * gradient
        self._square = self.beta2 * self._square + (1 - self.beta2) * gradient**2
        mean = self._mean / (1 - self.beta1**self.steps)
        square = self._square / (1 - self.beta2**self.steps)
        return np.asarray(-self.rate * mean / (np.sqrt(square) + EPSILON))


def softmax(logits: Numbers) -> Numbers:
    """exp(a_i) / sum_j exp(a_j), the largest subtracted first: (n,)."""
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum())


def through_softmax(weights: Numbers, gradient: Numbers) -> Numbers:
    """The gradient with respect to the logits, of that with respect to the weights: λ_i (g_i - sum_j λ_j g_j)."""
    return weights * (gradient - weights @ gradient)
