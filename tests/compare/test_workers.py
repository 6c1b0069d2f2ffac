import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare import scoring
from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.trial import Trial, run_trial
from fccl.compare.workers import run_all, spread
from fccl.errors import FederationError
from fccl.model.encoding import encode_pairs


def trial(scenario, method, seed):
    return Trial(scenario, method, seed, spec=None, data=Path("data"))  # of which the order does not depend


TRIALS = st.lists(st.builds(trial, st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 3)), max_size=20)


@given(TRIALS)
def test_spread_trials_are_the_same_ones_seed_by_seed_each_scenario_in_its_order(trials):
    trials.sort(key=lambda each: each.seed)
    found = spread(trials)
    assert [each.seed for each in found] == [each.seed for each in trials]
    for scenario in "abc":
        mine = [id(each) for each in trials if each.scenario == scenario]
        assert [id(each) for each in found if each.scenario == scenario] == mine


def test_trials_beside_each_other_are_of_different_scenarios_while_there_are_two():
    trials = [trial(scenario, method, seed) for seed in (1, 2) for scenario in "abc" for method in "xyz"]
    names = [each.scenario for each in spread(trials)]
    assert names == list("abc" * 6)


def test_trials_of_a_process_share_the_test_split_and_have_the_results_that_they_have_alone(
    workshop, tmp_path, monkeypatch
):
    encoded, shop, fresh = [], workshop(tmp_path / "one"), workshop(tmp_path / "two")
    monkeypatch.setattr(scoring, "encode_pairs", lambda *asked: encoded.append(1) or encode_pairs(*asked))
    pairs = [shop.planner.trial(SCENARIOS["flipped"], METHODS[name], 42) for name in ("fedavg", "oracle")]
    results = [result for _, result in run_all(pairs, lambda: shop.resources, jobs=1)]
    assert len(encoded) == 1
    alone = run_trial(fresh.resources, fresh.planner.trial(SCENARIOS["flipped"], METHODS["oracle"], 42))
    assert (alone.adapter_sha256, alone.losses, alone.right) == (
        results[1].adapter_sha256,
        results[1].losses,
        results[1].right,
    )


@pytest.mark.slow
def test_a_process_that_dies_is_one_line_and_not_a_hang():
    trials = [trial("a", "x", 1), trial("b", "x", 1)]
    with pytest.raises(FederationError, match="a process of the comparison died"):
        list(run_all(trials, partial(os._exit, 1), jobs=2))
