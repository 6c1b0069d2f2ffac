"""Figures of attacks: exposure of canaries, and how well members are told from examples that were held out.

Scores: the higher, the more the attack believes that an example was trained on. m members, n others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fccl.records.audit import Exposure, Membership
from fccl.records.evaluation import Estimate

Floats = NDArray[np.float64]
FALSE_POSITIVES = 0.01
_NORMAL = 1.959963984540054  # 97.5 % of a normal distribution


def membership(members: ArrayLike, others: ArrayLike) -> Membership:
    """AUC with its 95 % interval, and the share of members found at 1 % false positives. Raises `ValueError` for fewer
    than two scores on a side.
    """
    high, low = np.asarray(members, float), np.asarray(others, float)
    return Membership(auc=auc(high, low), found=found_at(high, low), members=len(high), others=len(low))


def auc(members: Floats, others: Floats) -> Estimate:
    """P(member's score > other's), ties half, with DeLong's interval (DeLong, DeLong & Clarke-Pearson 1988), cut to
    [0, 1].

    >>> round(auc(np.array([3.0, 2.0, 1.0]), np.array([2.0, 0.0])).value, 3)
    0.75
    """
    if min(len(members), len(others)) < 2:
        raise ValueError("an AUC needs two scores of each kind")
    above = _placements(members, others)  # (m,): of each member, the share of others below it
    below = 1.0 - _placements(others, members)  # (n,): of each other, the share of members above it
    value = float(above.mean())
    spread = _NORMAL * math.sqrt(above.var(ddof=1) / len(members) + below.var(ddof=1) / len(others))
    low, high = max(0.0, value - spread), min(1.0, value + spread)
    return Estimate(value=value, low=low, high=high, n=len(members) + len(others))


def found_at(members: Floats, others: Floats, false_positives: float = FALSE_POSITIVES) -> float:
    """The share of members whose score is above all but this share of the others: at most floor(share · n) of them."""
    allowed = math.floor(false_positives * len(others))
    threshold = np.sort(others)[len(others) - 1 - allowed]
    return float((members > threshold).mean())


def exposure(planted: ArrayLike, unused: ArrayLike, repeats: int) -> Exposure:
    """The mean exposure of planted canaries, each by its own rank among the unused (Carlini et al. 2019), with the 95 %
    interval of a mean; ties share the middle of their ranks.
    """
    scores, rest = np.asarray(planted, float), np.asarray(unused, float)
    ranks = 1.0 + len(rest) * (1.0 - _placements(scores, rest))  # (k,): 1 is the most believed
    bits = math.log2(len(rest) + 1) - np.log2(ranks)
    mean = float(bits.mean())
    spread = _NORMAL * float(bits.std(ddof=1)) / math.sqrt(len(bits)) if len(bits) > 1 else math.inf
    low, high = max(0.0, mean - spread), min(math.log2(len(rest) + 1), mean + spread)
    return Exposure(
        repeats=repeats, mean=Estimate(value=mean, low=low, high=high, n=len(bits)), chance=chance(len(rest))
    )


def chance(unused: int) -> float:
    """The mean exposure of a canary that was never planted: all ranks among `unused` + 1 are alike.

    >>> round(chance(1000), 2)
    1.44
    """
    return math.log2(unused + 1) - float(np.log2(np.arange(1, unused + 2)).mean())


def _placements(scores: Floats, among: Floats) -> Floats:
    """Of each score (m,), the share of `among` below it, ties half."""
    order = np.sort(among)
    left, right = np.searchsorted(order, scores, "left"), np.searchsorted(order, scores, "right")
    return np.asarray((left + right) / (2 * len(order)), float)
