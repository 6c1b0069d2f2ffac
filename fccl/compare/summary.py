"""From finished trials to the whole comparison: one row for every method in every scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fccl.compare.methods import way_of
from fccl.compare.scenarios import Scenario
from fccl.compare.speed import area, spent_until
from fccl.compare.trial import Trial
from fccl.compare.values import RoundSummary, TrialResult
from fccl.compare.verdicts import Judgement, judge
from fccl.records.comparison import FEDAVG, POOLED, STABLE, Outcome

Found = Mapping[str, Sequence[tuple[Trial, TrialResult]]]  # by method


@dataclass(frozen=True)
class Options:
    """The settings by which rows are judged."""

    num_clients: int
    bootstrap_samples: int
    seed: int


def rows(scenario: Scenario, found: Found, options: Options) -> tuple[Outcome, ...]:
    """The rows of one scenario. `found` has every method's trials, one a seed, in the same order of seeds.

    A method may have fewer seeds than others: it is held against FedAvg on those that it has.
    """
    judged = _judged(found, options)
    ends = _ends(found.get(FEDAVG, ()))
    return tuple(_row(scenario, name, pairs, judged[name], options, ends) for name, pairs in found.items())


def _judged(found: Found, options: Options) -> dict[str, Judgement]:
    """Each method beside those that have all of its seeds. The pooled data may have fewer: then the share of the gap to
    it is that of its seeds.
    """
    seeds = {name: tuple(trial.seed for trial, _ in pairs) for name, pairs in found.items()}
    by_seeds = {each: _judged_on(found, each, options) for each in dict.fromkeys(seeds.values())}
    pooled = by_seeds.get(seeds.get(POOLED, ()), {})
    said = {name: by_seeds[seeds[name]][name] for name in found}
    fewer = {name for name in pooled if set(seeds[POOLED]) < set(seeds[name])}
    return {
        name: replace(mine, gap_pooled=pooled[name].gap_pooled) if name in fewer else mine
        for name, mine in said.items()
    }


def _judged_on(found: Found, seeds: Sequence[int], options: Options) -> dict[str, Judgement]:
    """The judgement on some seeds, of the methods that have them all."""
    picked = {name: [result for trial, result in pairs if trial.seed in seeds] for name, pairs in found.items()}
    whole = {name: results for name, results in picked.items() if len(results) == len(seeds)}
    return judge(whole, options.bootstrap_samples, options.seed)


def _row(
    scenario: Scenario,
    method: str,
    pairs: Sequence[tuple[Trial, TrialResult]],
    judged: Judgement,
    options: Options,
    ends: Mapping[int, float],
) -> Outcome:
    results = [result for _, result in pairs]
    bad = [scenario.bad_clients(options.num_clients, trial.seed) for trial, _ in pairs]
    first, weighed = results[0], way_of(method) == "federated"
    goals = [ends[trial.seed] for trial, _ in pairs if trial.seed in ends]
    until = _spent([result.rounds for result in results], goals) if weighed else None
    return Outcome(
        scenario=scenario.name,
        method=method,
        seeds=len(results),
        loss=judged.loss,
        accuracy=judged.accuracy,
        difference=judged.difference,
        bootstrap=judged.bootstrap,
        verdict=judged.verdict,
        gap_pooled=judged.gap_pooled if weighed else None,
        gap_closed=judged.gap_closed if weighed else None,
        by_seed=tuple(result.loss for result in results),
        bad_weight=bad_weight([result.rounds for result in results], bad)
        if scenario.has_bad_clients and weighed
        else None,
        validation=_by_round([[one.loss for one in result.rounds] for result in results]),
        area=_mean([area(result.rounds) for result in results]) if weighed else None,
        tokens_until=until[0] if until else None,
        bytes_until=until[1] if until else None,
        aside=judged.aside,
        weights=_weights(first.rounds, options.num_clients) if weighed else None,
        bad_clients=bad[0],
        **_agreements([one for result in results for one in result.rounds]),
        effective=effective([result.rounds for result in results]) if weighed else None,
        seconds=float(np.mean([result.training_seconds + result.weighing_seconds for result in results])),
        trouble=tuple(f"seed {trial.seed}: {'; '.join(result.trouble)}" for trial, result in pairs if result.trouble),
    )


def bad_weight(runs: Sequence[Sequence[RoundSummary]], bad: Sequence[Sequence[int]]) -> tuple[float, ...] | None:
    """By round, the weight that the bad clients of each seed had, mean over seeds. None where there are no weights."""
    if not all(runs) or any(one.weights is None for rounds in runs for one in rounds):
        return None
    return _by_round([[_share(one, set(mine)) for one in rounds] for rounds, mine in zip(runs, bad, strict=True)])


def _share(one: RoundSummary, bad: set[int]) -> float:
    return sum(weight for client, weight in zip(one.clients, one.weights or (), strict=False) if client in bad)


def _weights(rounds: Sequence[RoundSummary], num_clients: int) -> tuple[tuple[float, ...], ...] | None:
    """By round, then by client; 0 for a client that was excluded."""
    if not rounds or any(one.weights is None for one in rounds):
        return None
    tables = [dict(zip(one.clients, one.weights or (), strict=False)) for one in rounds]
    return tuple(tuple(table.get(client, 0.0) for client in range(num_clients)) for table in tables)


def effective(runs: Sequence[Sequence[RoundSummary]]) -> tuple[float, ...] | None:
    """By round, the effective clients 1 / (sum of w²) of the seed that has the fewest. None where there are no weights.

    Of the rounds that all seeds have.
    """
    if not all(runs) or any(one.weights is None for rounds in runs for one in rounds):
        return None
    counts = ([_count(one.weights or ()) for one in rounds] for rounds in runs)
    return tuple(min(values) for values in zip(*counts, strict=False))


def _count(weights: Sequence[float]) -> float:
    squares = sum(weight * weight for weight in weights)
    return 1 / squares if squares > 0 else 0.0


def _agreements(rounds: Sequence[RoundSummary]) -> dict[str, Any]:
    """Agreement with exact Shapley values over all rounds, and over those in which two halves of the examples order the
    clients alike.
    """
    told = [one for one in rounds if one.halves is not None]
    stable = [one for one in told if one.halves is not None and one.halves >= STABLE]
    return {
        "agreement": _agreement(rounds),
        "agreement_stable": _agreement(stable),
        "stable_rounds": (len(stable), len(told)),
    }


def _agreement(rounds: Sequence[RoundSummary]) -> float | None:
    """The mean over the rounds that have one."""
    known = [one.agreement for one in rounds if one.agreement is not None]
    return float(np.mean(known)) if known else None


def _by_round(many: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean over seeds of the rounds that all seeds have."""
    return tuple(float(np.mean(values)) for values in zip(*many, strict=False))


def _ends(fedavg: Sequence[tuple[Trial, TrialResult]]) -> dict[int, float]:
    """FedAvg's last validation loss in each seed that has one."""
    return {trial.seed: result.rounds[-1].loss for trial, result in fedavg if result.rounds}


def _spent(runs: Sequence[Sequence[RoundSummary]], ends: Sequence[float]) -> tuple[float, float] | None:
    """Tokens and bytes until each seed's loss is as low as FedAvg's end, means over seeds.

    None where it never is in some seed.
    """
    if len(ends) != len(runs):
        return None
    spent = [spent_until(rounds, end) for rounds, end in zip(runs, ends, strict=True)]
    reached = [one for one in spent if one is not None]
    if not reached or len(reached) < len(spent):
        return None
    return float(np.mean([tokens for tokens, _ in reached])), float(np.mean([count for _, count in reached]))


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is missing."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found and len(found) == len(values) else None
