"""The primary set: what the claim rests on, fixed before it is run.

Eight scenarios in two regimes, our method against six rivals that a person could run instead, five seeds. Verdicts over
its pairs are corrected by Holm's procedure; everything else that a comparison shows is secondary. Seeds that somebody
tunes a setting on are never among those that judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fccl.compare.grids import tuned_for
from fccl.compare.methods import METHODS, Method
from fccl.compare.scenarios import SCENARIOS, Scenario
from fccl.compare.values import TrialResult
from fccl.compare.verdicts import standing
from fccl.evaluation.student import FEWEST_SEEDS, holm, p_value, student
from fccl.records.comparison import FEDAVG, ORACLE, POOLED, RivalPair
from fccl.records.evaluation import Estimate
from fccl.specs import Phase

PRIMARY = (
    "clean-non-iid",
    "shuffled",
    "sign-flip",
    "min-max",
    "shuffled-majority",
    "server-two-topics",
    "clean-va",
    "flipped",
)
OURS = "tempered"
RIVALS = (FEDAVG, "fedavg-server", "fltrust", "fedlaw-gamma", "greedy-soup", "multi-krum")
BESIDE = ("verified",)  # the rule before ours: a column, no pair
CEILINGS = (POOLED, ORACLE)
# The rivals' knobs: the lowest validation loss on the tuning seeds over two scenarios of each phase, a clean and a
# spoilt one (`fccl compare --tune`). Ours and what stands beside it run at their defaults.
TUNED: Mapping[str, Mapping[Phase, float]] = {
    "fedavg-server": {"sft": 0.001, "va": 0.0},
    "fltrust": {"sft": 4.0, "va": 4.0},
    "fedlaw-gamma": {"sft": 0.1, "va": 0.3},
}
TUNING_SEEDS = (7, 8)  # and 42 to 46, on which the rules were made
LOOKED_AT = (101, 102, 201, 202)  # while the rules were made: they judge nothing
JUDGING_SEEDS = (203, 204, 205, 206, 207)
BESIDE_SEEDS = JUDGING_SEEDS[:2]  # of what has no pair
LEVEL = 0.05  # of the family of all pairs
HOURS, CORES = 12.0, 2  # that the set may take


def scenarios() -> tuple[Scenario, ...]:
    """The eight, each in both regimes."""
    return tuple(each for name in PRIMARY for each in (SCENARIOS[name], SCENARIOS[name].unhurried))


def has(method: str, seed: int) -> bool:
    """Whether a method is run on a seed: what has no pair only on two, but for the oracle, whose rounds tell when
    FedAvg is flat.
    """
    return method in (OURS, *RIVALS, ORACLE) or seed in BESIDE_SEEDS


def methods() -> tuple[Method, ...]:
    """Ours, the rivals, what stands beside them and the ceilings, in the order of the tables, each tuned."""
    wanted = {OURS, *RIVALS, *BESIDE, *CEILINGS}
    return tuple(tuned_for(method, TUNED.get(name, {})) for name, method in METHODS.items() if name in wanted)


def pairs(found: Mapping[str, Mapping[str, Sequence[TrialResult]]]) -> tuple[RivalPair, ...]:
    """Every pair of the set by scenario, then by method: one result a seed, in the same order for all methods.

    Pairs of fewer than three seeds are left out, and so is what was not run. A model that cannot be scored decides its
    pair without a test, outside of the correction.
    """
    made = [
        _pair(scenario, rival, results[OURS], results[rival])
        for scenario, results in found.items()
        for rival in RIVALS
        if OURS in results and rival in results and len(results[OURS]) >= FEWEST_SEEDS
    ]
    tested = [place for place, pair in enumerate(made) if pair.p is not None]
    corrected = holm([pair.p for pair in made if pair.p is not None])
    for place, p_holm in zip(tested, corrected, strict=True):
        made[place] = _corrected(made[place], p_holm)
    return tuple(made)


def _pair(scenario: str, rival: str, ours: Sequence[TrialResult], theirs: Sequence[TrialResult]) -> RivalPair:
    mine, other = ([result.loss for result in results] for results in (ours, theirs))
    names = {"scenario": scenario, "method": OURS, "rival": rival}
    if None in mine or None in other:
        verdict = "cannot be told apart" if None in mine and None in other else "worse" if None in mine else "better"
        return RivalPair.model_validate(names | {"verdict": verdict})
    differences = [a - b for a, b in zip(mine, other, strict=True) if a is not None and b is not None]
    return RivalPair(**names, difference=student(differences), p=p_value(differences), verdict="cannot be told apart")


def _corrected(pair: RivalPair, p_holm: float) -> RivalPair:
    """The pair with its verdict: better or worse only where the corrected p-value is below the level.

    Not worse needs no correction: it is read off the pair's own interval, whose upper end lies below a difference that
    counts.
    """
    if pair.difference is None:
        return pair
    verdict = standing(pair.difference)
    if verdict in ("better", "worse") and p_holm >= LEVEL:
        verdict = standing(_without_zero_left_out(pair.difference))
    return pair.model_copy(update={"p_holm": p_holm, "verdict": verdict})


def _without_zero_left_out(difference: Estimate) -> Estimate:
    """The interval widened to 0, which the correction does not leave out."""
    return difference.model_copy(update={"low": min(difference.low, 0.0), "high": max(difference.high, 0.0)})
