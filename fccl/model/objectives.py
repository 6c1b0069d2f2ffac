"""The loss that each phase minimises, as a function of its responses' log-probabilities: one row a phase.

Training, verification and every engine use the same value. Another preference loss is one row of
`fccl.model.preference_losses.PREFERENCE_LOSSES`. Shapes: n examples, b of them in a batch, k responses of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fccl.model.encoding import Responses
from fccl.model.preference_losses import Pairs, losses_of
from fccl.specs import Phase, PreferenceSpec


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

    def constants(self, indices: Sequence[int]) -> Tensor:
        """The numbers that losses of these examples need beside the model's: (b, m) float64, on the CPU."""
        ...

    def losses(self, log_probs: Tensor, constants: Tensor) -> Tensor:
        """The loss of each example, (b,), of (b, k) and (b, m). Depends on nothing else: any examples can be put in."""
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

    def constants(self, indices: Sequence[int]) -> Tensor:
        """None: (b, 0)."""
        return torch.zeros(len(indices), 0, dtype=torch.float64)

    def losses(self, log_probs: Tensor, constants: Tensor) -> Tensor:
        """log_probs (b, 1) -> (b,)."""
        return -log_probs.sum(dim=1)


@dataclass(frozen=True, eq=False)
class Preference:
    """FedVA: a loss of pairs, in nats a pair. `reference` is (n, 2), chosen and rejected, where the loss takes one."""

    examples: Sequence[Responses]
    reference: Tensor | None
    spec: PreferenceSpec

    def count(self, indices: Sequence[int]) -> int:
        """Pairs."""
        return len(indices)

    def total(self, indices: Sequence[int], log_probs: Tensor) -> Tensor:
        """log_probs (b, 2)."""
        return self.losses(log_probs, self.constants(indices)).sum()

    def constants(self, indices: Sequence[int]) -> Tensor:
        """(b, 4): log-probabilities under the reference, then response tokens, each of chosen and rejected."""
        places = list(indices)
        lengths = torch.tensor([[row.response_length for row in self.examples[index]] for index in places])
        before = torch.zeros(lengths.shape) if self.reference is None else self.reference[places].cpu()
        return torch.cat([before.double(), lengths.double()], dim=1)

    def losses(self, log_probs: Tensor, constants: Tensor) -> Tensor:
        """log_probs (b, 2), constants (b, 4) -> (b,)."""
        reference, lengths = constants[:, :2], constants[:, 2:]
        return losses_of(Pairs(log_probs, reference if self.spec.takes_reference else None, lengths), self.spec)


_Make = Callable[[Sequence[Responses], Tensor | None, PreferenceSpec], Objective]


def _likelihood(examples: Sequence[Responses], reference: Tensor | None, preference: PreferenceSpec) -> Objective:
    return ResponseLikelihood(examples)


def _preference(examples: Sequence[Responses], reference: Tensor | None, preference: PreferenceSpec) -> Objective:
    if preference.takes_reference and reference is None:
        raise ValueError("this preference loss needs the log-probabilities under its reference adapter")
    return Preference(examples, reference, preference)


OBJECTIVES: Mapping[Phase, _Make] = {"sft": _likelihood, "va": _preference}
DPO = PreferenceSpec()


def objective_for(
    phase: Phase, examples: Sequence[Responses], reference: Tensor | None = None, preference: PreferenceSpec = DPO
) -> Objective:
    """The objective of a phase over these examples. `reference` is (n, k), where the loss takes one."""
    return OBJECTIVES[phase](examples, reference, preference)
