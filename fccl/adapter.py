"""The `Adapter` value: named LoRA factors, as they travel between server and clients."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from fccl.errors import AdapterError
from fccl.files import storage_errors, write_bytes


@dataclass(frozen=True)
class Form:
    """The names and shapes of an adapter's tensors: what two adapters must share to be combined.

    `shapes` has each tensor's size along its dimensions, in numbers, by PEFT's name: A is (rank, fan_in), B (fan_out, rank).
    """

    shapes: Mapping[str, tuple[int, ...]]

    def require(self, other: Form) -> None:
        """Raises `AdapterError` unless `other` has the same names and shapes."""
        mine, theirs = self.shapes, other.shapes
        if mine.keys() != theirs.keys():
            missing, extra = sorted(mine.keys() - theirs.keys()), sorted(theirs.keys() - mine.keys())
            raise AdapterError(f"the adapters have different tensors (missing: {_few(missing)}; unexpected: {_few(extra)})")
        for name, shape in mine.items():
            if shape != theirs[name]:
                raise AdapterError(f"{name} has shape {theirs[name]}, expected {shape}")


@dataclass(frozen=True, eq=False)
class Adapter:
    """Tensors by name: float32, on the CPU, finite, sorted by name, never written to. Names are PEFT's own.

    Raises `AdapterError` when built of anything else.
    """

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise AdapterError("an adapter needs at least one tensor")
        for name, tensor in self.tensors.items():
            _check(name, tensor)
        ordered = {name: self.tensors[name].detach().contiguous() for name in sorted(self.tensors)}
        object.__setattr__(self, "tensors", MappingProxyType(ordered))

    @cached_property
    def sha256(self) -> str:
        """A hash of names, shapes and bits: equal exactly when the adapters are."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            digest.update(f"{name}:{tuple(tensor.shape)};".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def form(self) -> Form:
        """Names and shapes."""
        return Form({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})

    def require_same_form(self, other: Adapter) -> None:
        """Raises `AdapterError` unless `other` has the same names and shapes."""
        self.form.require(other.form)

    def load(self) -> Adapter:
        """Itself: an adapter in memory answers as one that is still in a file does (`fccl.stored.StoredAdapter`)."""
        return self

    def distance(self, other: Adapter) -> float:
        """The L2 norm of the difference, over all tensors."""
        self.require_same_form(other)
        return math.sqrt(sum(float((tensor.double() - other.tensors[name].double()).square().sum()) for name, tensor in self.tensors.items()))

    def to_bytes(self) -> bytes:
        """The bytes of a `torch.load`-able file: the same for equal adapters, whatever the file is called."""
        buffer = io.BytesIO()
        torch.save({name: tensor.clone() for name, tensor in self.tensors.items()}, buffer)
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write the file, all or nothing. Raises `StorageError`."""
        write_bytes(path, self.to_bytes())


def load_adapter(path: Path) -> Adapter:
    """Read a file that `save` wrote. Runs no code from it (`weights_only`). Raises `AdapterError` when it is anything else."""
    with storage_errors(path, "read"):
        content = path.read_bytes()
    return adapter_from_bytes(content, str(path))


def adapter_from_bytes(content: bytes | bytearray, source: str = "the adapter", form: Form | None = None) -> Adapter:
    """The inverse of `to_bytes`. Raises `AdapterError` for anything that is not an adapter, or not one of `form`."""
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a broken file; all of them mean the same here
        raise AdapterError(f"{source} is not a readable adapter file ({type(error).__name__})") from error
    if not isinstance(tensors, dict) or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()):
        raise AdapterError(f"{source} does not hold named tensors")
    if form is not None:  # before any value is read: a file may claim a shape that no memory holds
        form.require(Form({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
    return Adapter(tensors)


def _check(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        raise AdapterError(f"{name} is not a dense tensor")
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise AdapterError(f"{name} is {tensor.dtype} on {tensor.device}, expected torch.float32 on the CPU")
    if not _finite(tensor):
        raise AdapterError(f"{name} has values that are not finite")


def _finite(tensor: Tensor) -> bool:
    """One pass and no copy: a NaN anywhere makes both the least and the greatest value NaN."""
    return tensor.numel() == 0 or all(math.isfinite(value) for value in map(float, torch.aminmax(tensor.detach())))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
