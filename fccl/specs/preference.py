"""The loss of preference pairs as a value."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fccl.specs.values import Value

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
