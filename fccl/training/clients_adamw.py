"""Clipping and AdamW for several clients at once, each with its own norm, step count and learning rate.

The arithmetic is that of `torch.nn.utils.clip_grad_norm_` and `torch.optim.AdamW` (Loshchilov & Hutter 2019), a client
at a time; here all clients are in one vector. Nothing is read back to the host and no shape depends on a value, so that
a CUDA graph can record it. Shapes: K clients, P numbers in the factors of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fccl.model.gpt2_clients import ClientFactors
from fccl.specs import TrainSpec

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # torch's own
_NO_ZERO = 1e-6  # added to a norm before it divides, as torch does


@dataclass(eq=False)
class ClientsAdamW:
    """Moves `factors.values` by `factors.gradient`, for the clients that are `active`.

    `rate` (K,) float64 is each client's learning rate now, and `active` (K,) whether it takes the step: both are
    written to from outside. `norm` (K,) is the gradient's, before clipping. A client whose norm is not finite stays
    where it is, moments and count too; `moved` (K,) says who took the last step. `fixed` (K P,) is true at numbers
    that nothing moves, weight decay neither.
    """

    factors: ClientFactors
    spec: TrainSpec
    fixed: Tensor | None = None
    rate: Tensor = field(init=False)
    active: Tensor = field(init=False)
    norm: Tensor = field(init=False)
    moved: Tensor = field(init=False)
    _steps: Tensor = field(init=False)  # (K,) float64
    _first: Tensor = field(init=False)  # (K P,)
    _second: Tensor = field(init=False)  # (K P,)

    def __post_init__(self) -> None:
        values, clients = self.factors.values, self.factors.clients
        self.rate, self._steps = (torch.zeros(clients, dtype=torch.float64, device=values.device) for _ in range(2))
        self.active, self.moved = (torch.zeros(clients, dtype=torch.bool, device=values.device) for _ in range(2))
        self.norm = torch.zeros(clients, dtype=values.dtype, device=values.device)
        self._first, self._second = torch.zeros_like(values), torch.zeros_like(values)

    def restart(self) -> None:
        """As before the first step."""
        for state in (self._steps, self._first, self._second):
            state.zero_()

    def step(self) -> None:
        """One step of every active client."""
        self.norm.copy_(self._norms())
        self.moved.copy_(self.active & self.norm.isfinite())
        self._steps.add_(self.moved)
        clip = (self.spec.max_grad_norm / (self.norm + _NO_ZERO)).clamp(max=1.0)
        gradient = self.factors.gradient * self._each(clip)
        first = torch.lerp(self._first, gradient, 1 - BETA_1)
        second = self._second * BETA_2 + gradient.square() * (1 - BETA_2)
        values, moved = self._values(first, second), self._each(self.moved)
        if self.fixed is not None:
            moved = moved & ~self.fixed
        for state, new in ((self._first, first), (self._second, second), (self.factors.values, values)):
            state.copy_(torch.where(moved, new, state))

    def _values(self, first: Tensor, second: Tensor) -> Tensor:
        """The values after the step, whoever takes it: (K P,)."""
        steps = self._steps.clamp(min=1)  # of a client that has none yet, and takes none now
        size = self.rate / _bias(BETA_1, steps)
        root = _bias(BETA_2, steps).sqrt()
        kept = self.factors.values * self._each(1 - self.rate * self.spec.weight_decay)
        return kept - self._each(size) * first / (second.sqrt() / self._each(root) + EPSILON)

    def _norms(self) -> Tensor:
        """The L2 norm of each client's gradient: (K,)."""
        blocks = self.factors.blocks(self.factors.gradient).values()
        return torch.stack([block.flatten(1).square().sum(dim=1) for block in blocks]).sum(dim=0).sqrt()

    def _each(self, per_client: Tensor) -> Tensor:
        """A number a client, for every number of that client: (K,) -> (K P,)."""
        kind = per_client.dtype if per_client.dtype == torch.bool else self.factors.values.dtype
        return per_client.to(kind).index_select(0, self.factors.owners)


def _bias(beta: float, steps: Tensor) -> Tensor:
    """1 - beta^steps, by which a moment of so many steps is too small: (K,) -> (K,)."""
    return -torch.expm1(steps * math.log(beta))
