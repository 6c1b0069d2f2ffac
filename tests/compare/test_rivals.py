"""Every rival in a whole trial: a real federation of a tiny model, with a client whose updates are turned around."""

from dataclasses import replace

import pytest

from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.trial import run_trial

ON_EXAMPLES = ("tempered", "shapley", "fltrust", "fedlaw", "fedlaw-gamma", "greedy-soup", "lorahub", "line-search")
RIVALS = (*ON_EXAMPLES, "fedawa", "fedexp", "svd", "exact", "nearly", "freeze-a")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["sign-flip", "flipped"])
def test_every_rival_runs_a_trial_and_the_same_again(workshop, scenario):
    shop = workshop(fed_rounds=1, lorahub_steps=20)
    ends = {}
    for name in ("fedavg", *RIVALS):
        trial = shop.planner.trial(SCENARIOS[scenario], METHODS[name], 42)
        found = [run_trial(shop.resources, trial) for _ in range(2)]
        assert found[0].adapter_sha256 == found[1].adapter_sha256
        assert (found[0].loss, found[0].trouble) == (found[1].loss, ())
        assert (found[0].weighing_seconds > 0) == (name in ON_EXAMPLES)
        ends[name] = found[0].adapter_sha256
    assert ends.pop("tempered") == ends["fedavg"], "the server's examples are of too few topics to tell clients apart"
    assert len(set(ends.values())) == len(ends)


def test_weights_by_shapley_agree_with_it_in_every_round_of_a_trial_that_asks(workshop):
    shop = workshop(verify_examples=0, verify_prior="uniform")
    asked = replace(shop.planner.design, agreement=True)
    plain = shop.planner.trial(SCENARIOS["shuffled"], METHODS["shapley"], 42)
    planner = replace(shop.planner, design=asked)
    found = run_trial(shop.resources, planner.trial(SCENARIOS["shuffled"], METHODS["shapley"], 42))
    assert [one.agreement for one in found.rounds] == [1.0, 1.0]
    assert found.spec.key != plain.spec.key
    other = run_trial(shop.resources, planner.trial(SCENARIOS["shuffled"], METHODS["line-search"], 42))
    assert all(-1 <= one.agreement <= 1 for one in other.rounds)
    by_parts = run_trial(shop.resources, planner.trial(SCENARIOS["shuffled"], METHODS["median"], 42))
    assert [one.agreement for one in by_parts.rounds] == [None, None]
    assert not planner.trial(SCENARIOS["shuffled"], METHODS["base"], 42).spec.agreement
