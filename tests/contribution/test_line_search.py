import math

import numpy as np
import pytest
from hypothesis import given, settings

from fccl.contribution.line_search import STEPS, LineSearch
from fccl.testing.quadratic import Quadratic, flat, task, updates
from tests.contribution.strategies import quadratics, rounds, row
from tests.examples import few


@settings(max_examples=few(100), deadline=None)
@given(rounds(), quadratics, row)
def test_no_step_of_the_grid_is_better_along_fedavg_s_direction(given_updates, loss, start):
    samples = np.array([one.contribution.num_samples for one in given_updates])
    weights = samples / samples.sum()
    mean = weights @ np.array([flat(one.adapter) for one in given_updates]) - start
    losses = [0.5 * np.array(loss.curvature) @ (start + step * mean - loss.target) ** 2 for step in STEPS]
    found = LineSearch(loss).weigh(task(start), given_updates)
    assert found.weights == pytest.approx(weights)
    assert len(set(found.stretch)) == 1
    assert losses[STEPS.index(found.stretch[0])] <= min(losses) * (1 + 1e-4) + 1e-5
    assert found.verification.passes == len(STEPS)


@pytest.mark.parametrize(("target", "step"), [(0.1, 0.125), (2.0, 2.0), (1.0, 1.0), (9.0, 4.0), (-1.0, 0.125)])
def test_it_stops_where_the_examples_like_it_best(target, step):
    assert LineSearch(Quadratic((target, 0.0, 0.0))).weigh(task(), updates([(1.0, 0.0, 0.0)])).stretch == (step,)


def test_the_step_is_one_where_no_loss_is_finite_or_all_are_alike():
    for loss in (Quadratic(limit=0.0), Quadratic(curvature=(0.0, 0.0, 0.0))):
        found = LineSearch(loss).weigh(task(), updates([(1, 2, 3), (3, 2, 1)]))
        assert found.stretch == (1.0, 1.0)
        assert math.fsum(found.weights) == 1
