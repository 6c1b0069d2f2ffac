"""`WeigherContract`: the promises of a weighing rule, as tests that its author runs.

class TestTrust(WeigherContract):
    def rule(self, loss):
        return Trust(loss)
"""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.contribution.own import broken_promise
from fccl.contribution.protocol import LearnLoss, Weigher, Weighing
from fccl.messages import ClientUpdate, FitTask
from fccl.specs import Phase
from fccl.testing.quadratic import Quadratic, task, update
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.transports.in_process import InProcessTransport

HUGE = (-1.0, 10.0, 1e9, 1e30)
ROUNDING = 1e-6  # of a weight: sums in another order
# One inherited test runs for every rule of a suite.
_settings = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
_number = st.integers(-512, 512).map(lambda whole: whole / 256)
# One group of examples that says nothing of its noise, or five of them.
FIVE = ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 0.0))
_groups = st.sampled_from([((0.0, 0.0, 0.0),), FIVE])
_losses = st.builds(Quadratic, target=st.tuples(_number, _number, _number), apart=_groups)
_clients = st.tuples(st.tuples(_number, _number, _number), st.integers(1, 1000), st.floats(0.01, 20))


@st.composite
def rounds(draw: st.DrawFn, fewest: int = 1) -> list[ClientUpdate]:
    """The updates of a round, from clients whose numbers have gaps."""
    drawn = draw(st.lists(_clients, min_size=fewest, max_size=7))
    return [update(3 * index + 1, row, samples, loss) for index, (row, samples, loss) in enumerate(drawn)]


def weigh(rule: Weigher, updates: list[ClientUpdate], given: FitTask | None = None) -> Weighing:
    """The weighing, once it is known to be one."""
    weighing = rule.weigh(given or task(), updates)
    assert broken_promise(weighing, len(updates)) == ""
    return weighing


class WeigherContract:
    """A subclass says how the rule is built; pytest finds the tests in it."""

    def rule(self, loss: LearnLoss) -> Weigher:
        """The rule under test; `loss` is the loss on the server's learn split, which it may leave alone."""
        raise NotImplementedError("say which rule to test")

    @_settings
    @given(loss=_losses, updates=rounds())
    def test_weights_are_a_share_for_every_update_and_scores_are_numbers(
        self, loss: Quadratic, updates: list[ClientUpdate]
    ) -> None:
        weigh(self.rule(loss), updates)

    @_settings
    @given(loss=_losses, updates=rounds(fewest=2), order=st.randoms(use_true_random=False))
    def test_reordering_the_updates_reorders_the_weights(
        self, loss: Quadratic, updates: list[ClientUpdate], order: random.Random
    ) -> None:
        places = list(range(len(updates)))
        order.shuffle(places)
        one = weigh(self.rule(loss), updates).weights
        other = weigh(self.rule(loss), [updates[place] for place in places]).weights
        assert other == pytest.approx([one[place] for place in places], abs=ROUNDING)

    @_settings
    @given(loss=_losses, updates=rounds())
    def test_the_same_round_has_the_same_bits_and_no_update_changes(
        self, loss: Quadratic, updates: list[ClientUpdate]
    ) -> None:
        before = [one.adapter.load().sha256 for one in updates]
        one, other = (weigh(self.rule(loss), updates) for _ in range(2))
        assert (one.weights, one.scores, one.unfit) == (other.weights, other.scores, other.unfit)
        assert [one.adapter.load().sha256 for one in updates] == before

    @_settings
    @given(loss=_losses, client=_clients)
    def test_an_only_client_has_all_the_weight(
        self, loss: Quadratic, client: tuple[tuple[float, float, float], int, float]
    ) -> None:
        row, samples, said = client
        assert weigh(self.rule(loss), [update(4, row, samples, said)]).weights == pytest.approx((1.0,))

    @_settings
    @given(loss=_losses, updates=rounds(fewest=2), factor=st.sampled_from(HUGE))
    def test_weights_stay_numbers_whatever_a_client_sends_or_says(
        self, loss: Quadratic, updates: list[ClientUpdate], factor: float
    ) -> None:
        first = updates[0]
        numbers = [factor * value for value in first.adapter.load().tensors["w"].tolist()]
        hostile = update(first.client_id, numbers, samples=10**15, loss=0.0)
        weighing = weigh(self.rule(loss), [hostile, *updates[1:]])
        assert all(map(math.isfinite, weighing.weights))

    def test_where_no_loss_is_finite_there_are_weights_or_nobody_is_fit(self) -> None:
        updates = [update(0, (1, 2, 3)), update(1, (3, 2, 1))]
        weigh(self.rule(Quadratic(limit=0.0)), updates)

    @pytest.mark.parametrize("phase", ["sft", "va"])
    def test_it_weighs_in_both_phases(self, phase: Phase) -> None:
        reference = adapter(0.0, 0.0, 0.0) if phase == "va" else None
        updates = [update(index, (index, 1.0, 0.0), phase=phase) for index in range(3)]
        weigh(self.rule(Quadratic((1.0, 1.0, 0.0))), updates, task(phase=phase, reference=reference))

    def test_a_federation_runs_by_it_and_ends_the_same_each_time(self) -> None:
        rule = self.rule(Quadratic((1.0, 1.0, 1.0)))
        ends = [
            [result.record.adapter_sha256 for result in federation(clients=3, rule=rule).run(START, transport)]
            for transport in (InProcessTransport(ToyLearner(), shard) for _ in range(2))
        ]
        assert ends[0] == ends[1]
        assert len(ends[0]) == 4
