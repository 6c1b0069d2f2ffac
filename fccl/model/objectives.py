"""The loss that each phase minimises, as a function of its responses' log-probabilities: one row a phase.

Training, verification and every engine use the same value, so another preference loss is one function of
`fccl.model.losses` and one row of `OBJECTIVES`. Shapes: n examples, b of them in a batch, k responses of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fccl.model.encoding import Responses
from fccl.model.losses import dpo_losses
from fccl.specs import Phase

# log p of chosen and rejected under the policy, then under the reference, each (b,); beta; a loss a pair, (b,)
PairLosses = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


class Objective(Protocol):
    """A loss over encoded examples. Its mean over some of them is `total / count`, in nats a unit."""

    @property
    def examples(self) -> Sequence[Responses]:
        """All examples, each with its k responses."""
        ...

    def count(self, indices: Sequence[int]) -> int:
        """The units (response tokens, or pairs) that these examples have."""
        ...

    def total(self, indices: Sequence[int], log_probs: Tensor) -> Tensor:
        """The sum of their losses, a scalar, given their log-probabilities (b, k)."""
        ...

    def references(self, indices: Sequence[int]) -> Tensor:
        """The reference policy's log-probabilities of these examples, (b, k) float64; zeros where there is none."""
        ...

    def losses(self, log_probs: Tensor, references: Tensor) -> Tensor:
        """The loss of each example, (b,), of (b, k) each. Depends on nothing else, so any examples can be put in."""
        ...


@dataclass(frozen=True, eq=False)
class ResponseLikelihood:
    """FedIT: negative log-likelihood of the responses, in nats a response token, all of which count alike."""

    examples: Sequence[Responses]

    def count(self, indices: Sequence[int]) -> int:
        """Response tokens."""
        return max(1, sum(each.response_length for index in indices for each in self.examples[index]))

    def total(self, indices: Sequence[int], log_probs: Tensor) -> Tensor:
        """log_probs (b, 1)."""
        return -log_probs.sum()

    def references(self, indices: Sequence[int]) -> Tensor:
        """Zeros (b, 1)."""
        return torch.zeros(len(indices), 1, dtype=torch.float64)

    def losses(self, log_probs: Tensor, references: Tensor) -> Tensor:
        """log_probs (b, 1) -> (b,)."""
        return -log_probs.sum(dim=1)


@dataclass(frozen=True, eq=False)
class Preference:
    """FedVA: a loss of pairs against a reference policy, in nats a pair. `reference` is (n, 2): chosen, rejected."""

    examples: Sequence[Responses]
    reference: Tensor
    beta: float
    pair_losses: PairLosses

    def count(self, indices: Sequence[int]) -> int:
        """Pairs."""
        return len(indices)

    def total(self, indices: Sequence[int], log_probs: Tensor) -> Tensor:
        """log_probs (b, 2)."""
        return self.losses(log_probs, self.references(indices).to(log_probs)).sum()

    def references(self, indices: Sequence[int]) -> Tensor:
        """Of chosen and rejected responses, (b, 2)."""
        return self.reference[list(indices)].double()

    def losses(self, log_probs: Tensor, references: Tensor) -> Tensor:
        """log_probs (b, 2), references (b, 2) -> (b,)."""
        return self.pair_losses(log_probs[:, 0], log_probs[:, 1], references[:, 0], references[:, 1], self.beta)


_Make = Callable[[Sequence[Responses], Tensor | None, float], Objective]


def _likelihood(examples: Sequence[Responses], reference: Tensor | None, beta: float) -> Objective:
    return ResponseLikelihood(examples)


def _preference(losses: PairLosses) -> _Make:
    def make(examples: Sequence[Responses], reference: Tensor | None, beta: float) -> Objective:
        if reference is None:
            raise ValueError("a preference loss needs the log-probabilities under its reference adapter")
        return Preference(examples, reference, beta, losses)

    return make


OBJECTIVES: Mapping[Phase, _Make] = {"sft": _likelihood, "va": _preference(dpo_losses)}


def objective_for(
    phase: Phase, examples: Sequence[Responses], reference: Tensor | None = None, beta: float = 0.1
) -> Objective:
    """The objective of a phase over these examples. `reference` is (n, k), in the phases that take one."""
    return OBJECTIVES[phase](examples, reference, beta)
