"""Specifications, as values: the model, the local training, the rounds, the data. Built valid or not built.

Settings are read once, in `apps` and `library`, and narrowed to these on the way down; nothing below sees a `Settings`.
"""

from fccl.specs.bounds import (
    PHASES,
    ClientId,
    Count,
    Loss,
    Phase,
    Rank,
    Rate,
    Round,
    RunId,
    Samples,
    Seconds,
    SignedLoss,
    Threads,
    Time,
)
from fccl.specs.codecs import WHOLE, CodecSpec
from fccl.specs.data import SYNTHETIC, ClientColumn, DataSpec, NoiseKind, PartitionSpec, SmallClients
from fccl.specs.exchange import ExchangeSpec
from fccl.specs.model import PLAIN_TEXT, BasePrecision, Engine, LearnTurns, ModelSpec, PromptFormat, TextForm
from fccl.specs.personal import PersonalSpec
from fccl.specs.preference import REFERENCE_FREE, SMOOTHED, PreferenceLoss, PreferenceSpec, require_smooth_labels
from fccl.specs.rounds import LateUpdates, ResultRound, RoundPlan
from fccl.specs.seeds import named_seed
from fccl.specs.training import Schedule, TrainSpec, schedule_share
from fccl.specs.values import Grown, Value, exactly

__all__ = [
    "PHASES",
    "PLAIN_TEXT",
    "REFERENCE_FREE",
    "SMOOTHED",
    "SYNTHETIC",
    "WHOLE",
    "BasePrecision",
    "ClientColumn",
    "ClientId",
    "CodecSpec",
    "Count",
    "DataSpec",
    "Engine",
    "ExchangeSpec",
    "Grown",
    "LateUpdates",
    "LearnTurns",
    "Loss",
    "ModelSpec",
    "NoiseKind",
    "PartitionSpec",
    "PersonalSpec",
    "Phase",
    "PreferenceLoss",
    "PreferenceSpec",
    "PromptFormat",
    "Rank",
    "Rate",
    "ResultRound",
    "Round",
    "RoundPlan",
    "RunId",
    "Samples",
    "Schedule",
    "Seconds",
    "SignedLoss",
    "SmallClients",
    "TextForm",
    "Threads",
    "Time",
    "TrainSpec",
    "Value",
    "exactly",
    "named_seed",
    "require_smooth_labels",
    "schedule_share",
]
