"""An empirical check: the best test there is between two neighbours, on what the server releases, stays within ε.

The two federations differ in one client, which stands at one end of the clip or at the other. The likelihood ratio of
the noised mean is monotone in its first number, so a threshold on it is the best test (Neyman and Pearson 1933).
"""

import math
from dataclasses import replace

import pytest
from scipy.stats import beta

from fccl.federation.server_noise import ServerNoise
from fccl.messages import FitTask
from fccl.privacy.accountant import accounting_of
from fccl.privacy.spec import PrivacySpec
from fccl.specs import RoundPlan
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard

TRIALS, DELTA = 1500, 1e-2
PLAN = RoundPlan(fed_rounds=1, num_clients=2, clients_per_round=2, seed=1)


def releases(folder, spec, end):
    """The first number of many releases: one client has moved by `end`, one not at all."""
    spec = spec.model_copy(update={"epsilon": 1e9})
    task = FitTask("run", 0, "sft", adapter(), None, MODEL, TRAIN, seed=1)
    update = ToyLearner().fit(task, shard(0), lambda status: None)
    pair = [replace(update, adapter=adapter(end, 0.0, 0.0)), replace(update, client_id=1, adapter=adapter())]
    each = (ServerNoise(spec, PLAN, folder / str(number)) for number in range(TRIALS))  # with a secret of its own
    return [float(noise.released(task, pair, 2).adapter.vector[0]) for noise in each]


def lower_bound(one, other):
    """The ε that these samples prove with 99.9 % confidence at δ: max over thresholds of log((TPR - δ) / FPR)."""
    best = 0.0
    for threshold in (sorted(one)[place] for place in range(0, TRIALS, TRIALS // 30)):
        hits, alarms = (sum(number > threshold for number in numbers) for numbers in (one, other))
        least = beta.ppf(0.001, hits, TRIALS - hits + 1) if hits else 0.0
        most = beta.ppf(0.999, alarms + 1, TRIALS - alarms) if alarms < TRIALS else 1.0
        if least > DELTA:
            best = max(best, math.log((least - DELTA) / most))
    return best


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_no_test_tells_two_neighbours_apart_better_than_epsilon_says(tmp_path, noise):
    spec = PrivacySpec(where="server", clip=0.5, noise=noise, epsilon=1.0, delta=DELTA)
    far = releases(tmp_path / "a", spec, 9.0)  # as far as anybody likes: it is clipped
    near = releases(tmp_path / "b", spec, -9.0)
    found, said = lower_bound(far, near), accounting_of(spec, 2, 2).epsilon(1)
    assert 0.3 * said < found <= said, "within the bound, and a test that has some power"


@pytest.mark.slow
def test_the_same_test_finds_noise_that_is_a_third_of_what_is_said(tmp_path):
    said = PrivacySpec(where="server", clip=0.5, noise=2.0, epsilon=1.0, delta=DELTA)
    less = said.model_copy(update={"noise": 2.0 / 3})
    far, near = releases(tmp_path / "a", less, 9.0), releases(tmp_path / "b", less, -9.0)
    assert lower_bound(far, near) > accounting_of(said, 2, 2).epsilon(1)
