"""The preference losses, as pure functions of the log-probabilities of pairs: one row of `PREFERENCE_LOSSES` each.

    >>> import torch
    >>> same = torch.tensor([[-7.0, -9.0]])
    >>> pairs = Pairs(policy=same, reference=same, lengths=torch.tensor([[3, 4]]))
    >>> round(float(losses_of(pairs, PreferenceSpec(beta=0.5))), 4)
    0.6931

Shapes: b pairs. `g` below is the gain of a response over the reference policy, log π - log π_ref; c is the chosen one,
r the rejected one, and S is the logistic function. Losses are in nats a
pair where they are log-likelihoods, and plain numbers where they are squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from fccl.specs import PreferenceLoss, PreferenceSpec

DISCOPOP_TEMPERATURE = 0.05  # Lu et al. 2024, tau: how sharply it goes from one of its two parts to the other
CPO_LIKELIHOOD = 1.0  # Xu et al. 2024: the weight of the chosen response's own likelihood
MOST_LIKELY = -1e-6  # nats a token; a response that is certain has infinite odds


@dataclass(frozen=True, eq=False)
class Pairs:
    """Log-probabilities of pairs, each (b, 2): chosen, rejected. Sums over response tokens, in nats.

    `reference` is None for a loss that takes none. `lengths` counts the response tokens.
    """

    policy: Tensor
    reference: Tensor | None
    lengths: Tensor

    @property
    def gains(self) -> Tensor:
        """log π - log π_ref: (b, 2)."""
        if self.reference is None:
            raise ValueError("this preference loss needs the log-probabilities under its reference adapter")
        return self.policy - self.reference.to(self.policy)

    @property
    def margins(self) -> Tensor:
        """The gain of the chosen response over that of the rejected one: (b,)."""
        return _difference(self.gains)

    def per_token(self, sums: Tensor) -> Tensor:
        """Sums (b, 2) over the tokens of their responses: (b, 2)."""
        return sums / self.lengths.to(sums).clamp(min=1.0)


def _difference(pairs: Tensor) -> Tensor:
    return pairs[:, 0] - pairs[:, 1]


def sigmoid(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7): -log S(β (g_c - g_r)). log 2 at the reference."""
    return -functional.logsigmoid(spec.beta * pairs.margins)


def sigmoid_norm(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """DPO with the gains a token (Lambert et al. 2024): long responses count no more."""
    return -functional.logsigmoid(spec.beta * _difference(pairs.per_token(pairs.gains)))


def hinge(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """max(0, 1 - β (g_c - g_r)) (Zhao et al. 2023, SLiC; Liu et al. 2024, RSO)."""
    return functional.relu(1.0 - spec.beta * pairs.margins)


def ipo(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """(g_c - g_r - 1 / 2β)², gains a token (Azar et al. 2024, eq. 17): the margin has an end, so it does not grow."""
    return (_difference(pairs.per_token(pairs.gains)) - 1.0 / (2.0 * spec.beta)).square()


def robust(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """DPO without bias where a share ε of the pairs is flipped (Chowdhury et al. 2024). It may be negative."""
    scaled, flipped = spec.beta * pairs.margins, spec.label_smoothing
    clean, wrong = -functional.logsigmoid(scaled), -functional.logsigmoid(-scaled)
    return ((1.0 - flipped) * clean - flipped * wrong) / (1.0 - 2.0 * flipped)


def exo_pair(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """KL of the policy's choice from the labels smoothed by ε (Ji et al. 2024, EXO, eq. 16)."""
    scaled, smoothed = spec.beta * pairs.margins, spec.label_smoothing
    chosen, rejected = functional.logsigmoid(scaled), functional.logsigmoid(-scaled)
    return chosen.exp() * (chosen - math.log1p(-smoothed)) + rejected.exp() * (rejected - math.log(smoothed))


def nca_pair(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """-log S(β g_c) - ½ log S(-β g_c) - ½ log S(-β g_r) (Chen et al. 2024, NCA): the likelihood itself must rise."""
    up, down = functional.logsigmoid(spec.beta * pairs.gains), functional.logsigmoid(-spec.beta * pairs.gains)
    return -up[:, 0] - 0.5 * down.sum(dim=-1)


def bco_pair(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """-log S(β g_c) - log S(-β g_r) (Jung et al. 2024, BCO, with no shift): each response classified by itself."""
    scaled = spec.beta * pairs.gains
    return -functional.logsigmoid(scaled[:, 0]) - functional.logsigmoid(-scaled[:, 1])


def sppo_hard(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """(g_c - 1 / 2β)² + (g_r + 1 / 2β)² (Wu et al. 2024, SPPO, eq. 4.7, the winner's probability being 1)."""
    target = 1.0 / (2.0 * spec.beta)
    return (pairs.gains[:, 0] - target).square() + (pairs.gains[:, 1] + target).square()


def apo_zero(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """1 - S(β g_c) + S(β g_r) (D'Oosterlinck et al. 2024, eq. 7): for chosen responses better than the model's."""
    share = torch.sigmoid(spec.beta * pairs.gains)
    return 1.0 - share[:, 0] + share[:, 1]


def apo_down(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """S(β g_c) + 1 - S(β (g_c - g_r)) (D'Oosterlinck et al. 2024, eq. 8): for responses worse than the model's."""
    return torch.sigmoid(spec.beta * pairs.gains[:, 0]) + 1.0 - torch.sigmoid(spec.beta * pairs.margins)


def discopop(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """Logistic and exponential loss, mixed by the margin itself (Lu et al. 2024, eq. 5).

    It is not convex: near the reference, for β times the margin from -0.12 to 0.07, it rises with the margin.
    """
    scaled = spec.beta * pairs.margins
    mixed = torch.sigmoid(scaled / DISCOPOP_TEMPERATURE)
    return (1.0 - mixed) * -functional.logsigmoid(scaled) + mixed * torch.exp(-scaled)


def simpo(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """-log S(β (log π_c / |c| - log π_r / |r|) - gamma) (Meng et al. 2024): no reference."""
    return -functional.logsigmoid(spec.beta * _difference(pairs.per_token(pairs.policy)) - spec.simpo_gamma)


def cpo(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """-log S(β (log π_c - log π_r)) and the chosen response's likelihood a token (Xu et al. 2024)."""
    preferred = -functional.logsigmoid(spec.beta * _difference(pairs.policy))
    return preferred - CPO_LIKELIHOOD * pairs.per_token(pairs.policy)[:, 0]


def orpo(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """The chosen response's likelihood a token, and β times -log S of the log odds ratio (Hong et al. 2024).

    The odds of a response are p / (1 - p), p its probability a token (geometric mean).
    """
    means = pairs.per_token(pairs.policy)
    log_odds = means - _log_one_minus_exp(means.clamp(max=MOST_LIKELY))
    return -means[:, 0] - spec.beta * functional.logsigmoid(_difference(log_odds))


def _log_one_minus_exp(values: Tensor) -> Tensor:
    """log(1 - e^x) of x < 0, exact at both ends (Mächler 2012)."""
    return torch.where(
        values > -math.log(2.0), torch.log(-torch.expm1(values)), torch.log1p(-torch.exp(values.clamp(max=-0.1)))
    )


PREFERENCE_LOSSES: Mapping[PreferenceLoss, Callable[[Pairs, PreferenceSpec], Tensor]] = MappingProxyType(
    {
        "sigmoid": sigmoid,
        "sigmoid_norm": sigmoid_norm,
        "hinge": hinge,
        "ipo": ipo,
        "robust": robust,
        "exo_pair": exo_pair,
        "nca_pair": nca_pair,
        "bco_pair": bco_pair,
        "sppo_hard": sppo_hard,
        "apo_zero": apo_zero,
        "apo_down": apo_down,
        "discopop": discopop,
        "simpo": simpo,
        "cpo": cpo,
        "orpo": orpo,
    }
)


def losses_of(pairs: Pairs, spec: PreferenceSpec) -> Tensor:
    """One loss a pair: (b,). Raises `ValueError` when the loss takes a reference and the pairs have none."""
    return PREFERENCE_LOSSES[spec.loss](pairs, spec)
