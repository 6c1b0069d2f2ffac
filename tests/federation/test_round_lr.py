"""The learning rate over the rounds of a phase, beside the schedule within each round."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.aggregation.rules import aggregation
from fccl.federation.server_learning import ServerLearner
from fccl.messages import FitTask
from fccl.specs import RoundPlan
from fccl.testing.toy import START, TRAIN, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport


def a_plan(sft=4, va=4, **changes):
    return RoundPlan(fed_rounds=1, sft_rounds=sft, va_rounds=va, num_clients=2, clients_per_round=2, seed=7, **changes)


@given(st.sampled_from(["linear", "cosine"]), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_it_falls_from_the_peak_towards_the_floor_in_each_phase_and_never_to_nothing(schedule, sft, va, floor):
    plan = a_plan(sft, va, lr_schedule=schedule, lr_floor=floor)
    for first, count in ((0, sft), (sft, va)):
        shares = [plan.learning_rate_share(first + done) for done in range(count)]
        assert shares[0] == 1
        assert shares == sorted(shares, reverse=True)
        assert min(shares) > 0
        assert min(shares) >= floor - 1e-12
        at = {"linear": lambda x: 1 - x, "cosine": lambda x: math.cos(math.pi * x / 2) ** 2}[schedule]
        assert shares == pytest.approx([floor + (1 - floor) * at(done / count) for done in range(count)])


@given(st.integers(0, 7), st.floats(0, 1))
def test_constant_is_all_of_it_whatever_the_floor(number, floor):
    assert a_plan(lr_floor=floor).learning_rate_share(number) == 1


class Spy(ToyLearner):
    def __init__(self):
        super().__init__()
        self.rates = {}

    def fit(self, task, shard, on_status):
        again = FitTask.from_terms(task.terms(), task.adapters() | corrections(task, shard.client_id))
        self.rates[again.round] = again.train.learning_rate
        return super().fit(task, shard, on_status)


def corrections(task, client_id):
    return {"correction": task.corrections.of(client_id)} if task.corrections else {}


@pytest.mark.parametrize("rule", ["fedavg", "fedprox", "scaffold"])
def test_the_task_tells_clients_the_round_s_own_rate(rule):
    """As it is spelt for any transport. FedProx's pull and SCAFFOLD's corrections stand beside it, unchanged."""
    fed = federation(clients=2, aggregation=aggregation(rule, "factors", 1))
    train = TRAIN.model_copy(update={"prox_mu": 0.5 if rule == "fedprox" else 0.0})
    spy, plan = Spy(), a_plan(lr_schedule="linear", lr_floor=0.2)
    fed = dataclasses.replace(fed, plan=plan, train={"sft": train, "va": train})
    results = list(fed.run(START, InProcessTransport(spy, shard)))
    expected = [0.1, 0.1 * 0.8, 0.1 * 0.6, 0.1 * 0.4]
    assert [spy.rates[number] for number in range(8)] == pytest.approx(expected * 2)
    assert {result.inputs.task.train.prox_mu for result in results} == {train.prox_mu}


def test_without_a_schedule_no_bit_of_the_rate_changes():
    fed = federation()
    for result in fed.run(START, InProcessTransport(ToyLearner(), shard)):
        assert result.inputs.task.train is fed.train[result.record.phase]


def test_the_server_s_own_training_follows_it_and_the_kept_round_says_so():
    spy, own = Spy(), TRAIN.model_copy(update={"learning_rate": 0.01})
    learner = ServerLearner(spy, shard(0), {"sft": own, "va": own})
    fed = dataclasses.replace(federation(clients=2), plan=a_plan(lr_schedule="linear"), learn=learner)
    results = list(fed.run(START, InProcessTransport(ToyLearner(), shard)))
    expected = [0.01, 0.0075, 0.005, 0.0025] * 2
    assert [spy.rates[number] for number in range(8)] == pytest.approx(expected)
    assert [result.inputs.learn.learning_rate for result in results] == pytest.approx(expected)
