import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.reported import ContributionRule
from fccl.contribution.validation_loss import ValidationLoss
from fccl.testing.quadratic import Quadratic, task, update, updates

row = st.tuples(*[st.floats(-3, 3, width=32)] * 3)


@settings(deadline=None)
@given(st.lists(row, min_size=1, max_size=8), st.floats(0.1, 10), st.sampled_from(["mean", "none"]))
def test_it_is_loss_inverse_of_the_losses_that_the_server_finds(rows, temperature, normalize):
    loss = Quadratic(target=(5.0, 5.0, 5.0))  # never reached, so no loss is near the floor
    given_updates = updates(rows)
    weighing = ValidationLoss(loss, temperature, normalize).weigh(task(), given_updates)
    found = [
        update(each.client_id, (), loss=loss.loss(None, each.adapter), kept=each.adapter) for each in given_updates
    ]
    expected = ContributionRule(source="loss_inverse", temperature=temperature, normalize=normalize).weigh(
        task(), found
    )
    assert weighing.scores == pytest.approx(expected.scores)
    assert weighing.weights == pytest.approx(expected.weights)


def test_what_clients_report_does_not_matter():
    honest = updates([(1.0, 0.0, 0.0), (2.0, 0.0, 0.0)])
    forged = [honest[0], update(1, (2.0, 0.0, 0.0), samples=10**6, loss=1e-9)]
    rule = ValidationLoss(Quadratic())
    assert rule.weigh(task(), honest).weights == rule.weigh(task(), forged).weights


def test_a_client_without_a_finite_loss_is_left_out():
    given_updates = updates([(1.0, 0.0, 0.0), (1e9, 0.0, 0.0), (2.0, 0.0, 0.0)])
    weighing = ValidationLoss(Quadratic(limit=1e6)).weigh(task(), given_updates)
    alone = ValidationLoss(Quadratic(limit=1e6)).weigh(task(), [given_updates[0], given_updates[2]])
    assert (weighing.weights, weighing.scores, weighing.unfit) == (alone.weights, alone.scores, (1,))
    nobody = ValidationLoss(Quadratic(limit=-1.0)).weigh(task(), given_updates)
    assert (nobody.weights, nobody.scores, nobody.unfit) == ((), (), (0, 1, 2))


def test_the_record_says_on_how_many_examples_and_for_how_long():
    found = ValidationLoss(Quadratic()).weigh(task(), updates(np.eye(3))).verification
    assert found.examples == 1
    assert found.seconds >= 0
    assert (found.prior, found.loss_prior, found.path) == ((), None, ())
    assert not math.isnan(found.seconds)
