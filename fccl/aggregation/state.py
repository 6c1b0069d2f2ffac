"""State that an aggregation rule carries from round to round at the server: committed with the round, and part of the
bytes that must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from fccl.adapters.tensor_files import read_tensors, to_bytes
from fccl.adapters.tensors import settled, sha256_of
from fccl.errors import AdapterError, FederationError


@dataclass(frozen=True, eq=False)
class ServerState:
    """Named float64 tensors (momentum, second moments).

    Raises `FederationError` when built of anything else or of numbers that are not finite.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "tensors", settled(self.tensors, torch.float64).tensors)
        except AdapterError as error:
            raise FederationError(f"the server state: {error}") from error

    @cached_property
    def sha256(self) -> str:
        """A hash of names, shapes and bits: equal exactly when the states are."""
        return sha256_of(self.tensors)

    def vector(self, name: str, length: int) -> Tensor:
        """One tensor.

        Raises `FederationError` when the state has none of this length: it is another rule's or another model's.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape != (length,):
            raise FederationError(
                f"the aggregation's state has no {name} of {length:,} numbers: it is of another rule or of another "
                "model",
                hint="AGGREGATION, MODEL_NAME and LORA_* stay the same over a run",
            )
        return tensor

    def to_bytes(self) -> bytes:
        """The bytes of a safetensors file: the same for equal states."""
        return to_bytes(self.tensors, torch.float64)


def server_state_from_bytes(content: bytearray, source: str = "the server state") -> ServerState:
    """The inverse of `to_bytes`. Runs no code. Raises `FederationError` for anything that is not a server state."""
    try:
        return ServerState(read_tensors(content, source, torch.float64))
    except AdapterError as error:
        raise FederationError(str(error)) from error
