"""95 % percentile bootstrap intervals (Efron 1979), vectorised and seeded.

Examples are resampled with replacement; n examples, S resamples, k sums. A paired difference is the interval of a
per-example difference: both models answer the same resampled examples, so what makes an example hard for both cancels
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fccl.records.evaluation import Estimate

Floats = NDArray[np.float64]
LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 20  # indices held in memory together
_LARGEST_EXPONENT = 700.0  # exp of more is not a float


@dataclass(frozen=True)
class Bootstrap:
    """`samples` resamples from one seed; the same n draws the same examples, whatever is measured of them."""

    samples: int
    seed: int

    def mean(self, values: ArrayLike) -> Estimate:
        """The mean of `values` (n,). Raises `ValueError` when there are none."""
        return self.ratio(values, np.ones(np.shape(values)))

    def ratio(self, numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
        """Σ numerators / Σ denominators, both (n,). Raises `ValueError` unless every denominator is positive."""
        over, under = _column(numerators), _column(denominators)
        if over.shape != under.shape:
            raise ValueError(f"{len(over)} numerators and {len(under)} denominators")
        if not (under > 0).all():
            raise ValueError("every denominator must be positive")
        sums = self.sums(np.stack([over, under], axis=1))
        low, high = np.quantile(sums[:, 0] / sums[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value=float(over.sum() / under.sum()), low=float(low), high=float(high), n=len(over))

    def perplexity(self, nll: ArrayLike, tokens: ArrayLike) -> Estimate:
        """exp(Σ nll / Σ tokens), both (n,). Of differences of NLL it is the ratio of two perplexities."""
        log = self.ratio(nll, tokens)  # percentiles go through a rising function unchanged
        return Estimate(value=_exp(log.value), low=_exp(log.low), high=_exp(log.high), n=log.n)

    def sums(self, columns: Floats) -> Floats:
        """The sums of n rows drawn with replacement, once for each resample: (n, k) -> (S, k)."""
        return np.concatenate([columns[rows].sum(axis=1) for rows in self._drawn(len(columns))])

    def counts(self, count: int) -> Floats:
        """The number of times that each of n rows is drawn in each resample of `sums`: (S, n).

        `counts @ column` is its sum, for many columns in much less time.
        """
        return np.concatenate([_counted(rows, count) for rows in self._drawn(count)])

    def _drawn(self, count: int) -> Iterator[NDArray[np.int64]]:
        """The rows of each resample, so many resamples at once: (block, n)."""
        draw = np.random.default_rng(self.seed)
        block = max(1, _DRAWS_AT_ONCE // count)
        return (
            draw.integers(count, size=(min(block, self.samples - at), count)) for at in range(0, self.samples, block)
        )


def _counted(rows: NDArray[np.int64], count: int) -> Floats:
    places = rows + count * np.arange(len(rows))[:, None]
    return np.bincount(places.ravel(), minlength=len(rows) * count).reshape(len(rows), count).astype(np.float64)


def _column(values: ArrayLike) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"an interval needs a list of at least one number, not one of shape {column.shape}")
    if not np.isfinite(column).all():
        raise ValueError("an interval needs finite numbers")
    return column


def _exp(value: float) -> float:
    return float(np.exp(np.clip(value, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)))
