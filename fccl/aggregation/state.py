"""What an aggregation rule carries from round to round at the server: committed with the round, and part of the bytes
that must agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from fccl.adapters.tensor_files import read_tensors, to_bytes
from fccl.errors import AdapterError, FederationError


@dataclass(frozen=True, eq=False)
class ServerState:
    """Named float64 tensors (momentum, second moments).

    Raises `FederationError` when built of anything else or of numbers that are not finite.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if not (
                isinstance(name, str)
                and isinstance(tensor, Tensor)
                and tensor.dtype == torch.float64
                and tensor.device.type == "cpu"
            ):
                raise FederationError(f"{name!r} of the server state is not a float64 tensor on the CPU")
            if not bool(torch.isfinite(tensor).all()):
                raise FederationError(f"{name} of the server state has values that are not finite")
        ordered = {name: self.tensors[name].detach().contiguous() for name in sorted(self.tensors)}
        object.__setattr__(self, "tensors", MappingProxyType(ordered))

    @cached_property
    def sha256(self) -> str:
        """A hash of names, shapes and bits: equal exactly when the states are."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            digest.update(f"{name}:{tuple(tensor.shape)};".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

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
