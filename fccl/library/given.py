"""From keyword arguments to settings: which function takes which, and one line for one that it does not take."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypedDict

from fccl.config import Settings, load_settings
from fccl.config.fields import choices_of
from fccl.errors import SettingsError
from fccl.library.arguments import (
    AggregationArguments,
    ClientArguments,
    ContributionArguments,
    DataArguments,
    EvaluationArguments,
    ExchangeArguments,
    FederationArguments,
    FoldersArguments,
    ModelArguments,
    OrchestratorArguments,
    PrivacyArguments,
    RunArguments,
    TrainingArguments,
)


class PrepareArguments(RunArguments, DataArguments, FederationArguments, FoldersArguments):
    """The arguments of `fccl.prepare`: the settings of `fccl prepare`."""


class SharedRunArguments(
    PrepareArguments,
    ModelArguments,
    TrainingArguments,
    ContributionArguments,
    AggregationArguments,
    PrivacyArguments,
    EvaluationArguments,
):
    """The settings that `fccl run` and `fccl orchestrator` both read."""


class WholeRunArguments(SharedRunArguments, total=False):
    """The arguments of `fccl.FederatedRun`: the settings of `fccl run`."""

    state_dir: str | os.PathLike[str]
    min_shard: int


class WholeOrchestratorArguments(SharedRunArguments, ExchangeArguments, OrchestratorArguments):
    """The arguments of `fccl.Orchestrator`: the settings of `fccl orchestrator`."""


class WholeClientArguments(ExchangeArguments, ClientArguments, total=False):
    """The arguments of `fccl.Client`: the settings of `fccl client`."""

    data_dir: str | os.PathLike[str]
    client_lora_r: str
    sft_data: str
    va_data: str
    skip_bad_rows: bool
    client_test_share: float
    dp_where: Literal["none", "client"]
    dp_unit: Literal["client", "example"]
    dp_clip: float
    dp_noise: float
    dp_epsilon: float
    dp_delta: float
    secure_aggregation: bool
    secure_threshold: float
    min_clients: int


class ReplayArguments(ContributionArguments, AggregationArguments):
    """The arguments of `fccl.replay` beside its own: the settings of `fccl replay`."""


class VerifyArguments(TypedDict, total=False):
    """The arguments of `fccl.verify` beside its own: a rule of somebody's own, named."""

    contribution_source: str | type
    aggregation: str | type


READERS: Mapping[str, type] = {
    "fccl.prepare": PrepareArguments,
    "fccl.FederatedRun": WholeRunArguments,
    "fccl.Orchestrator": WholeOrchestratorArguments,
    "fccl.Client": WholeClientArguments,
    "fccl.replay": ReplayArguments,
    "fccl.verify": VerifyArguments,
}
METHODS = {"evaluate": "call evaluate() of the run"}  # settings that are methods here


def settings_from(who: str, given: Mapping[str, Any], kind: type) -> Settings:
    """The settings that these arguments ask for, with environment, `.env`, preset and defaults.

    Raises `SettingsError` for a setting that is unknown, out of range, or not read by `who`.

    >>> settings_from("fccl.prepare", {"num_clients": 5}, PrepareArguments).num_clients
    5
    """
    settings = load_settings(spelt(given))
    if strange := sorted(set(given) - set(kind.__annotations__) | set(given) & set(METHODS)):
        raise SettingsError(f"{who} does not read {strange[0]}", hint=_way_out(strange[0]))
    return settings


def spelt(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as settings have them: a class as the path to it. Raises `SettingsError` as `settings_from` does."""
    return {name: _spelt(name, value) for name, value in given.items()}


def _way_out(name: str) -> str:
    """The place of a setting that was given to the wrong one."""
    readers = (who for who, kind in READERS.items() if name in kind.__annotations__)
    return METHODS.get(name) or f"leave it out; it is read by {', '.join(readers)}"


def require_count(name: str, value: object) -> None:
    """Raises `SettingsError` unless this is a whole number >= 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SettingsError(f"{name}={value!r}: allowed is a whole number >= 0", hint="0 takes all")


def require_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raises `SettingsError` unless this is one of the names."""
    if value not in allowed:
        raise SettingsError(f"{name}={value!r}: allowed is one of {', '.join(allowed)}")


def _spelt(name: str, value: Any) -> Any:
    """A class as `package.module:Class`, which is how a run writes down the rule that it used.

    Raises `SettingsError` for a rule that is built already.
    """
    if name in Settings.model_fields and choices_of(Settings.model_fields[name]) and not isinstance(value, str | type):
        kind = type(value).__name__
        raise SettingsError(
            f"{name} is an object of the class {kind}",
            hint=f"give the class itself, {name}={kind}: a run builds it from the settings that it reads",
        )
    return f"{value.__module__}:{value.__qualname__}" if isinstance(value, type) else value
