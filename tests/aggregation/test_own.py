from dataclasses import replace
from typing import ClassVar

import pytest

from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.own import OwnAggregation
from fccl.aggregation.protocol import Aggregated
from fccl.aggregation.rules import aggregation
from fccl.aggregation.state import ServerState
from fccl.errors import FederationError
from fccl.testing import lora_toy
from fccl.testing.toy import shard
from fccl.transports.in_process import InProcessTransport
from tests.aggregation.adapters import adapter, parts

START = adapter((0, 0, 0))
UPDATES = parts([(1, 2, 3), (3, 4, 5)])


class Says(FedAvg):
    """FedAvg, whose `aggregate` is what it is told."""

    said: object = None

    def aggregate(self, before, parts, state):
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said


def test_a_rule_is_passed_on_and_named_as_it_is_chosen():
    mine = OwnAggregation("mine:Rule", FedAvg())
    assert mine.name == "mine:Rule"
    assert mine.uses_weights
    result = mine.aggregate(START, UPDATES, mine.initial(START))
    assert result.adapter.sha256 == FedAvg().aggregate(START, UPDATES, ServerState()).adapter.sha256
    mine.require(1)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (None, "mine:Rule returned NoneType, not Aggregated"),
        (Aggregated(adapter((1, 2, 3, 4)), ServerState(), None), "its adapter has another form than the one before"),
        (Aggregated(START, ServerState(), (1.0,)), "1 weights for 2 updates"),
        (Aggregated(START, ServerState(), (1.5, -0.5)), "its weights are not >= 0 with a sum of at most 1"),
        (Aggregated(START, ServerState(), (0.5, float("nan"))), "its weights are not >= 0 with a sum of at most 1"),
        (Aggregated(START, ServerState(), (0.5, 0.25)), "it is a mean, and its weights sum to 0.75"),
        (Aggregated(None, ServerState(), None), "its adapter is no Adapter, or its state no ServerState"),
        (Aggregated(START, None, None), "its adapter is no Adapter, or its state no ServerState"),
        (Aggregated(START, ServerState(), ("a", "b")), "its weights are not a tuple of numbers"),
        (Aggregated(START, ServerState(), 0.5), "its weights are not a tuple of numbers"),
        (KeyError("b"), "mine:Rule raised KeyError: 'b'"),
        (SystemExit(0), "mine:Rule raised SystemExit: 0"),
    ],
)
def test_a_broken_promise_is_one_line(said, line):
    mine = OwnAggregation("mine:Rule", Says(said=said))
    with pytest.raises(FederationError, match=line) as caught:
        mine.aggregate(START, UPDATES, ServerState())
    assert "AggregationContract" in caught.value.hint
    assert not caught.value.resumable


def test_what_is_no_mean_may_leave_a_rest_to_the_adapter_before():
    class Half(Says):
        is_mean: ClassVar[bool] = False

    result = Aggregated(START, ServerState(), (0.5, 0.25))
    assert OwnAggregation("mine:Rule", Half(said=result)).aggregate(START, UPDATES, ServerState()) is result


@pytest.mark.parametrize(("rule", "measured"), [(FedAvg(), True), (aggregation("fedadam"), False)])
def test_the_error_of_averaging_factors_is_recorded_under_an_own_rule_as_under_ours(rule, measured):
    def errors(aggregation):
        fed = replace(lora_toy.lora_federation("factors"), aggregation=aggregation)
        results = fed.run(lora_toy.START, InProcessTransport(lora_toy.LoraLearner(), shard))
        return [result.record.lora_error for result in results]

    found = errors(OwnAggregation("mine:Rule", rule))
    assert found == errors(rule)
    assert [error is not None for error in found] == [measured] * len(found)


def test_an_error_that_is_ours_is_passed_on():
    mine = OwnAggregation("mine:Rule", Says(said=FederationError("too few")))
    with pytest.raises(FederationError, match=r"^too few$"):
        mine.aggregate(START, UPDATES, ServerState())
