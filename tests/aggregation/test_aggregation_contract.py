"""What every rule must do, whichever it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.aggregation import vectors
from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import RULES, aggregation
from fccl.aggregation.state import ServerState
from fccl.errors import AdapterError, FederationError
from fccl.storage.files import sha256_of
from tests.aggregation.adapters import adapter, matrices, parts, vector, weights_for
from tests.examples import few

EVERY = sorted(RULES)
BY_COORDINATE, OPTIMISERS = ["median", "trimmed_mean"], ["fedavgm", "fedadagrad", "fedyogi", "fedadam"]
MEANS = [
    name for name in EVERY if name not in ("fedadagrad", "fedyogi", "fedadam", "fedexp")
]  # whose first step is a mean of some kind
LONGER = ["fedexp"]  # steps farther than the mean that its weights make
CLIENTS = st.integers(5, 9)  # enough for Krum with one bad client
DIAMETER = 1e-5  # in units of the values: what float32 and the order of sums may change


def aggregate(name, before, updates):
    rule = aggregation(name)
    start = adapter(before)
    return rule.aggregate(start, updates, rule.initial(start))


def close(left, right, scale):
    np.testing.assert_allclose(left, right, rtol=0, atol=DIAMETER * max(1.0, float(np.abs(scale).max())))


def test_every_rule_is_named_as_it_is_chosen():
    assert all(aggregation(name).name == name for name in EVERY)


@pytest.mark.parametrize("name", EVERY)
@given(matrix=matrices(CLIENTS), seed=st.integers(0, 99))
@settings(max_examples=few(20), deadline=None)
def test_the_order_of_clients_changes_nothing_but_rounding(name, matrix, seed):
    draw = np.random.default_rng(seed)
    if name in ("krum", "multi_krum"):  # among equals they take the first, so there must be none
        matrix = matrix + draw.normal(size=matrix.shape).astype(np.float32)
    weights, order = weights_for(matrix, seed), draw.permutation(len(matrix))
    one = aggregate(name, np.zeros(matrix.shape[1]), parts(matrix, weights))
    other = aggregate(name, np.zeros(matrix.shape[1]), parts(matrix[order], weights[order]))
    close(vector(one.adapter), vector(other.adapter), matrix)
    if one.weights is not None:
        np.testing.assert_allclose(np.array(one.weights)[order], other.weights, atol=1e-6)


@pytest.mark.parametrize("name", MEANS)
@given(row=matrices(st.just(1)), count=CLIENTS, seed=st.integers(0, 99))
@settings(max_examples=few(20), deadline=None)
def test_updates_that_are_all_the_same_are_the_result(name, row, count, seed):
    same = np.repeat(row, count, axis=0)
    result = aggregate(name, np.zeros(row.shape[1]), parts(same, weights_for(same, seed)))
    np.testing.assert_allclose(vector(result.adapter), row[0].astype(np.float64), rtol=2e-7)


@pytest.mark.parametrize("name", EVERY)
@given(matrix=matrices(CLIENTS), seed=st.integers(0, 99))
@settings(max_examples=few(20), deadline=None)
def test_shifting_everything_shifts_the_result(name, matrix, seed):
    draw = np.random.default_rng(seed)
    matrix = (
        np.round(matrix * 8) / 8 + np.round(draw.normal(size=matrix.shape) * 64) / 64
    )  # so that the shift itself does not round
    shift, weights, before = draw.integers(-9, 9, matrix.shape[1]), weights_for(matrix, seed), np.zeros(matrix.shape[1])
    still = aggregate(name, before, parts(matrix, weights))
    shifted = aggregate(name, before + shift, parts(matrix + shift, weights))
    close(vector(shifted.adapter), vector(still.adapter) + shift, matrix)


@pytest.mark.parametrize("name", MEANS)
@given(matrix=matrices(CLIENTS), seed=st.integers(0, 99), factor=st.sampled_from([0.25, 2.0, 16.0, -1.0]))
@settings(max_examples=few(20), deadline=None)
def test_scaling_everything_scales_the_result(name, matrix, seed, factor):
    matrix = matrix + np.random.default_rng(seed).normal(size=matrix.shape).astype(np.float32)
    weights, before = weights_for(matrix, seed), np.zeros(matrix.shape[1])
    result = aggregate(name, before, parts(matrix * factor, weights))
    close(
        vector(result.adapter),
        vector(aggregate(name, before, parts(matrix, weights)).adapter) * factor,
        matrix * factor,
    )


@pytest.mark.parametrize("name", [name for name in EVERY if name not in BY_COORDINATE + OPTIMISERS + LONGER])
@given(matrix=matrices(CLIENTS), seed=st.integers(0, 99))
@settings(max_examples=few(20), deadline=None)
def test_the_weights_it_tells_are_those_that_counted(name, matrix, seed):
    """Their sum, filled up with the adapter before, is the result."""
    weights, before = weights_for(matrix, seed), np.ones(matrix.shape[1])
    result = aggregate(name, before, parts(matrix, weights))
    told = np.array(result.weights)
    assert told.min() >= 0
    assert told.sum() <= 1 + 1e-9
    close(vector(result.adapter), told @ matrix.astype(np.float64) + (1 - told.sum()) * before, matrix)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_tells_the_weights_of_the_mean_that_its_step_is_made_of(name):
    """Two rounds of updates with the same weighted mean, whoever sent what, end at the same adapter."""
    weights, draw = [0.5, 0.25, 0.25, 0.0, 0.0], np.random.default_rng(4)
    one, other = draw.integers(-9, 9, (2, 5, 6)).astype(np.float64)
    other[0] += (np.array(weights) @ (one - other)) / weights[0]
    first, second = (aggregate(name, np.zeros(6), parts(matrix, weights)) for matrix in (one, other))
    assert first.weights == second.weights == tuple(weights)
    assert first.adapter.sha256 == second.adapter.sha256


@pytest.mark.parametrize("name", BY_COORDINATE)
def test_of_a_rule_by_coordinates_nobody_can_say_who_counted(name):
    assert aggregate(name, np.zeros(3), parts(np.ones((5, 3)))).weights is None


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold"])
@given(matrix=matrices(), seed=st.integers(0, 99))
@settings(max_examples=few(20), deadline=None)
def test_fedavg_is_the_weighted_mean_to_the_bit(name, matrix, seed):
    weights = weights_for(matrix, seed) * np.random.default_rng(seed).integers(0, 2, len(matrix))
    weights[0] = 1.0
    updates = parts(matrix, weights)
    result = aggregate(name, np.zeros(matrix.shape[1]), updates)
    assert result.adapter.sha256 == weighted_mean(updates).sha256
    assert result.weights == updates.weights


class Unreadable:
    """An update whose file must not be read."""

    def __init__(self, form):
        self.form = form

    def load(self):
        raise AssertionError("read")


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "fedavgm", "fedadagrad", "fedyogi", "fedadam"])
def test_means_do_not_read_what_has_no_weight(name):
    updates = parts(np.random.default_rng(0).normal(size=(5, 4)), [1, 0, 2, 0, 1])
    unread = [
        update if weight > 0 else Unreadable(update.form)
        for weight, update in zip(updates.weights, updates.updates, strict=True)
    ]
    result = aggregate(name, np.zeros(4), Parts(updates.weights, unread))
    assert result.adapter.sha256 == aggregate(name, np.zeros(4), updates).adapter.sha256


@pytest.mark.parametrize("name", EVERY)
def test_the_same_bytes_whatever_the_threads_and_wherever_the_updates_are(name, tmp_path):
    draw = np.random.default_rng(1)
    start = Adapter(
        {
            "a": torch.from_numpy(draw.normal(size=(300, 70)).astype(np.float32)),
            "b": torch.from_numpy(draw.normal(size=(5,)).astype(np.float32)),
        }
    )
    updates = [
        Adapter(
            {
                key: value + 0.1 * torch.from_numpy(draw.normal(size=value.shape).astype(np.float32))
                for key, value in start.tensors.items()
            }
        )
        for _ in range(7)
    ]
    weights, rule, reader = tuple(np.arange(1, 8) / 28), aggregation(name), AdapterReader.like(start)
    stored = []
    for index, update in enumerate(updates):
        path = tmp_path / f"{index}.pt"
        update.save(path)
        stored.append(StoredAdapter(path, sha256_of(path), reader))
    results, threads = [], torch.get_num_threads()
    try:
        for count, carried in ((1, updates), (2, updates), (2, stored)):
            torch.set_num_threads(count)
            results.append(rule.aggregate(start, Parts(weights, carried), rule.initial(start)))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len({(result.adapter.sha256, result.state.sha256, result.weights) for result in results}) == 1


@pytest.mark.parametrize("name", EVERY)
def test_an_update_of_another_form_is_refused(name):
    updates = Parts((0.2,) * 5, [adapter(np.ones(4))] * 4 + [adapter(np.ones(5))])
    with pytest.raises(AdapterError, match="b has shape"):
        aggregate(name, np.zeros(4), updates)


@pytest.mark.parametrize("name", EVERY)
def test_narrow_blocks_change_nothing_but_rounding(name, monkeypatch):
    draw = np.random.default_rng(3)
    matrix, weights = draw.normal(size=(7, 50)), draw.uniform(1, 2, 7)
    whole = aggregate(name, np.zeros(50), parts(matrix, weights))
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 7 * 4 * 9)
    monkeypatch.setattr(vectors, "TILE", 4)
    narrow = aggregate(name, np.zeros(50), parts(matrix, weights))
    close(vector(narrow.adapter), vector(whole.adapter), matrix)
    if whole.weights is None:  # coordinate by coordinate, so to the bit
        assert narrow.adapter.sha256 == whole.adapter.sha256


@pytest.mark.parametrize("name", ["trimmed_mean", "krum", "multi_krum"])
def test_too_few_updates_are_an_error_that_names_the_setting(name):
    rule = aggregation(name, max_bad_clients=3)
    with pytest.raises(
        FederationError, match=r"MAX_BAD_CLIENTS=3 needs at least [79] updates a round, and there are 6"
    ) as caught:
        rule.aggregate(adapter(np.zeros(3)), parts(np.ones((6, 3))), ServerState())
    assert "MAX_BAD_CLIENTS" in caught.value.hint


@pytest.mark.parametrize("updates", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("lora", ["factors", "svd"])
@pytest.mark.parametrize("name", RULES)
def test_it_says_beforehand_whether_so_many_updates_will_do(name, lora, updates):
    settings = {"max_bad_clients": 1, "krum_keep": 4}
    if lora == "svd" and name not in ("fedavg", "fedprox", "krum", "multi_krum", "geometric_median"):
        return
    rule, before = aggregation(name, lora, **settings), pair(0)
    found = [
        raised(lambda: rule.require(updates)),
        raised(
            lambda: rule.aggregate(
                before, Parts([1 / updates] * updates, [pair(n) for n in range(updates)]), rule.initial(before)
            )
        ),
    ]
    assert found[0] == found[1]
    assert (found[0] is None) == (updates >= {"trimmed_mean": 3, "krum": 5, "multi_krum": 5}.get(name, 1))


def pair(seed):
    draw = np.random.default_rng(seed)
    return Adapter(
        {
            "m.lora_A.weight": torch.tensor(draw.normal(size=(1, 3)).astype(np.float32)),
            "m.lora_B.weight": torch.tensor(draw.normal(size=(2, 1)).astype(np.float32)),
        }
    )


def raised(call):
    try:
        call()
    except FederationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("weights", [(), (0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0), (1.0,)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        Parts(weights, [adapter(np.ones(3))] * 2)


def test_settings_that_a_rule_does_not_have_pass_it_by_and_none_leaves_its_default():
    assert aggregation("median", server_lr=3.0).name == "median"
    assert aggregation("fedavgm", server_lr=None) == aggregation("fedavgm")
    assert aggregation("fedavgm", server_lr=0.5) != aggregation("fedavgm")
