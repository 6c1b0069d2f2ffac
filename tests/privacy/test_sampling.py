"""The draw of a client's batches under DP-SGD."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.privacy.sampling import ExampleSampling
from fccl.privacy.secrets import Secret
from fccl.testing.toy import TRAIN


def of(examples, **changes):
    return ExampleSampling.of(TRAIN.model_copy(update=changes), examples)


def batches(sampling, examples, secret=b"s" * 32):
    return sampling.batches(examples, lambda step: Secret(secret).draws("run", 0, step))


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 5))
def test_there_are_as_many_steps_as_without_privacy_of_the_batch_size_on_average(examples, size, epochs):
    found = of(examples, batch_size=size, epochs=epochs)
    assert found.steps == epochs * math.ceil(examples / size)
    assert found.rate * examples == pytest.approx(min(size, examples))


def test_each_example_is_drawn_by_itself_with_the_rate():
    found = batches(of(40, batch_size=8, epochs=200), 40)
    counts = [len(batch) for batch in found]
    assert sum(counts) / len(counts) == pytest.approx(8, abs=4 * math.sqrt(40 * 0.2 * 0.8 / len(counts)))
    assert max(counts) > 10, "no fixed number"
    both = sum({3, 17} <= set(batch) for batch in found) / len(found)
    assert both == pytest.approx(0.04, abs=4 * math.sqrt(0.04 / len(found)))


def test_a_rate_of_one_takes_all_and_a_small_one_sometimes_nobody():
    assert batches(of(3, batch_size=8), 3) == [[0, 1, 2]]
    assert [] in batches(of(50, batch_size=1, epochs=2), 50)


def test_the_draw_is_the_secrets():
    sampling = of(40, batch_size=8, epochs=3)
    assert batches(sampling, 40) == batches(sampling, 40) != batches(sampling, 40, b"t" * 32)
