"""Messages between a server and its clients: requests down, answers up, and the work in between."""

from fccl.messages.clients import (
    ByExample,
    Learner,
    LoadShard,
    Service,
    SeveralAtOnce,
    StatusListener,
    Worker,
    attempt,
    by_example,
    declined,
    guarded,
)
from fccl.messages.coding import Residuals, ResidualsInFolders, ResidualsInMemory
from fccl.messages.declare import Declaration, DeclareTask
from fccl.messages.evaluate import ClientEvaluation, EvaluateTask
from fccl.messages.fit import ClientUpdate, Corrections, FitSettings, FitTask, OwnCorrection
from fccl.messages.members import Statement
from fccl.messages.own_test import OwnTest, OwnTestTask
from fccl.messages.requests import (
    ClientFailure,
    Given,
    Reply,
    ReplyType,
    Request,
    ServedRequest,
    Terms,
    read_terms,
    status_now,
)

Answer = ClientUpdate | ClientFailure

__all__ = [
    "Answer",
    "ByExample",
    "ClientEvaluation",
    "ClientFailure",
    "ClientUpdate",
    "Corrections",
    "Declaration",
    "DeclareTask",
    "EvaluateTask",
    "FitSettings",
    "FitTask",
    "Given",
    "Learner",
    "LoadShard",
    "OwnCorrection",
    "OwnTest",
    "OwnTestTask",
    "Reply",
    "ReplyType",
    "Request",
    "Residuals",
    "ResidualsInFolders",
    "ResidualsInMemory",
    "ServedRequest",
    "Service",
    "SeveralAtOnce",
    "Statement",
    "StatusListener",
    "Terms",
    "Worker",
    "attempt",
    "by_example",
    "declined",
    "guarded",
    "read_terms",
    "status_now",
]
