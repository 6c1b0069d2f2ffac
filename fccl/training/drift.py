"""What keeps a client from drifting to its own optimum: FedProx's pull to the global adapter, SCAFFOLD's control
variates.

Both add something to the gradient of a batch before it is clipped and before the optimiser sees it, as if the loss had
another term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Drift:
    """One client's corrections in one round, for the parameters as they stand when it is built.

    With `prox_mu` > 0, μ (θ - θ_global): the gradient of (μ/2) ‖θ - θ_global‖² (Li et al. 2020). With `correction`, one
    tensor a parameter: c - c_i (Karimireddy et al. 2020), and `control` is the client's next c_i.
    """

    parameters: Sequence[nn.Parameter]
    prox_mu: float = 0.0
    correction: Sequence[Tensor] | None = None
    _anchor: list[Tensor] = field(init=False)
    _sums: list[Tensor] = field(init=False)
    _steps: int = 0

    def __post_init__(self) -> None:
        self._anchor = [parameter.detach().clone() for parameter in self.parameters] if self.prox_mu > 0 else []
        self._sums = (
            [torch.zeros_like(parameter, dtype=torch.float64) for parameter in self.parameters]
            if self.correction is not None
            else []
        )

    @torch.no_grad()
    def correct(self) -> None:
        """Change the gradients in place: after `backward`, before clipping."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.correction is not None:
            self._steps += 1
            for gradient, total, change in zip(gradients, self._sums, self.correction, strict=True):
                total.add_(gradient)
                gradient.add_(change)
        if self.prox_mu > 0:
            for parameter, gradient, anchor in zip(self.parameters, gradients, self._anchor, strict=True):
                gradient.add_(parameter - anchor, alpha=self.prox_mu)

    def control(self) -> list[Tensor] | None:
        """The client's next c_i, one float32 tensor a parameter: the mean of its own gradients, uncorrected and not
        clipped, over its steps.

        That is what the paper's option II, c_i - c + (x - y_i) / (K η), comes to under SGD, where x - y_i is η times
        the sum of gradients and corrections. Under AdamW x - y_i is no such sum, but the mean means the same and costs
        nothing. None without `correction`.
        """
        return None if self.correction is None else [(total / max(1, self._steps)).float() for total in self._sums]
