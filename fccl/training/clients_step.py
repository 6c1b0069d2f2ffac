"""A training step of several clients in one packed batch: forward, backward, corrections, clipping, AdamW.

The frozen base multiplies the tokens of all clients at once. Losses, LoRA, optimiser and clipping are each client's
own, so the step is that of each client alone but for rounding. All that it reads and writes are buffers that stay
(`fccl.training.recorded`). Shapes: K clients, P numbers in the factors of each, T tokens, E examples of k responses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from fccl.model.buckets import Size, Sizing, own_size, padded
from fccl.model.gpt2 import Gpt2
from fccl.model.gpt2_clients import ClientFactors
from fccl.model.objectives import Objective
from fccl.model.packing import Packed, pack
from fccl.specs import TrainSpec
from fccl.training.clients_adamw import ClientsAdamW
from fccl.training.learner import moves
from fccl.training.recorded import Step

Chosen = Mapping[int, tuple[Objective, Sequence[int]]]  # by client, the examples of its next step


@dataclass(frozen=True, eq=False)
class ClientsBatch:
    """The inputs of a step: packed tokens; of each example its client, its weight in that client's loss, its constants.

    `clients` (K, E) is true where an example is of a client, `weights` (E,) are 1 / count; both are nothing for the
    examples of padding. `constants` (E, m) are the objective's. `entering` (T, D) enters the lowest layer with
    LoRA, where others are below it.
    """

    packed: Packed
    clients: Tensor
    weights: Tensor
    constants: Tensor
    entering: Tensor | None = None

    @property
    def size(self) -> Size:
        """The size of its buffers."""
        return own_size(self.packed)

    def fill(self, other: Self) -> None:
        """Copy the content of another batch of this size in."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(theirs)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def _tensors(self) -> Iterator[Tensor]:
        for value in (*vars(self.packed).values(), *vars(self).values()):
            if isinstance(value, Tensor):
                yield value


def clients_batch(
    chosen: Chosen, factors: ClientFactors, sizing: Sizing = own_size, entering: Tensor | None = None
) -> ClientsBatch:
    """The examples of all clients, client by client, padded to a size. `entering` is of the same tokens, unpadded."""
    prompts = [objective.examples[index] for objective, indices in chosen.values() for index in indices]
    counts = [len(indices) for _, indices in chosen.values()]
    owners = torch.tensor(list(chosen)).repeat_interleave(torch.tensor(counts))  # (E,)
    packed = pack(prompts)
    of_tokens = owners.repeat_interleave(packed.starts.diff())  # (T,)
    packed = replace(packed, foreign=factors.foreign(of_tokens))
    packed = padded(packed, sizing(packed))
    more = packed.responses // len(prompts[0]) - len(prompts)  # examples of padding
    weights = [1 / objective.count(indices) for objective, indices in chosen.values() for _ in indices]
    constants = [objective.constants(indices) for objective, indices in chosen.values()]
    numbers = torch.arange(factors.clients).unsqueeze(1)
    return ClientsBatch(
        packed,
        clients=functional.pad(owners == numbers, (0, more)),
        weights=functional.pad(torch.tensor(weights, dtype=torch.float64), (0, more)),
        constants=functional.pad(torch.cat(constants), (0, 0, 0, more)),
        entering=None if entering is None else functional.pad(entering, (0, 0, 0, len(packed.ids) - len(entering))),
    )


@dataclass(eq=False)
class ClientsStep:
    """The step, and all state that it changes: factors, moments, corrections.

    After a step `loss` (K,) float64 has each client's mean loss before it, and `optimiser.norm` the norm of its
    gradient. `corrected` says whether clients have control variates (SCAFFOLD), as in `fccl.training.drift.Drift`.
    """

    gpt2: Gpt2
    factors: ClientFactors
    spec: TrainSpec
    objective: Objective  # of any client: only its `losses` is called
    corrected: bool = False
    optimiser: ClientsAdamW = field(init=False)
    loss: Tensor = field(init=False)
    _correction: Tensor | None = field(init=False, default=None)  # (K P,): c - c_i
    _sums: Tensor | None = field(init=False, default=None)  # (K P,) float64: of gradients
    _anchor: Tensor | None = field(init=False, default=None)  # (K P,): the global adapter
    _fixed: Tensor | None = field(init=False, default=None)  # (K P,): true where nothing may move

    def __post_init__(self) -> None:
        values = self.factors.values
        self.loss = torch.zeros(self.factors.clients, dtype=torch.float64, device=values.device)
        if self.corrected:
            self._correction, self._sums = torch.zeros_like(values), torch.zeros_like(values, dtype=torch.float64)
        if self.spec.prox_mu > 0:
            self._anchor = torch.zeros_like(values)
        if self.spec.freeze_a:
            self._fixed = torch.zeros_like(values, dtype=torch.bool)
            for name, block in self.factors.blocks(self._fixed).items():
                block.fill_(not moves(name, self.spec))
        self.optimiser = ClientsAdamW(self.factors, self.spec, self._fixed)

    @torch.no_grad()
    def begin(self, start: Mapping[str, Tensor], corrections: Sequence[Mapping[str, Tensor]] = ()) -> None:
        """Every client at the same factors, as before its first step; `corrections` are c - c_i by client."""
        for client in range(self.factors.clients):
            self._write(self.factors.values, client, start)
        for client, correction in enumerate(corrections):
            assert self._correction is not None
            self._write(self._correction, client, correction)
        if self._sums is not None:
            self._sums.zero_()
        if self._anchor is not None:
            self._anchor.copy_(self.factors.values)
        self.optimiser.restart()

    @torch.no_grad()
    def drop(self, client: int) -> None:
        """Leave nothing of a client that could reach another: one that has diverged has no more steps."""
        for part in self.factors.of_client(self.factors.values, client).values():
            part.zero_()

    @torch.no_grad()
    def __call__(self, batch: ClientsBatch) -> None:
        """One step of the active clients. Reads nothing back, so a CUDA graph can record it."""
        self.factors.gradient.zero_()
        self.gpt2.learn(batch.packed, partial(self._slopes, batch), batch.entering)
        own = self.factors.gradient.clone() if self._sums is not None else None
        self._correct()
        self.optimiser.step()
        if self._sums is not None and own is not None:
            stayed = ~self.optimiser.moved.index_select(0, self.factors.owners)
            self._sums.add_(own.masked_fill_(stayed, 0))

    def paused(self, record: Step) -> None:
        """Do something during which steps change neither factors nor moments."""
        active = self.optimiser.active.clone()
        self.optimiser.active.zero_()
        record()
        self.optimiser.active.copy_(active)

    def control(self, client: int, steps: int) -> dict[str, Tensor] | None:
        """SCAFFOLD's next c_i of a client after so many steps, as `fccl.training.drift.Drift.control` has it."""
        if self._sums is None:
            return None
        sums = self.factors.of_client(self._sums, client)
        return {name: (total / max(1, steps)).float() for name, total in sums.items() if moves(name, self.spec)}

    def _write(self, vector: Tensor, client: int, values: Mapping[str, Tensor]) -> None:
        for name, part in self.factors.of_client(vector, client).items():
            if name in values:
                part.copy_(values[name])

    def _slopes(self, batch: ClientsBatch, log_probs: Tensor) -> Tensor:
        """dL/d log p of each predicted token, L the sum of all clients' losses: (N,) -> (N,)."""
        with torch.enable_grad():
            sums = batch.packed.sums(log_probs).view(len(batch.weights), -1).requires_grad_()  # (E, k)
            losses = self.objective.losses(sums, batch.constants) * batch.weights  # (E,)
            (slopes,) = torch.autograd.grad(losses.sum(), sums)
        of_clients = losses.detach().expand_as(batch.clients)  # (K, E)
        self.loss.copy_(of_clients.masked_fill(~batch.clients, 0).sum(dim=1))
        return slopes.reshape(-1)[batch.packed.owners]

    def _correct(self) -> None:
        """Add to the gradients all that comes before they are clipped."""
        gradient = self.factors.gradient
        if self._correction is not None:
            gradient.add_(self._correction)
        if self._anchor is not None:
            gradient.add_(self.factors.values - self._anchor, alpha=self.spec.prox_mu)
        if self._fixed is not None:
            gradient.masked_fill_(self._fixed, 0)
