"""Means over groups of examples with their standard errors, and how far these are believed.

Shapes: k groups, n clients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fccl.contribution.adam import Numbers

MOST_ERRORS = 1e6  # what a mean without any noise counts as
FEWEST_GROUPS = 4  # below, the noise of a mean is not known well enough to call anything signal


@dataclass(frozen=True, eq=False)
class Estimated:
    """Means of n quantities over k groups, (n,), and their standard errors, (n,): infinite for few groups."""

    mean: Numbers
    error: Numbers
    groups: int

    @classmethod
    def of(cls, values: Numbers) -> Estimated:
        """Of one quantity on k groups, (k,), or of n, (k, n)."""
        groups = len(values)
        mean = np.asarray(values.mean(axis=0), dtype=np.float64)
        if groups < FEWEST_GROUPS:
            return cls(mean, np.full_like(mean, np.inf), groups)
        return cls(mean, np.asarray(values.std(axis=0, ddof=1) / np.sqrt(groups)), groups)

    @property
    def ratio(self) -> Numbers:
        """mean / standard error, Student's t of a mean of 0, within ±`MOST_ERRORS`; 0 where the mean is 0."""
        least = np.abs(self.mean) / MOST_ERRORS
        return np.asarray(self.mean / np.where(self.error > least, self.error, np.where(least > 0, least, 1.0)))

    def in_noise(self, weights: Numbers) -> Numbers:
        """The means in units of the noise that they have under these weights, (n,): within ±`MOST_ERRORS`."""
        noise = float(np.sqrt(weights @ self.error**2))
        least = float(np.abs(self.mean).max()) / MOST_ERRORS
        return np.asarray(self.mean / (max(noise, least) or 1.0))

    def signal(self, weights: Numbers) -> float:
        """The share of the spread of the means that is not noise, from 0 to 1."""
        return signal(self.in_noise(weights), weights, self.groups)


def signal(standings: Numbers, weights: Numbers, groups: int) -> float:
    """The share of the spread of n quantities that is not noise, from 0 to 1 (James & Stein 1961).

    They are in units of the noise that they have under the weights, which k groups gave: noise alone would have a
    spread of 1. It counts (k - 1) / (k - 3) times, the expectation of t² with k - 1 degrees of freedom: few groups do
    not know their own noise.
    """
    spread = float(weights @ standings**2)
    return 0.0 if groups < FEWEST_GROUPS or spread == 0 else max(0.0, 1 - (groups - 1) / (groups - 3) / spread)


def kept(ratio: Numbers, doubt: float, sure: float) -> Numbers:
    """1 up to `doubt`, 0 from `sure` on, a smooth step between (3z² - 2z³): (n,)."""
    rest = np.clip((sure - ratio) / (sure - doubt), 0.0, 1.0)
    return np.asarray(rest * rest * (3 - 2 * rest))
