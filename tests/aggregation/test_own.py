import pytest

from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.own import OwnAggregation
from fccl.aggregation.protocol import Aggregated
from fccl.aggregation.state import ServerState
from fccl.errors import FederationError
from tests.aggregation.adapters import adapter, parts

START = adapter((0, 0, 0))
UPDATES = parts([(1, 2, 3), (3, 4, 5)])


class Says(FedAvg):
    """FedAvg, whose `aggregate` is what it is told."""

    said: object = None

    def aggregate(self, before, parts, state):
        if isinstance(self.said, Exception):
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
        (KeyError("b"), "mine:Rule raised KeyError: 'b'"),
    ],
)
def test_a_broken_promise_is_one_line(said, line):
    mine = OwnAggregation("mine:Rule", Says(said=said))
    with pytest.raises(FederationError, match=line) as caught:
        mine.aggregate(START, UPDATES, ServerState())
    assert "AggregationContract" in caught.value.hint
    assert not caught.value.resumable


def test_an_error_that_is_ours_is_passed_on():
    mine = OwnAggregation("mine:Rule", Says(said=FederationError("too few")))
    with pytest.raises(FederationError, match=r"^too few$"):
        mine.aggregate(START, UPDATES, ServerState())
