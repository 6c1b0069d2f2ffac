import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.protocol import Parts
from fccl.aggregation.state import ServerState
from fccl.contribution.fltrust import FLTrust
from fccl.contribution.stretch import as_weighed
from fccl.testing.quadratic import Quadratic, flat, task, updates
from tests.contribution.strategies import quadratics, rounds, row
from tests.examples import few


def next_adapter(rule, asked, given_updates):
    found = rule.weigh(asked, given_updates)
    parts = Parts(found.weights, as_weighed(asked, given_updates, found.stretch))
    return flat(FedAvg().aggregate(asked.trained, parts, ServerState()).adapter)


@settings(max_examples=few(100), deadline=None)
@given(rounds(), quadratics, row, st.sampled_from([0.5, 1.0, 2.0]))
def test_the_next_adapter_is_the_paper_s(given_updates, loss, start, step):
    """g = sum ReLU(cos(g_i, g_0)) (‖g_0‖ / ‖g_i‖) g_i / sum ReLU(cos), over the server's own change g_0."""
    own = flat(loss.learnt(task(start)).adapter) - start
    changes = np.array([flat(one.adapter) for one in given_updates]) - start
    norms, length = np.linalg.norm(changes, axis=1), np.linalg.norm(own)
    products = np.where(norms > 0, changes @ own / np.where(norms * length > 0, norms * length, 1), 0)
    if np.abs(products[products != 0]).min(initial=1.0) < 1e-6:
        return  # at a right angle, where rounding decides
    trust = np.maximum(0, products)
    scaled = changes * (length / np.where(norms > 0, norms, 1))[:, None]
    mean = trust @ scaled / trust.sum() if trust.sum() else np.zeros(3)
    assert next_adapter(FLTrust(loss, step), task(start), given_updates) == pytest.approx(start + step * mean, abs=1e-4)


def test_who_points_elsewhere_has_no_weight_and_who_is_long_gains_nothing():
    rows = [(1.0, 0.0, 0.0), (100.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 0.0)]
    found = FLTrust(Quadratic((2.0, 0.0, 0.0))).weigh(task(), updates(rows))
    assert found.weights == pytest.approx((0.5, 0.5, 0.0, 0.0))
    assert found.scores == pytest.approx((1.0, 1.0, -1.0, 0.0))
    assert found.stretch == pytest.approx((1.0, 0.01, 0.0, 0.0))
    assert (found.verification.passes, found.verification.examples) == (1, 1)


def test_where_nobody_is_trusted_nothing_moves():
    asked, rule = task((3.0, 3.0, 3.0)), FLTrust(Quadratic())
    assert next_adapter(rule, asked, updates([(4.0, 4.0, 4.0), (5.0, 3.0, 3.0)])).tolist() == [3.0, 3.0, 3.0]
    assert next_adapter(FLTrust(Quadratic()), task(), updates([(4.0, 4.0, 4.0)])).tolist() == [0.0, 0.0, 0.0]
