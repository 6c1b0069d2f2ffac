"""Against the paper's own way: autograd of L over softmax logits and exp, and torch's Adam."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.fedlaw import FedLaw
from fccl.contribution.stretch import sent
from fccl.testing.quadratic import Quadratic, flat, task, updates
from tests.contribution.strategies import quadratics, rounds, row
from tests.examples import few


def as_the_paper_does(loss, start, given_updates, steps, rate, shrinks):
    """gamma · λ of every client, by autograd in float64."""
    changes = torch.tensor(np.array([flat(one.adapter) for one in given_updates]) - start)
    samples = torch.tensor([float(one.contribution.num_samples) for one in given_updates], dtype=torch.float64)
    numbers = torch.cat([torch.log(samples / samples.sum()), torch.zeros(1, dtype=torch.float64)]).requires_grad_()
    adam = torch.optim.Adam([numbers], lr=rate, betas=(0.5, 0.999))

    def coefficients():
        return (torch.exp(numbers[-1]) if shrinks else 1.0) * torch.softmax(numbers[:-1], 0)

    for _ in range(steps):
        adam.zero_grad()
        apart = torch.tensor(start) + coefficients() @ changes - torch.tensor(loss.target)
        (0.5 * torch.tensor(loss.curvature, dtype=torch.float64) @ apart**2).backward()
        adam.step()
    return coefficients().detach().numpy()


@pytest.mark.parametrize("shrinks", [False, True])
@settings(max_examples=few(60), deadline=None)
@given(rounds(min_size=2), quadratics, row, st.integers(1, 8), st.sampled_from([0.03, 0.3, 1.0]))
def test_weights_and_gamma_are_those_of_the_paper(shrinks, given_updates, loss, start, steps, rate):
    expected = as_the_paper_does(loss, start, given_updates, steps, rate, shrinks)
    changes = np.array([flat(one.adapter) for one in given_updates]) - start
    gradient = np.array(loss.curvature) * (start + expected @ changes - loss.target)
    if np.abs(changes @ gradient).min() < 1e-3:  # Adam turns a slope of mere rounding into a whole step
        return
    found = FedLaw(loss, steps, rate, shrinks).weigh(task(start), given_updates)
    assert sent(found) == pytest.approx(expected, abs=2e-3)


def test_gamma_falls_where_all_go_too_far_and_rises_where_they_fall_short():
    given_updates = updates([(2.0, 0.0, 0.0), (2.0, 0.1, 0.0)])
    for target, longer in ((1.0, False), (4.0, True)):
        loss = Quadratic((target, 0.0, 0.0))
        found = FedLaw(loss, steps=30).weigh(task(), given_updates)
        assert (found.stretch[0] > 1) == longer
        assert found.verification.loss_weights < found.verification.loss_prior
        assert FedLaw(loss, steps=30, shrinks=False).weigh(task(), given_updates).stretch == ()


def test_it_says_its_passes_and_its_losses():
    found = FedLaw(Quadratic((1.0, 0.0, 0.0)), steps=4).weigh(task(), updates([(1, 0, 0), (-1, 0, 0)]))
    assert found.verification.passes == len(found.verification.path) == 5
    assert found.verification.taken == 4
    assert found.weights[0] > 0.5 > found.weights[1]


def test_where_a_step_leads_to_no_loss_the_point_before_it_counts():
    """A step of rate 5 multiplies the change by e^5, beyond where the loss is finite."""
    loss = Quadratic((9.0, 0.0, 0.0), limit=50.0)
    found = FedLaw(loss, steps=5, rate=5.0).weigh(task(), updates([(1.0, 0.0, 0.0)]))
    assert found.verification.path[-1] is None
    assert found.stretch == (1.0,)
    assert math.isfinite(found.verification.loss_weights)
