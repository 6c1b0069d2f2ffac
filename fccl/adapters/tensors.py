"""Named tensors as a value: checked, in one order, with one hash. `Adapter` and `ServerState` are made of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from fccl.adapters.tensor_files import METADATA
from fccl.errors import AdapterError


def settled(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The tensors sorted by name, contiguous, without a graph, in a mapping that nobody can write to.

    Raises `AdapterError` unless each has a printable name, is dense and finite, and of this type on the CPU.
    """
    for name, tensor in tensors.items():
        _check(name, tensor, dtype)
    return MappingProxyType({name: tensors[name].detach().contiguous() for name in sorted(tensors)})


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes and bits: equal exactly when the settled tensors are. It is no hash of a file."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _check(name: object, tensor: object, dtype: torch.dtype) -> None:
    if not isinstance(name, str) or name == METADATA or not name.isprintable():
        raise AdapterError(f"{name!r} is no name of a tensor")
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        raise AdapterError(f"{name} is not a dense tensor")
    if tensor.dtype != dtype or tensor.device.type != "cpu":
        raise AdapterError(f"{name} is {tensor.dtype} on {tensor.device}, expected {dtype} on the CPU")
    if not _finite(tensor):
        raise AdapterError(f"{name} has values that are not finite")


def _finite(tensor: Tensor) -> bool:
    """One pass and no copy: a NaN anywhere makes both the least and the greatest value NaN."""
    return tensor.numel() == 0 or all(math.isfinite(value) for value in map(float, torch.aminmax(tensor.detach())))
