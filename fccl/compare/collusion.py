"""Attacks by clients who see updates of others and send what they agree on.

Of a round: x the adapter that it starts from, d_i = u_i - x the honest update of client i as a step, n clients, m bad
ones. Mean and deviation (the standard deviation) are taken number by number.

    little_is_enough  mean - z deviation over the bad clients' own honest steps: "A Little Is Enough" (Baruch, Baruch &
                      Goldberg 2019, algorithm 3). z is the quantile (n - m - s) / (n - m) of the normal distribution,
                      with s = ⌊n/2 + 1⌋ - m, the supporters that they need. They see their own steps, n and m.
    inner_product     -e times the mean of the honest clients' steps: "Fall of Empires" (Xie, Koyejo & Gupta 2020). They
                      see all honest steps.
    min_max           mean - g deviation over the honest clients' steps, g as large as leaves it no farther from any of
                      them than the two farthest are from each other: Min-Max with the inverse standard deviation
                      (Shejwalkar & Houmansadr 2021). They see all honest steps and know no rule. The paper searches g
                      by halving; here it is the root of a quadratic.
    copycat           the mean of the honest clients' steps: a score for the work of others
    mirror            the step of the honest client with the most samples, turned round: it takes that client's score

The last two see all honest steps too. Who attacks trains honestly first and reports that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.compare.values import Attack
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, Request
from fccl.transports.wrapped import WrappedTransport

EPSILON = 0.5  # of the inner-product manipulation: short enough to lie among honest steps
# Where the bad are a majority they need no support and the quantile is 1; z is then that of 1 - 10⁻³.
HIGHEST_QUANTILE = 1 - 1e-3


@dataclass(frozen=True, eq=False)
class Colluding(WrappedTransport):
    """A transport whose bad clients look at the round's updates before theirs are sent."""

    attacks: Mapping[int, Attack]

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """As `transport` does; where somebody colludes, once all have answered."""
        answers = super().ask(request, client_ids)
        if not isinstance(request, FitTask) or not TOGETHER.keys() & set(self.attacks.values()):
            return answers
        found = list(answers)
        agreed = together(request, [one for one in found if isinstance(one, ClientUpdate)], self.attacks)
        return (agreed.get(one.client_id, one) for one in found)


@dataclass(frozen=True, eq=False)
class Seen:
    """The steps of a round: those of the bad clients, (m, d), and of the honest ones, (n - m, d); float64."""

    bad: Tensor
    honest: Tensor
    samples: tuple[int, ...]  # that each honest client has reported


def together(task: FitTask, updates: Sequence[ClientUpdate], attacks: Mapping[int, Attack]) -> dict[int, ClientUpdate]:
    """The updates of those who collude, by client. Where no honest client has answered there is nothing to see."""
    start = _vector(task.adapter)
    steps = {one.client_id: _vector(one.adapter.load()) - start for one in updates}
    bad = [one for one in updates if attacks.get(one.client_id, "none") != "none"]
    honest = [one for one in updates if one not in bad]
    if not bad or not honest:
        return {}
    rows = [torch.stack([steps[one.client_id] for one in group]) for group in (bad, honest)]
    seen = Seen(rows[0], rows[1], tuple(one.contribution.num_samples for one in honest))
    return {
        one.client_id: replace(
            one, adapter=Adapter.of_vector((start + TOGETHER[attack](seen)).float(), task.adapter.form)
        )
        for one in bad
        if (attack := attacks[one.client_id]) in TOGETHER
    }


def little_is_enough(seen: Seen) -> Tensor:
    """mean - z deviation over the bad clients' own steps: (m, d) -> (d,)."""
    return seen.bad.mean(0) - enough(len(seen.bad) + len(seen.honest), len(seen.bad)) * seen.bad.std(0, correction=0)


def enough(clients: int, bad: int) -> float:
    """z of n clients, m of them bad. Negative, and then no attack, where many supporters are needed."""
    supporters, honest = clients // 2 + 1 - bad, clients - bad
    share = min((honest - supporters) / honest, HIGHEST_QUANTILE)
    return NormalDist().inv_cdf(share) if share > 0 else 0.0


def inner_product(seen: Seen) -> Tensor:
    """-e mean over the honest clients' steps: (n - m, d) -> (d,)."""
    return -EPSILON * seen.honest.mean(0)


def min_max(seen: Seen) -> Tensor:
    """mean - g deviation over the honest clients' steps: (n - m, d) -> (d,)."""
    mean, away = seen.honest.mean(0), -seen.honest.std(0, correction=0)
    return mean + farthest(seen.honest, mean, away) * away


def farthest(steps: Tensor, mean: Tensor, away: Tensor) -> float:
    """The largest g with ‖mean + g · away - d_i‖ ≤ max_{j,k} ‖d_j - d_k‖ for every row d_i of `steps`, (n, d).

    For each i the root of a g² + 2 b_i g + c_i = 0, a = ‖away‖², b_i = ⟨away, mean - d_i⟩, c_i = ‖mean - d_i‖² - D².
    """
    squared = float(away.square().sum())
    if squared == 0:
        return 0.0
    widest = float(torch.cdist(steps, steps, compute_mode="donot_use_mm_for_euclid_dist").max()) ** 2
    along, beyond = (mean - steps) @ away, (mean - steps).square().sum(1) - widest
    roots = (-along + (along.square() - squared * beyond).clamp_min(0).sqrt()) / squared
    return float(roots.min())


def copycat(seen: Seen) -> Tensor:
    """The mean of the honest clients' steps: (n - m, d) -> (d,)."""
    return seen.honest.mean(0)


def mirror(seen: Seen) -> Tensor:
    """The step of the honest client with the most samples, turned round: (n - m, d) -> (d,)."""
    return -seen.honest[max(range(len(seen.samples)), key=seen.samples.__getitem__)]


TOGETHER: Mapping[Attack, Callable[[Seen], Tensor]] = {
    "little_is_enough": little_is_enough,
    "inner_product": inner_product,
    "min_max": min_max,
    "copycat": copycat,
    "mirror": mirror,
}


def _vector(adapter: Adapter) -> Tensor:
    """An adapter's numbers in the order of their names, (d,), float64."""
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(adapter.tensors.items())])
