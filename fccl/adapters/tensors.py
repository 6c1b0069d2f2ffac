"""Named tensors as a value: checked, in one order, with one hash. `Adapter` and `ServerState` are made of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from fccl.adapters.tensor_files import METADATA
from fccl.errors import AdapterError

TILE = 32_768  # numbers of a vector that are turned to float64 together: they stay near the core, and on one thread


class Settled(NamedTuple):
    """Tensors sorted by name, in a mapping that nobody can write to, and the size of the largest number in them."""

    tensors: Mapping[str, Tensor]
    largest: float


def settled(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Settled:
    """The tensors contiguous and without a graph; the check finds their largest number on its way.

    Raises `AdapterError` unless each has a printable name, is dense and finite, and of this type on the CPU.
    """
    largest = max((_checked(name, tensor, dtype) for name, tensor in tensors.items()), default=0.0)
    return Settled(MappingProxyType({name: tensors[name].detach().contiguous() for name in sorted(tensors)}), largest)


def size_of(tensor: Tensor) -> float:
    """The size of a tensor's largest number; not finite where any number is not.

    One pass and no copy: a NaN anywhere makes both the least and the greatest value NaN.
    """
    if tensor.numel() == 0:
        return 0.0
    least, greatest = map(float, torch.aminmax(tensor.detach()))
    return max(-least, greatest)


def squared_distance(one: Tensor, other: Tensor) -> float:
    """‖one - other‖² of two vectors (d,), in float64; the same bits whatever number of threads torch has."""
    total, room = 0.0, torch.empty(min(TILE, len(one)), dtype=torch.float64)
    for mine, theirs in zip(torch.split(one, TILE), torch.split(other, TILE), strict=True):
        total += float(room[: len(mine)].copy_(mine).sub_(theirs).square_().sum())
    return total


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes and bits: equal exactly when the settled tensors are. It is no hash of a file."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().reshape(-1).view("u1").data)
    return digest.hexdigest()


def _checked(name: object, tensor: object, dtype: torch.dtype) -> float:
    """The size of a good tensor's largest number."""
    if not isinstance(name, str) or name == METADATA or not name.isprintable():
        raise AdapterError(f"{name!r} is no name of a tensor")
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        raise AdapterError(f"{name} is not a dense tensor")
    if tensor.dtype != dtype or tensor.device.type != "cpu":
        raise AdapterError(f"{name} is {tensor.dtype} on {tensor.device}, expected {dtype} on the CPU")
    if not math.isfinite(size := size_of(tensor)):
        raise AdapterError(f"{name} has values that are not finite")
    return size
