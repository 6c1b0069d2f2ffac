import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.aggregation.mean import weighted_mean
from fccl.errors import AdapterError

numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3)
parts = st.lists(st.tuples(st.floats(0.01, 1), numbers), min_size=1, max_size=6)


def adapters(drawn):
    total = sum(weight for weight, _ in drawn)
    return [
        (weight / total, Adapter({"a": torch.tensor(values[:2]), "b": torch.tensor(values[2:])}))
        for weight, values in drawn
    ]


@given(parts)
def test_is_numpys_average(drawn):
    built = adapters(drawn)
    mean = weighted_mean(built)
    for name in ("a", "b"):
        expected = np.average(
            [adapter.tensors[name].numpy() for _, adapter in built], axis=0, weights=[weight for weight, _ in built]
        )
        np.testing.assert_allclose(mean.tensors[name].numpy(), expected, rtol=1e-6, atol=1e-6)


@given(parts)
def test_stays_within_what_was_averaged(drawn):
    built = adapters(drawn)
    stacked = torch.stack([adapter.tensors["a"] for _, adapter in built])
    mean = weighted_mean(built).tensors["a"]
    tolerance = 1e-6 * stacked.abs().amax(0)
    assert bool((mean >= stacked.amin(0) - tolerance).all())
    assert bool((mean <= stacked.amax(0) + tolerance).all())


@given(numbers, st.integers(1, 5))
def test_the_mean_of_equals_is_the_same_to_the_bit(values, count):
    one = Adapter({"a": torch.tensor(values)})
    assert weighted_mean([(1 / count, one)] * count).sha256 == Adapter({"a": torch.tensor(values) + 0.0}).sha256


def test_reads_its_parts_one_at_a_time():
    alive, most = weakref.WeakSet(), 0

    def part():
        nonlocal most
        made = Adapter({"a": torch.ones(3)})
        alive.add(made)
        most = max(most, len(alive))
        return 0.2, made

    assert torch.equal(weighted_mean(part() for _ in range(5)).tensors["a"], torch.ones(3))
    assert most <= 2  # the one that is read, and the one before until it is replaced


@pytest.mark.parametrize("weights", [(), (0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)])
def test_bad_weights_are_an_error_never_zero_parameters(weights):
    with pytest.raises(ValueError, match="sum 1"):
        weighted_mean([(weight, Adapter({"a": torch.ones(1)})) for weight in weights])


def test_adapters_of_another_form_are_refused():
    with pytest.raises(AdapterError):
        weighted_mean([(0.5, Adapter({"a": torch.ones(1)})), (0.5, Adapter({"a": torch.ones(2)}))])
