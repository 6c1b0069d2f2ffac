"""From settings to personal adapters: what goes with them, and where a client keeps its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.messages import Learner
from fccl.paths import StatePaths
from fccl.training.personal import PersonalAdapters, PersonalLearner

_MADE_ANEW = ("svd", "exact")  # of LORA_AGGREGATION: each round's factors are of other directions than the last's
_OFF = "leave PERSONALIZE out"


def require_personal(settings: Settings) -> None:
    """Raises `SettingsError` where personal adapters could not be scored, or Ditto's pull would mean nothing."""
    if settings.personalize == "off":
        return
    if settings.client_test_share == 0:
        raise SettingsError(
            f"PERSONALIZE={settings.personalize}: a personal adapter is scored on examples that its client keeps "
            "apart, and CLIENT_TEST_SHARE is 0",
            hint="leave CLIENT_TEST_SHARE out: 0.1 is kept apart then",
        )
    if settings.personalize == "ditto" and settings.lora_aggregation in _MADE_ANEW:
        raise SettingsError(
            f"PERSONALIZE=ditto does not go with LORA_AGGREGATION={settings.lora_aggregation}: a round's factors are "
            "of other directions than the last's, so nothing can be pulled to them",
            hint="use PERSONALIZE=finetune, or another LORA_AGGREGATION",
        )


def require_own_steps(settings: Settings, learner: Learner | None) -> None:
    """Raises `SettingsError` where Ditto's steps would be those of somebody's own learner."""
    if learner is not None and settings.personalize == "ditto":
        raise SettingsError(
            f"PERSONALIZE=ditto pulls each step of FCCL's own training, and {type(learner).__name__} takes others",
            hint="use PERSONALIZE=finetune",
        )


def personal_learner(state: Path, learner: Learner, tell: Callable[[str], None] = lambda line: None) -> PersonalLearner:
    """The learner that makes its clients' personal adapters too, in each client's folder of `state`."""
    return PersonalLearner(learner, PersonalAdapters(StatePaths(state).personal), tell)
