"""The Gaussian mechanism on changes of adapters: clipping, noise, and a grid that the result is rounded to.

The grid is a power of two near 2^-20 standard deviations. Noise of 53 bits has gaps that tell the sum apart where the
result is kept to its last bit (Mironov 2012). Rounded to the grid, the gaps are 2^-30 of a step and smaller.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.tensors import squared_distance
from fccl.privacy.secrets import Draws
from fccl.specs import TrainSpec

GRID_BITS = 20  # below the standard deviation


def trained_numbers(form: Form, train: TrainSpec) -> Tensor:
    """1 for each number that clients train and 0 for each that stays, in the order of `Adapter.vector`: (d,)."""
    parts = [
        torch.full((prod(shape),), 0.0 if train.freeze_a and ".lora_A." in name else 1.0, dtype=torch.float64)
        for name, shape in sorted(form.shapes.items())
    ]
    return torch.cat(parts)


def clipped_change(start: Adapter, trained: Adapter, clip: float) -> tuple[Tensor, bool]:
    """(trained - start) min(1, clip / ‖trained - start‖) in float64, (d,), and whether it was short enough as it was.

    The same bits whatever number of threads torch has.
    """
    start.require_same_form(trained)
    norm = math.sqrt(squared_distance(trained.vector, start.vector))
    change = trained.vector.double() - start.vector.double()  # (d,)
    return (change, True) if norm <= clip else (change * (clip / norm), False)


def noised(total: Tensor, deviation: float, mask: Tensor, draws: Draws) -> Tensor:
    """The sum (d,) with normal noise of this standard deviation on each number of `mask`, on the grid: (d,)."""
    noise = torch.from_numpy(draws.normals(len(total)))  # (d,)
    step = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    return torch.round((total + deviation * noise) / step) * step * mask


def moved(start: Adapter, change: Tensor) -> Adapter:
    """The adapter at start + change (d,). Raises `AdapterError` when it is not finite in float32."""
    return Adapter.of_vector((start.vector.double() + change).float(), start.form)


def tag_of(asked: Iterable[str], total: Tensor) -> str:
    """A hash of what was asked and of the sum before noise: another question, or another sum, gets other noise.

    Two releases with the same noise and different sums would say what the sums differ by.
    """
    digest = hashlib.sha256(json.dumps(list(asked)).encode())
    digest.update(total.contiguous().numpy().tobytes())
    return digest.hexdigest()
