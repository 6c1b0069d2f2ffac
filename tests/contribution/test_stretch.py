import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import load_adapter
from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.protocol import Parts
from fccl.aggregation.state import ServerState
from fccl.contribution.protocol import Weighing
from fccl.contribution.stretch import Stretched, as_weighed, sent, weights_and_stretch
from fccl.errors import BadAggregate
from fccl.testing.quadratic import flat, task, updates
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.transports.in_process import InProcessTransport
from tests.contribution.strategies import rounds, row
from tests.examples import few


@settings(max_examples=few(100), deadline=None)
@given(rounds(), row, st.lists(st.floats(-2, 2), min_size=7, max_size=7))
def test_any_coefficients_are_what_fedavg_makes_of_their_weights_and_stretch(given_updates, start, numbers):
    coefficients, asked = numbers[: len(given_updates)], task(start)
    weights, stretch = weights_and_stretch(coefficients)
    parts = Parts(weights, as_weighed(asked, given_updates, stretch))
    result = FedAvg().aggregate(asked.trained, parts, ServerState())
    changes = np.array([flat(one.adapter) for one in given_updates]) - start
    assert flat(result.adapter) == pytest.approx(start + coefficients @ changes, abs=1e-4)
    assert sent(Weighing(weights, weights, stretch=stretch)) == pytest.approx(coefficients, abs=1e-12)


def test_without_a_stretch_the_updates_are_their_own():
    given_updates = updates([(1, 2, 3), (4, 5, 6)])
    assert as_weighed(task(), given_updates, ()) == [one.adapter for one in given_updates]
    assert sent(Weighing((0.25, 0.75), (0.0, 0.0))) == (0.25, 0.75)


def test_a_stretch_of_one_keeps_every_bit_and_none_of_the_change_is_the_start(tmp_path):
    update, start = adapter(0.1, 0.2, 0.3), adapter(7.0, 8.0, 9.0)
    assert Stretched(update, start, 1.0).sha256 == update.sha256
    assert Stretched(update, start, 0.0).sha256 == start.sha256
    Stretched(update, start, 0.5).save(tmp_path / "a.safetensors")
    assert load_adapter(tmp_path / "a.safetensors").sha256 == Stretched(update, start, 0.5).sha256


def test_a_stretch_beyond_float32_is_a_bad_aggregate():
    with pytest.raises(BadAggregate, match="beyond float32"):
        Stretched(adapter(1e30, 0.0, 0.0), adapter(), 1e30).load()


class Half:
    """Half of every change, of all clients alike."""

    def weigh(self, task, updates):
        count = len(updates)
        return Weighing((1 / count,) * count, (0.0,) * count, stretch=(0.5,) * count)


def test_a_round_records_its_stretch_and_is_made_again_with_it():
    results = list(federation(clients=3, rounds=2, rule=Half()).run(START, InProcessTransport(ToyLearner(), shard)))
    before = START.adapter
    for result in results:
        assert result.record.stretch == (0.5, 0.5, 0.5)
        parts = Parts(result.record.weights, as_weighed(result.inputs.task, result.updates, result.record.stretch))
        assert FedAvg().aggregate(before, parts, ServerState()).adapter.sha256 == result.record.adapter_sha256
        mean = np.mean([flat(one.adapter.load()) for one in result.updates], axis=0)
        assert flat(result.state.adapter) == pytest.approx((mean + flat(before)) / 2, abs=1e-6)
        before = result.state.adapter
    assert not math.isnan(flat(before).sum())
