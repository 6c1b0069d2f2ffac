"""Every rival in a whole trial: a real federation of a tiny model, with a client whose updates are turned around."""

import pytest

from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.trial import run_trial

ON_EXAMPLES = ("shapley", "fltrust", "fedlaw", "fedlaw-gamma", "greedy-soup", "lorahub", "line-search")
RIVALS = (*ON_EXAMPLES, "fedawa", "fedexp", "svd", "exact", "freeze-a")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["sign-flip", "flipped"])
def test_every_rival_runs_a_trial_and_the_same_again(workshop, scenario):
    shop = workshop(fed_rounds=1, lorahub_steps=5)
    ends = {}
    for name in ("fedavg", *RIVALS):
        trial = shop.planner.trial(SCENARIOS[scenario], METHODS[name], 42)
        found = [run_trial(shop.resources, trial) for _ in range(2)]
        assert found[0].adapter_sha256 == found[1].adapter_sha256
        assert (found[0].loss, found[0].trouble) == (found[1].loss, ())
        assert (found[0].weighing_seconds > 0) == (name in ON_EXAMPLES)
        ends[name] = found[0].adapter_sha256
    assert len(set(ends.values())) == len(ends)
