"""The factors around the middle matrices of a run, from the first update that full fine-tuning would make (LoRA-SB,
Ponkshe et al. 2024, which Fed-SB federates).

AdamW's first step moves every number of a weight by the learning rate, against the sign of its gradient. So that update
is -η sign(G), G (fan_out, fan_in) the gradient at the base model. With U S V' for its singular value
decomposition, B has the first r columns of U, and A the first r rows of V'. No other directions of this rank come
nearer to it. B is scaled so that a step of Adam on R moves a module's output as far as a step on LoRA's B does.

R is zero at first: a run begins with the base model, as with a fresh LoRA. The paper begins with S, the update itself.
Without S the first step of training is the client's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.adapters.middle import middles
from fccl.errors import ModelError
from fccl.model.encoding import Responses
from fccl.model.language_model import cpu_threads
from fccl.model.middle_model import MiddleModel
from fccl.model.objectives import Objective, objective_for

GAIN = 1.0  # of B beside sqrt(fan_out / rank)
TAKES = ("fp32", "bf16")  # values of BASE_PRECISION whose weights have gradients


def first_adapter(model: MiddleModel, examples: Sequence[Responses], batch_size: int, threads: int = 0) -> Adapter:
    """The adapter that a run begins with: factors by the gradient of these instructions' mean loss, R zero.

    The same bytes for the same model, examples and threads. Raises `ModelError` without an instruction, and where the
    gradient is not finite or the rank is above a module's.
    """
    if not examples:
        raise ModelError("LORA_AGGREGATION=fed_sb: the learn split has no instruction to take a gradient of")
    with cpu_threads(threads):
        gradient = _gradient(model, examples, batch_size)
    tensors = dict(model.initial_adapter(0).tensors)
    with cpu_threads(1):
        for names in middles(model.form):
            tensors[names.b], tensors[names.a] = _factors(names.a, gradient[names.a], model.spec.lora_r)
    return Adapter(tensors)


def _gradient(model: MiddleModel, examples: Sequence[Responses], batch_size: int) -> Mapping[str, Tensor]:
    """G of every target module, (fan_out, fan_in) in float64, by the name of its A; of the mean over tokens."""
    objective, total = objective_for("sft", examples), {name: torch.zeros(()).double() for name in model.plain.a_names}
    count = objective.count(range(len(examples)))
    model.load(model.initial_adapter(0))
    for start in range(0, len(examples), batch_size):
        places = range(start, min(start + batch_size, len(examples)))
        share = partial(_share, objective, places, count)
        for name, part in model.plain.weight_gradient([examples[place] for place in places], share).items():
            total[name] = total[name] + part.double().cpu()
    return total


def _share(objective: Objective, places: Sequence[int], count: int, log_probs: Tensor) -> Tensor:
    """A batch's part of the mean loss."""
    return objective.total(places, log_probs) / count


def _factors(name: str, gradient: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B (fan_out, r) and A (r, fan_in) of one module. The largest number of each column of U is positive."""
    if rank > min(gradient.shape):
        most = min(gradient.shape)
        raise ModelError(f"LORA_R={rank}: {name} has {most} directions", hint=f"LORA_R={most} is all of them")
    if not bool(torch.isfinite(gradient).all()):
        raise ModelError(f"LORA_AGGREGATION=fed_sb: the gradient of {name} is not finite")
    left, _, right = torch.linalg.svd(-gradient.sign(), full_matrices=False)
    left, right = left[:, :rank], right[:rank]
    signs = left.gather(0, left.abs().argmax(dim=0, keepdim=True)).sign()  # (1, r)
    scale = GAIN * math.sqrt(gradient.shape[0] / rank)
    return (left * signs * scale).float(), (right * signs.T).float()
