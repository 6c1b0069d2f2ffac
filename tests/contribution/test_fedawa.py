import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.fedawa import FedAwa, inner_products
from fccl.testing.quadratic import flat, task, updates
from tests.contribution.strategies import away, rounds
from tests.examples import few

start_rows = st.tuples(away, away, away)


def equation_3(weights, changes, start):
    """sum λ_i ‖τ_i - τ‖ + 1 - cos(x + τ, x), τ = sum λ_i τ_i: of tensors."""
    whole = weights @ changes
    spread = weights @ torch.linalg.vector_norm(changes - whole, dim=1)
    return spread + 1 - torch.nn.functional.cosine_similarity(start + whole, start, dim=0, eps=0.0)


@settings(max_examples=few(60), deadline=None)
@given(rounds(min_size=2), start_rows)
def test_objective_and_gradient_are_equation_3_by_autograd(given_updates, start):
    origin = torch.tensor(start, dtype=torch.float64)
    changes = torch.tensor(np.array([flat(one.adapter) for one in given_updates])) - origin
    weights = torch.full((len(changes),), 1 / len(changes), dtype=torch.float64, requires_grad=True)
    whole = weights @ changes
    apart = torch.linalg.vector_norm(changes - whole, dim=1).min() > 1e-3  # where the norm has a derivative
    if not apart or torch.linalg.vector_norm(origin + whole) < 1e-3:
        return
    value = equation_3(weights, changes, origin)
    value.backward()
    products, at = inner_products(task(start), given_updates), weights.detach().numpy()
    assert products.objective(at) == pytest.approx(value.item(), rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(products.gradient(at), weights.grad.numpy(), rtol=1e-5, atol=1e-5)


@settings(max_examples=few(20), deadline=None)
@given(rounds(min_size=2), start_rows)
def test_small_steps_never_raise_the_objective(given_updates, start):
    products = inner_products(task(start), given_updates)
    samples = np.array([float(one.contribution.num_samples) for one in given_updates])
    found = FedAwa(rate=1e-3).weigh(task(start), given_updates)
    before, after = products.objective(samples / samples.sum()), products.objective(np.array(found.weights))
    assert after <= before + 1e-3


def test_who_points_against_the_others_loses_weight_and_no_example_is_asked():
    rows = [(1.0, 0.1, 0.0), (1.0, -0.1, 0.0), (1.0, 0.0, 0.1), (-5.0, 0.0, 0.0)]
    found = FedAwa(rate=0.3).weigh(task((0.1, 0.1, 0.1)), updates(rows))
    assert found.weights[3] < 0.05
    assert found.verification is None


def test_updates_that_are_all_the_same_keep_fedavg_s_weights():
    found = FedAwa().weigh(task(), updates([(1.0, 2.0, 3.0)] * 3, [1, 2, 3]))
    assert found.weights == pytest.approx((1 / 6, 2 / 6, 3 / 6))
