"""Trials that are the first rounds of others: one federation has the results of both.

Nothing in a round depends on how many come after it. There are two exceptions: a learning rate that falls over the
rounds, and coded updates, whose last adapter goes out whole. Without these a trial of three rounds is the first three
of a trial of twenty, to the bit (`tests/compare/test_beginnings.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fccl.compare.flat import is_flat
from fccl.compare.values import TrialSpec


def course(spec: TrialSpec) -> str:
    """A name that trials have in common which differ in the number of their rounds alone.

    A trial whose rounds depend on that number has a name of its own.
    """
    depends = spec.plan.lr_schedule != "constant" or not spec.train.codec.is_whole
    return spec.key if depends or spec.way == "alone" else spec.with_rounds(1).key


def beginnings(longest: TrialSpec, others: Iterable[TrialSpec]) -> tuple[TrialSpec, ...]:
    """Those of the others that are the first rounds of the longest, the shortest first."""
    found = {spec.key: spec for spec in others if spec.key != longest.key and course(spec) == course(longest)}
    return tuple(sorted((spec for spec in found.values() if spec.rounds <= longest.rounds), key=_rounds))


def ended(spec: TrialSpec, begins: Sequence[TrialSpec], losses: Sequence[float]) -> tuple[TrialSpec, ...]:
    """The trials whose results a run of `spec` has, its own apart, once it is over with these losses by round.

    A run until flat that ended for that is also the trial of so many rounds, and it has no result of a longer one. A
    run that broke down has those of all: each would have broken down there.
    """
    if not (spec.until_flat and (is_flat(losses) or len(losses) == spec.rounds)):
        return tuple(begins)
    begun = [one for one in begins if one.rounds < len(losses)]
    return (*begun, *([spec.with_rounds(len(losses))] if course(spec) != spec.key else ()))


def _rounds(spec: TrialSpec) -> int:
    return spec.rounds
