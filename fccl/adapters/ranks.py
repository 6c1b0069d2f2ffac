"""LoRA factors by their directions: the leading ones, which a client trains, and the trailing ones, which stay frozen.

Direction k of a module is row k of A (rank, fan_in) and column k of B (fan_out, rank). A client that trains k
directions of a wider adapter trains the first k (`leading`); the others (`trailing`) are part of its frozen base model.
An adapter without LoRA factors has rank 0, and nothing here changes it. Of one with middle matrices
(`fccl.adapters.middle`) those are what a client trains, and its factors are what stays frozen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.middle import A as _A
from fccl.adapters.middle import B as _B
from fccl.adapters.middle import R as _R
from fccl.adapters.middle import has_middle, joined, moving
from fccl.adapters.source import AdapterSource, MadeOnLoad
from fccl.errors import AdapterError
from fccl.specs import named_seed


@dataclass(frozen=True)
class Pair:
    """The factors of one module: A (rank, fan_in) and B (fan_out, rank)."""

    a: str  # its name in the adapter
    b: str
    rank: int
    fan_in: int
    fan_out: int


def pairs(form: Form) -> tuple[Pair, ...]:
    """All modules of an adapter, in the order of their names.

    Raises `AdapterError` when it holds anything but pairs of LoRA factors.
    """
    found = []
    for a, shape in form.shapes.items():
        if _A in a:
            b = a.replace(_A, _B)
            other = form.shapes.get(b, ())
            if len(shape) != 2 or len(other) != 2 or shape[0] != other[1]:
                raise AdapterError(f"{a} has shape {shape} and its lora_B {other}: not the factors of a product")
            found.append(Pair(a, b, rank=shape[0], fan_in=shape[1], fan_out=other[0]))
    if not found or len(found) * 2 != len(form.shapes):
        raise AdapterError(
            "the adapter holds more than pairs of lora_A and lora_B", hint="LORA_AGGREGATION=factors takes any adapter"
        )
    return tuple(found)


def rank_of(form: Form) -> int:
    """The directions of the widest module."""
    return max((shape[0] for name, shape in form.shapes.items() if (_A in name or _R in name) and shape), default=0)


def of_rank(form: Form, rank: int) -> Form:
    """The same modules with `rank` directions each."""
    return Form({name: _shape(name, shape, rank) for name, shape in form.shapes.items()})


def leading(adapter: Adapter, rank: int) -> Adapter:
    """The first `rank` directions of every module: the part that a client of that rank trains.

    The adapter itself when it has no more, its middle matrices where there are some.
    """
    if has_middle(adapter.form):
        return moving(adapter)
    return _directions(adapter, slice(0, rank)) if rank_of(adapter.form) > rank else adapter


def trailing(adapter: Adapter, rank: int) -> Adapter | None:
    """All directions but the first `rank`: the part that is frozen in that client's base model; None if it is empty."""
    return _directions(adapter, slice(rank, None)) if rank_of(adapter.form) > rank else None


def with_frozen(update: Adapter, before: Adapter) -> Adapter:
    """The update as a whole adapter, of `before`'s form: its own directions, then those of `before` that stayed frozen.

    Raises `AdapterError` when the update does not fit `before`.
    """
    if has_middle(before.form):
        return joined(update, before)
    rank = rank_of(update.form)
    of_rank(before.form, min(rank, rank_of(before.form))).require(update.form)
    frozen = trailing(before, rank)
    if frozen is None:
        return update
    return Adapter(
        {
            name: torch.cat([tensor, frozen.tensors[name]], dim=0 if _A in name else 1)
            for name, tensor in update.tensors.items()
        }
    )


def initial(form: Form, seed: int) -> Adapter:
    """The adapter that a run starts from. A is drawn as PEFT draws it (Kaiming uniform, bound 1/sqrt(fan-in)), from a
    named seed; B is zero, so the model is the base model.
    """
    draw = torch.Generator().manual_seed(named_seed(seed, "lora"))
    tensors = {}
    for name in sorted(form.shapes):
        tensors[name] = torch.zeros(form.shapes[name])
        if _A in name:
            bound = 1 / math.sqrt(form.shapes[name][1])
            tensors[name].uniform_(-bound, bound, generator=draw)
    return Adapter(tensors)


def distance(one: Adapter, other: Adapter) -> float:
    """The L2 norm of the difference of the factors; directions that only one of them has count as zeros in the
    other."""
    rank = max(rank_of(one.form), rank_of(other.form))
    return _padded(one, rank).distance(_padded(other, rank))


@dataclass(frozen=True)
class WithFrozen(MadeOnLoad):
    """`with_frozen(update, before)`, made at every load: of updates that are in files, one at a time is in memory."""

    update: AdapterSource
    before: Adapter

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.before.form

    def load(self) -> Adapter:
        """Raises as the update's own `load` does."""
        return with_frozen(self.update.load(), self.before)


def _shape(name: str, shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    if _A in name:
        return (rank, *shape[1:])
    return (*shape[:-1], rank) if _B in name else shape


def _directions(adapter: Adapter, which: slice) -> Adapter:
    return Adapter(
        {name: (tensor[which] if _A in name else tensor[:, which]).clone() for name, tensor in adapter.tensors.items()}
    )


def _padded(adapter: Adapter, rank: int) -> Adapter:
    missing = rank - rank_of(adapter.form)
    if not missing:
        return adapter
    tensors: Mapping[str, Tensor] = adapter.tensors
    return Adapter(
        {
            name: nn.functional.pad(tensor, (0, 0, 0, missing) if _A in name else (0, missing))
            for name, tensor in tensors.items()
        }
    )
