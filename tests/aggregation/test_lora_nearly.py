"""Against dense products in numpy, and against the two means that it lies between."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fccl.adapters.adapter import Adapter
from fccl.aggregation import lora_products
from fccl.aggregation.lora_mean import product_error
from fccl.aggregation.lora_nearly import LoraNearly, combined
from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.aggregation.state import ServerState
from fccl.errors import SettingsError
from fccl.testing.lora_toy import factors
from tests.examples import few

CASES = st.tuples(st.integers(0, 999), st.integers(1, 6), st.integers(1, 3))


def round_of(seed, count, rank):
    weights = tuple(np.random.default_rng(seed).dirichlet(np.ones(count)).tolist())
    return Parts(weights, [factors(1000 * seed + client, rank) for client in range(count)])


def nearly(parts):
    return LoraNearly().aggregate(parts.updates[0], parts, ServerState()).adapter


@settings(max_examples=few(40), deadline=None)
@given(CASES)
def test_its_error_lies_between_that_of_the_best_rank_and_that_of_the_mean_factors(case):
    seed, count, rank = case
    parts = round_of(seed, count, rank)
    before = parts.updates[0]
    best = aggregation("fedavg", "svd", rank).aggregate(before, parts, ServerState()).adapter
    errors = [product_error(before, parts, each) for each in (best, nearly(parts), weighted_mean(parts))]
    assert errors[0] <= errors[1] + 1e-6
    assert errors[1] <= errors[2] + 1e-6


@settings(max_examples=few(15), deadline=None)
@given(st.integers(0, 999), st.integers(2, 4))
def test_no_small_change_of_the_coefficients_comes_nearer(seed, count):
    draw = np.random.default_rng(seed)
    b, a = draw.normal(size=(count, 5, 2)), draw.normal(size=(count, 2, 6))
    weights = draw.dirichlet(np.ones(count))
    mean = np.einsum("i,ior,irc->oc", weights, b, a)

    def distance(numbers):
        q, p = numbers[:count], numbers[count:]
        return np.sum((mean - np.einsum("i,ior->or", q, b) @ np.einsum("i,irc->rc", p, a)) ** 2)

    q, p = combined(*(torch.from_numpy(each) for each in (weights, b, a)))
    found = distance(np.concatenate([q, p]))
    further = minimize(distance, np.concatenate([q, p]), method="BFGS", options={"maxiter": 3})
    assert found <= distance(np.concatenate([weights, weights])) + 1e-12
    assert found <= further.fun * 1.05 + 1e-9
    assert p.sum().item() == pytest.approx(1)


def test_clients_with_one_a_are_averaged_exactly():
    shared, parts = factors(5), round_of(1, 4, 3)
    updates = [
        Adapter({name: shared.tensors[name] if "lora_A" in name else tensor for name, tensor in one.tensors.items()})
        for one in parts.updates
    ]
    same = Parts(parts.weights, updates)
    assert product_error(shared, same, nearly(same)) < 1e-6


def test_where_no_client_has_learnt_anything_a_can_still_be_learnt():
    parts = Parts((0.5, 0.5), [factors(1, b=0.0), factors(2, b=0.0)])
    found, mean = nearly(parts), weighted_mean(parts)
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, mean.tensors[name]) if "lora_A" in name else not tensor.any()


def test_narrow_groups_of_modules_and_other_threads_change_no_bit(monkeypatch):
    parts, threads = round_of(3, 5, 3), torch.get_num_threads()
    found = {nearly(parts).sha256}
    monkeypatch.setattr(lora_products, "PASS_BYTES", 1)
    try:
        torch.set_num_threads(2)
        found.add(nearly(parts).sha256)
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_it_goes_with_the_rules_that_have_a_mean():
    assert aggregation("geometric_median", "nearly").weighing.name == "geometric_median"
    with pytest.raises(SettingsError, match="LORA_AGGREGATION=nearly does not go with AGGREGATION=fedadam"):
        aggregation("fedadam", "nearly")
