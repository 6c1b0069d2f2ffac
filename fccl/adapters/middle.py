"""Adapters with a middle matrix: B R A, of which clients train R alone (LoRA-SB, Ponkshe et al. 2024; Fed-SB, Singhal
et al. 2025).

Of a module there are A (rank, fan_in), B (fan_out, rank) and R (rank, rank), under PEFT's names with `lora_R` in the
place of `lora_A`. The global adapter has all three, an update R alone. A and B are the same for everybody, so the mean
of B R A is B (mean of R) A, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter, Form
from fccl.errors import AdapterError

A, B, R = ".lora_A.", ".lora_B.", ".lora_R."  # in names of tensors


class Names(NamedTuple):
    """The names of one module's three matrices."""

    a: str
    b: str
    r: str


def has_middle(form: Form) -> bool:
    """Whether adapters of this form have middle matrices, with their factors or without."""
    return any(R in name for name in form.shapes)


def middles(form: Form) -> Iterator[Names]:
    """The modules of a form with middle matrices, in the order of their names."""
    for name in sorted(form.shapes):
        if R in name:
            yield Names(name.replace(R, A), name.replace(R, B), name)


def with_middles(form: Form) -> Form:
    """A form of pairs of factors, each with its middle matrix."""
    squares = {name.replace(A, R): (shape[0], shape[0]) for name, shape in form.shapes.items() if A in name}
    return Form({**form.shapes, **squares})


def middle_form(form: Form) -> Form:
    """The middle matrices alone."""
    return Form({name: shape for name, shape in form.shapes.items() if R in name})


def moving(adapter: Adapter) -> Adapter:
    """The part that rounds change: the middle matrices where there are some, else the adapter itself."""
    return _part(adapter, middle=True) if has_middle(adapter.form) else adapter


def fixed_sha256(adapter: Adapter) -> str:
    """The hash of the factors around the middle matrices: the same over a whole run."""
    return _part(adapter, middle=False).sha256


def joined(part: Adapter, whole: Adapter) -> Adapter:
    """`whole` with the moving part of another adapter. Raises `AdapterError` when that does not fit."""
    if not has_middle(whole.form):
        whole.form.require(part.form)
        return part
    found = moving(part)
    middle_form(whole.form).require(found.form)
    return Adapter({**whole.tensors, **found.tensors})


def folded(adapter: Adapter) -> Adapter:
    """The plain LoRA that it stands for: A, and B R multiplied in float64 and rounded to float32 once.

    Raises `AdapterError` when the factors are not there.
    """
    tensors: dict[str, Tensor] = {}
    for names in middles(adapter.form):
        if names.a not in adapter.tensors or names.b not in adapter.tensors:
            raise AdapterError(f"the adapter has {names.r} without the factors around it")
        product = adapter.tensors[names.b].double() @ adapter.tensors[names.r].double()
        tensors |= {names.a: adapter.tensors[names.a], names.b: product.float()}
    return Adapter(tensors) if tensors else adapter


def without_effect(adapter: Adapter) -> Adapter:
    """The same factors around middle matrices of zeros: the base model."""
    return Adapter({name: torch.zeros_like(t) if R in name else t for name, t in adapter.tensors.items()})


def _part(adapter: Adapter, middle: bool) -> Adapter:
    found = {name: tensor for name, tensor in adapter.tensors.items() if (R in name) == middle}
    return adapter if len(found) == len(adapter.tensors) else Adapter(found)
