"""A round's seconds by what they were spent on: each part is measured, the rest is what remains."""

from itertools import count

import pytest

from fccl.federation.stopwatch import Stopwatch
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport


def clocked():
    """A stopwatch whose clock is a second later each time that it is asked."""
    ticks = count()
    return Stopwatch(lambda: float(next(ticks)))


def test_validation_and_answers_are_added_up_and_begin_anew_with_each_round():
    watch, record = clocked(), next(iter(toy_rounds())).record.model_copy(update={"seconds": 10.0})
    assert list(watch.waited(iter("ab"))) == ["a", "b"]
    assert watch.validation(lambda one, two=0: one + two)(1, two=2) == 3
    assert list(watch.waited(iter(""))) == []
    spent = watch.taken(record)
    assert (spent.training, spent.validation, spent.verification, spent.rest) == (2.0, 1.0, 0.0, 7.0)
    assert watch.taken(record).rest == 10.0


def test_what_raises_was_spent_too():
    watch = clocked()
    with pytest.raises(ValueError, match="invalid literal"):
        watch.validation(int)("x")
    assert watch.taken(next(iter(toy_rounds())).record.model_copy(update={"seconds": 3.0})).validation == 1.0


def test_a_transport_under_a_stopwatch_gives_the_same_rounds():
    plain, timed = list(toy_rounds()), list(toy_rounds(clocked().transport))
    assert [each.record.adapter_sha256 for each in plain] == [each.record.adapter_sha256 for each in timed]


def toy_rounds(wrapped=lambda transport: transport):
    return federation(clients=2, rounds=1).run(START, wrapped(InProcessTransport(ToyLearner(), shard)))
