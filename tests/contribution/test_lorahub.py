import numpy as np
import pytest
from hypothesis import given, settings

from fccl.contribution.lorahub import LIMIT, LoraHub
from fccl.contribution.stretch import sent
from fccl.testing.quadratic import Quadratic, flat, task, updates
from tests.contribution.strategies import quadratics, rounds
from tests.examples import few


def objective(loss, given_updates, coefficients, penalty):
    point = coefficients @ np.array([flat(one.adapter) for one in given_updates])
    return 0.5 * np.array(loss.curvature) @ (point - loss.target) ** 2 + penalty * np.abs(coefficients).sum()


@settings(max_examples=few(60), deadline=None)
@given(rounds(), quadratics)
def test_the_objective_never_ends_above_fedavg_s_and_no_coefficient_is_beyond_the_limit(given_updates, loss):
    samples = np.array([one.contribution.num_samples for one in given_updates])
    found = LoraHub(loss, steps=20, penalty=0.05).weigh(task(), given_updates)
    ends = np.array(sent(found))
    start = objective(loss, given_updates, samples / samples.sum(), 0.05)
    assert objective(loss, given_updates, ends, 0.05) <= start * (1 + 1e-5) + 1e-5
    assert np.abs(ends).max() <= LIMIT + 1e-9
    assert found.scores == pytest.approx(ends)
    assert found.verification.passes == 20


def test_it_finds_the_least_of_its_objective_in_time():
    """1/2 (a - 1.2)² + 1/2 (b + 0.7)² + 0.05 (|a| + |b|) is least at a = 1.15, b = -0.65."""
    loss = Quadratic((1.2, -0.7, 0.0))
    found = LoraHub(loss, steps=400).weigh(task(), updates([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]))
    assert sent(found) == pytest.approx((1.15, -0.65), abs=0.01)


def test_a_larger_penalty_gives_smaller_coefficients():
    given_updates = updates([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
    sizes = [
        sum(map(abs, sent(LoraHub(Quadratic((1.0, 1.0, 0.0)), 300, penalty).weigh(task(), given_updates))))
        for penalty in (0.0, 0.5, 2.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes == pytest.approx([2.0, 1.0, 0.0], abs=0.05)


def test_other_seeds_draw_other_ways_and_one_seed_the_same():
    given_updates, rule = updates([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]), LoraHub(Quadratic((1.2, 0.1, 0.0)), steps=10)
    ends = [rule.weigh(task(seed=seed), given_updates).scores for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


def test_fedavg_s_weights_stay_where_no_loss_is_finite():
    found = LoraHub(Quadratic(limit=0.0)).weigh(task(), updates([(1, 2, 3), (3, 2, 1)], [1, 3]))
    assert sent(found) == pytest.approx((0.25, 0.75))
    assert found.verification.loss_weights is None
