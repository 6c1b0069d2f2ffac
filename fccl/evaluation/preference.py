"""When a model prefers the chosen response, and when it is a tie."""

from __future__ import annotations

import numpy as np

from fccl.evaluation.bootstrap import Bootstrap, Floats
from fccl.records.evaluation import PreferenceResult

TIE_NATS = 1e-4  # margins below this are float noise: the two responses are the same tokens, or as good as


def choices(margins: Floats) -> Floats:
    """Of margins log p(chosen) - log p(rejected) (n,): 1 where the chosen response is likelier, 0 where it is less
    likely, NaN for a tie.
    """
    return np.where(np.abs(margins) < TIE_NATS, np.nan, (margins > 0).astype(np.float64))


def decided(values: Floats) -> Floats:
    """Those that are no tie."""
    return values[~np.isnan(values)]


def accuracy(margins: Floats) -> float | None:
    """right / (right + wrong); None when every pair is a tie."""
    made = decided(choices(margins))
    return float(made.mean()) if len(made) else None


def preference(margins: Floats, boot: Bootstrap) -> PreferenceResult:
    """Right, wrong and ties of margins (n,), and the accuracy with its interval."""
    made = decided(choices(margins))
    right = int(made.sum())
    return PreferenceResult(
        accuracy=boot.mean(made) if len(made) else None,
        right=right,
        wrong=len(made) - right,
        ties=len(margins) - len(made),
    )
