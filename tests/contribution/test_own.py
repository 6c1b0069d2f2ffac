import pytest
import torch

from fccl.contribution.own import OwnWeigher, broken_promise
from fccl.contribution.protocol import Weighing
from fccl.errors import FederationError
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport


class Mute(Exception):
    """An error that cannot be said."""

    def __str__(self):
        raise ValueError


class Says:
    """Returns, or raises, always the same."""

    def __init__(self, said):
        self.said = said

    def weigh(self, task, updates):
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said


def weighed(said):
    return OwnWeigher("mine:Rule", Says(said)).weigh(None, [None, None])


def test_a_weighing_is_passed_on():
    weighing = Weighing((0.25, 0.75), (1.0, 2.0))
    assert weighed(weighing) is weighing
    left_out = Weighing((1.0,), (2.0,), unfit=(0,))
    assert weighed(left_out) is left_out


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (None, "mine:Rule: weigh returned NoneType, not Weighing"),
        ((0.5, 0.5), "mine:Rule: weigh returned tuple, not Weighing"),
        (Weighing((1.0,), (1.0,)), "mine:Rule: 1 weights and 1 scores for 2 updates"),
        (Weighing((0.5, 0.5), (1.0,)), "mine:Rule: 2 weights and 1 scores for 2 updates"),
        (Weighing((0.5, 0.4), (0.0, 0.0)), "mine:Rule: its weights are not >= 0 with sum 1"),
        (Weighing((1.5, -0.5), (0.0, 0.0)), "mine:Rule: its weights are not >= 0 with sum 1"),
        (Weighing((float("nan"), 1.0), (0.0, 0.0)), "mine:Rule: a weight or a score is not finite"),
        (Weighing((0.5, 0.5), (0.0, float("inf"))), "mine:Rule: a weight or a score is not finite"),
        (Weighing((1.0,), (1.0,), unfit=(7,)), r"mine:Rule: unfit is \(7,\), and there are 2 updates"),
        (Weighing(("a", "b"), (0.0, 0.0)), "mine:Rule: its weights, scores or unfit are not tuples of numbers"),
        (Weighing((0.5, 0.5), (1, 10**400)), "mine:Rule: its weights, scores or unfit are not tuples of numbers"),
        (Weighing((torch.ones(2), 0), (0, 0)), "mine:Rule: its weights, scores or unfit are not tuples of numbers"),
        (Weighing(None, (0.0, 0.0)), "mine:Rule: its weights, scores or unfit are not tuples of numbers"),
        (Weighing((0.5, 0.5), (0.0, 0.0), "seen"), "mine:Rule: verification is str, not Verification"),
        (Weighing((0.5, 0.5), (0.0, 0.0), None, (), (-1,)), "mine:Rule: examples are not places"),
        (ZeroDivisionError("by\nzero"), "mine:Rule raised ZeroDivisionError: by zero"),
        (Mute(), "mine:Rule raised Mute"),
        (SystemExit(0), "mine:Rule raised SystemExit: 0"),
    ],
)
def test_a_broken_promise_is_one_line(said, line):
    with pytest.raises(FederationError, match=rf"^{line}") as caught:
        weighed(said)
    assert "WeigherContract" in caught.value.hint
    assert not caught.value.resumable


def test_an_error_that_is_ours_is_passed_on():
    with pytest.raises(FederationError, match=r"^too few$"):
        weighed(FederationError("too few"))


def test_where_all_are_unfit_there_are_no_weights():
    assert broken_promise(Weighing((), (), unfit=(0, 1)), 2) == ""


def test_a_federation_weighs_by_it():
    rule = OwnWeigher("mine:Rule", Says(Weighing((0.0, 1.0), (0.0, 1.0))))
    (result, *_) = federation(clients=2, rule=rule).run(START, InProcessTransport(ToyLearner(), shard))
    assert result.record.weights == (0.0, 1.0)
