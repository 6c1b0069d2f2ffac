"""A warning after a first round that made the model worse: the usual reason is the learning rate."""

from __future__ import annotations

from fccl.records.run import RoundRecord, Validation

_MORE = {"client": "More clients in a round", "example": "More examples and a larger BATCH_SIZE"}


def warning(record: RoundRecord, base: Validation | None, learning_rate: float) -> str:
    """A line on a run's first round of SFT after which the validation loss is above the base model's; else empty."""
    if record.round or record.phase != "sft" or base is None or record.validation is None:
        return ""
    now, before = record.validation.loss, base.loss
    if now <= before:
        return ""
    if record.privacy:
        return (
            f"The first round raised the validation loss from {before:.3f} to {now:.3f}: under differential privacy "
            f"noise is the usual reason. {_MORE[record.privacy.unit]}, a smaller DP_CLIP, and fewer trained values "
            "(LORA_R, LORA_LAYERS) are the first things to try."
        )
    return (
        f"The first round raised the validation loss from {before:.3f} to {now:.3f}: SFT_LR={learning_rate:g} is too "
        "high for this model, or the clients' data is unlike the validation split. A new run with a third of it is the "
        "first thing to try."
    )
