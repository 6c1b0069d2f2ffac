"""A warning after a first round that made the model worse: the usual reason is the learning rate."""

from __future__ import annotations

from fccl import phases
from fccl.messages import FitTask
from fccl.records.run import RoundRecord, Validation

_ROUNDING = 1e-6  # of the loss: less is no rise
_MORE = {"client": "More clients in a round", "example": "More examples and a larger BATCH_SIZE"}


def loss_before(task: FitTask, base: Validation | None) -> float | None:
    """The loss that a phase's first round began with, where it is known without a forward pass; None in other rounds.

    In SFT that of the start adapter or the base model, on pairs that of a policy which is its own reference.
    """
    if not phases.of(task.phase).has_pairs:
        return None if task.round or base is None else base.loss
    begins = task.reference is not None and task.adapter.sha256 == task.reference.sha256
    return phases.start_loss(task.phase, task.train.preference) if begins else None


def warning(record: RoundRecord, before: float | None, learning_rate: float) -> str:
    """A line on a phase's first round after which the validation loss is above the one before it; else empty."""
    if before is None or record.validation is None:
        return ""
    now = record.validation.loss
    if now - before <= _ROUNDING * max(1.0, abs(before)):
        return ""
    setting = "VA_LR" if phases.of(record.phase).has_pairs else "SFT_LR"
    if record.privacy:
        return (
            f"{_first(record)} raised the validation loss from {before:.3f} to {now:.3f}: under differential privacy "
            f"noise is the usual reason. {_MORE[record.privacy.unit]}, a smaller DP_CLIP, and fewer trained values "
            "(LORA_R, LORA_LAYERS) are the first things to try."
        )
    return (
        f"{_first(record)} raised the validation loss from {before:.3f} to {now:.3f}: {setting}={learning_rate:g} is "
        "too high for this model, or the clients' data is unlike the validation split. A new run with a third of it is "
        "the first thing to try."
    )


def _first(record: RoundRecord) -> str:
    return f"The first {'VA ' if phases.of(record.phase).has_pairs else ''}round"
