"""`STATE_DIR/client_i/personal/personal_RUN_PHASE.json`: a client's newest personal adapter, for its own eyes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fccl.specs import ModelSpec, Phase, Round, RunId, Value, exactly
from fccl.specs.personal import PersonalSpec


class PersonalRecord(Value):
    """A personal adapter: the run and the round that it is of, how it was made, and the model that it belongs to."""

    version: Annotated[int, exactly(1)] = 1
    run_id: RunId
    client_id: int = Field(ge=0)
    phase: Phase
    round: Round
    personal: PersonalSpec
    model: ModelSpec
    adapter_sha256: str
