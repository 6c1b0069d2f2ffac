"""Corrections against client drift: FedProx's pull to the global adapter, SCAFFOLD's control variates.

Both add something to the gradient of a batch before it is clipped and before the optimiser sees it, as if the loss had
another term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Drift:
    """One client's corrections in one round, for the factors as they stand when it is built.

    With `prox_mu` > 0, μ (θ - θ_global): the gradient of (μ/2) ‖θ - θ_global‖² (FedProx, Li et al. 2020; from another
    start than θ_global it is Ditto's step, Li et al. 2021). With `correction`, one
    tensor a factor: c - c_i (Karimireddy et al. 2020), and `control` is the client's next c_i.
    """

    factors: Mapping[str, Tensor]
    prox_mu: float = 0.0
    correction: Mapping[str, Tensor] | None = None
    centre: Mapping[str, Tensor] | None = None  # θ_global, by factor; None: the factors as they stand
    _anchor: dict[str, Tensor] = field(init=False)
    _sums: dict[str, Tensor] = field(init=False)
    _steps: int = 0

    def __post_init__(self) -> None:
        pulled, counted = self.prox_mu > 0, self.correction is not None
        centre = self.factors if self.centre is None else self.centre
        self._anchor = {name: centre[name].detach().clone() for name in self.factors} if pulled else {}
        zeros = {name: torch.zeros_like(factor, dtype=torch.float64) for name, factor in self.factors.items()}
        self._sums = zeros if counted else {}

    @torch.no_grad()
    def corrected(self, gradient: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The batch's gradient with all corrections, changed in place."""
        if self.correction is not None:
            self._steps += 1
            for name, total in self._sums.items():
                total.add_(gradient[name])
                gradient[name].add_(self.correction[name])
        for name, anchor in self._anchor.items():
            gradient[name].add_(self.factors[name] - anchor, alpha=self.prox_mu)
        return gradient

    def control(self) -> dict[str, Tensor] | None:
        """The client's next c_i, float32: the mean of its own gradients, uncorrected and not clipped, over its steps.

        That is what the paper's option II, c_i - c + (x - y_i) / (K η), comes to under SGD, where x - y_i is η times
        the sum of gradients and corrections. Under AdamW x - y_i is no such sum, but the mean means the same and costs
        nothing. None without `correction`.
        """
        if self.correction is None:
            return None
        return {name: (total / max(1, self._steps)).float() for name, total in self._sums.items()}
