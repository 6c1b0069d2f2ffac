"""The charts of a run: `charts.client_losses(view, "sft")` and so on. Each is an altair chart, or None when there is
nothing to draw.

Every chart is as wide as its place and counts rounds from 1. It has about 5,000 rows at most, however long the run.
Rounds and clients are put together where needed, and the chart says so below its title.
"""

from fccl.view.charts.comparison import gap_closed
from fccl.view.charts.data import topics
from fccl.view.charts.evaluation import Measure, evaluation
from fccl.view.charts.final_influence import final_influence
from fccl.view.charts.influence import prior_and_weight, weight_against_samples, weights_area, weights_heat
from fccl.view.charts.lines import (
    client_losses,
    effective_clients,
    lora_error,
    overlay,
    preference_accuracy,
    scores,
    standing,
    validation_loss,
)
from fccl.view.charts.parts import Picture
from fccl.view.charts.verification import verification_gain, verification_seconds

__all__ = [
    "Measure",
    "Picture",
    "client_losses",
    "effective_clients",
    "evaluation",
    "final_influence",
    "gap_closed",
    "lora_error",
    "overlay",
    "preference_accuracy",
    "prior_and_weight",
    "scores",
    "standing",
    "topics",
    "validation_loss",
    "verification_gain",
    "verification_seconds",
    "weight_against_samples",
    "weights_area",
    "weights_heat",
]
