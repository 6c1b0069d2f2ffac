from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fccl.compare.methods import METHODS
from fccl.compare.reference import agreement, every_second, halved, units
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.trial import TrialRun, run_trial, start_adapter
from fccl.contribution.shapley import exact_values
from fccl.data.examples import SftExample
from fccl.evaluation.validation import VerificationLoss
from fccl.paths import DataPaths
from fccl.testing.quadratic import task, updates


def test_a_topic_of_two_examples_is_in_both_halves():
    examples = [SftExample(f"q{n}", "a", topic="abc"[n % 3]) for n in range(6)]
    one, other = (every_second(examples, start) for start in (0, 1))
    assert {each.topic for each in one} == {each.topic for each in other} == set("abc")
    assert {each.instruction for each in (*one, *other)} == {f"q{n}" for n in range(6)}


@pytest.mark.parametrize("scenario", ["shuffled", "flipped"])
def test_the_mean_of_the_halves_values_is_the_value_on_the_whole_split(workshop, scenario):
    """Against Shapley values and rank correlations (scipy) on the split itself, in a round of the trial."""
    shop = workshop(fed_rounds=1)
    one = shop.planner.trial(SCENARIOS[scenario], METHODS["fedavg"], 42)
    run = TrialRun(shop.resources, one.spec, DataPaths(one.data), start_adapter(shop.resources, one))
    (result,) = run.federation(one.spec.clients)
    learn, given, heard = run.learn, result.inputs.task, result.inputs.arrived
    whole = exact_values(VerificationLoss(learn, examples=0), given, heard)
    halves = halved(learn)
    parts = [exact_values(VerificationLoss(half, examples=0), given, heard) for half in halves]
    shares = [units(half, given.phase) for half in halves]
    assert np.average(parts, axis=0, weights=shares) == pytest.approx(whole, abs=1e-5)
    weights = (0.4, 0.3, 0.2, 0.1)
    said = agreement(learn, given, heard, weights)
    assert said.weights == pytest.approx(stats.spearmanr(weights, whole).statistic)
    assert said.halves == pytest.approx(stats.spearmanr(*parts).statistic)


def test_nine_clients_have_no_exact_values():
    assert agreement(None, task(), updates([(1, 2, 3)] * 9), [1 / 9] * 9) is None


def test_every_round_of_a_trial_that_asks_has_both_correlations(workshop):
    shop = workshop()
    planner = replace(shop.planner, design=replace(shop.planner.design, agreement=True))
    found = run_trial(shop.resources, planner.trial(SCENARIOS["clean-iid"], METHODS["fedavg"], 42))
    assert all(-1 <= one.halves <= 1 for one in found.rounds)
