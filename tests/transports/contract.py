"""What every transport must do, whatever carries the task.

A transport's own test file subclasses `TransportContract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch

from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.rules import aggregation
from fccl.errors import ModelError
from fccl.federation.rounds import FederationState, select_clients
from fccl.messages import ClientFailure, ClientUpdate, FitTask
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, adapter, federation, shard
from fccl.transports.protocol import Listener, RunIdentity, Transport

CLIENTS = 4
ERRORS = [
    (IndexError("index out of range in self"), "IndexError: index out of range in self"),
    (KeyError("lm_head"), "KeyError: 'lm_head'"),
    (TypeError("forward() got an unexpected keyword\nand more"), "TypeError: forward() got an unexpected keyword"),
    (AttributeError(), "AttributeError"),
    (RuntimeError("CUDA out of memory\n  of 80 GiB"), "RuntimeError: CUDA out of memory"),
    (MemoryError(), "MemoryError"),
    (RecursionError("too deep"), "RecursionError: too deep"),
    (AssertionError("\n\n"), "AssertionError"),
    (NotImplementedError("\x1b[31mred\x1b[0m"), r"NotImplementedError: \x1b[31mred\x1b[0m"),
    (ModelError("gone: its tokenizer has ids up to 9"), "gone: its tokenizer has ids up to 9"),
]
MakeTransport = Callable[..., AbstractContextManager[Transport]]


class LearnerWithReference(ToyLearner):
    """In VA rounds it also moves towards the reference adapter, so a wrong or missing one is seen in the bytes."""

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        if task.reference is None:
            return update
        moved = {name: tensor + 0.25 * task.reference.tensors[name] for name, tensor in update.adapter.tensors.items()}
        return dataclasses.replace(update, adapter=type(task.adapter)(moved))


def by_hand(fed):
    """The run without a transport: every selected client's update, weighed, summed in client order."""
    state = START
    learner = LearnerWithReference()
    for number in range(fed.plan.total_rounds):
        phase = fed.plan.phase_of(number)
        reference = state.reference if phase == "va" else None
        task = FitTask("run", number, phase, state.adapter, reference, MODEL, TRAIN, fed.plan.seed)
        updates = [learner.fit(task, shard(client), lambda status: None) for client in select_clients(fed.plan, number)]
        weights = fed.rule.weights([update.contribution for update in updates])
        mean = weighted_mean(zip(weights, [update.adapter for update in updates], strict=True))
        state = FederationState(number + 1, mean, mean if number == fed.plan.fed_rounds - 1 else state.reference)
    return state.adapter


def scaffold_by_hand(fed):
    """SCAFFOLD without a transport: every c_i in a dict of float32 numbers, each phase begun without any."""
    state, learner, own, shares = START, LearnerWithReference(), {}, {}
    for number in range(fed.plan.total_rounds):
        if number == fed.plan.fed_rounds:
            own, shares = {}, {}
        everybody = sum(
            (shares[client] * own[client].double() for client in sorted(own)), torch.zeros(3, dtype=torch.float64)
        ).float()
        told = {client: everybody - own.get(client, torch.zeros(3)) for client in range(CLIENTS)}
        reference = state.reference if number >= fed.plan.fed_rounds else None
        task = FitTask(
            "run",
            number,
            fed.plan.phase_of(number),
            state.adapter,
            reference,
            MODEL,
            TRAIN,
            7,
            lambda client, told=told: adapter(*told[client]),
        )
        chosen = select_clients(fed.plan, number)
        updates = [learner.fit(task, shard(client), lambda status: None) for client in chosen]
        weights = fed.rule.weights([update.contribution for update in updates])
        for client, update, weight in zip(chosen, updates, weights, strict=True):
            own[client], shares[client] = update.control.tensors["w"], weight * len(chosen) / CLIENTS
        mean = weighted_mean(zip(weights, [update.adapter for update in updates], strict=True))
        state = FederationState(number + 1, mean, mean if number == fed.plan.fed_rounds - 1 else state.reference)
    return state.adapter


def keeping(fed):
    """The federation with control variates kept in memory: a transport may give them in files that last for a round."""
    return dataclasses.replace(fed, keep_control=lambda update: update.control.load())


def task(number=0, start=(1.0, 2.0, 3.0), phase="sft", reference=None):
    return FitTask("run", number, phase, adapter(*start), reference, MODEL, TRAIN, 7)


def answers(transport, asked, number=0, **changes):
    found = list(transport.ask(task(number, **changes), asked))
    assert sorted(answer.client_id for answer in found) == sorted(asked), (
        "exactly one answer for every client that was asked"
    )
    return {answer.client_id: answer for answer in found}


class TransportContract:
    """Subclasses give a fixture `make`.

    `make(broken=(...), errors={...})` is a context manager of a transport to `CLIENTS` clients of the toy learner.
    """

    @pytest.fixture
    def make(self) -> MakeTransport:
        raise NotImplementedError

    @pytest.mark.parametrize("per_round", [CLIENTS, 2])
    def test_a_whole_run_has_the_same_bytes_as_by_hand(self, make, per_round):
        fed = federation(CLIENTS, rounds=3, per_round=per_round)
        with make() as transport:
            results = list(fed.run(START, transport))
        assert results[-1].state.adapter.to_bytes() == by_hand(fed).to_bytes()
        assert [result.record.excluded for result in results] == [()] * 6

    @pytest.mark.parametrize("per_round", [CLIENTS, 2])
    def test_control_variates_have_the_same_bytes_as_by_hand(self, make, per_round):
        fed = federation(CLIENTS, rounds=3, per_round=per_round, aggregation=aggregation("scaffold"))
        with make() as transport:
            results = list(keeping(fed).run(START, transport))
        assert results[-1].state.adapter.to_bytes() == scaffold_by_hand(fed).to_bytes()
        assert [result.record.excluded for result in results] == [()] * 6
        assert [sorted(result.state.controls) != [] for result in results] == [True, True, False, True, True, True]

    def test_each_asked_client_answers_once_with_its_own_update(self, make):
        learner = LearnerWithReference()
        with make() as transport:
            for number, asked in enumerate([(0, 1, 2, 3), (3,), (0, 2)]):
                for client, update in answers(transport, asked, number).items():
                    expected = learner.fit(task(number), shard(client), lambda status: None)
                    assert isinstance(update, ClientUpdate)
                    assert (update.run_id, update.round, update.phase) == ("run", number, "sft")
                    assert update.adapter.load().sha256 == expected.adapter.sha256
                    assert update.adapter.form == expected.adapter.form
                    assert (update.contribution, update.report) == (expected.contribution, expected.report)

    def test_the_reference_travels(self, make):
        learner, reference = LearnerWithReference(), adapter(5.0, 6.0, 7.0)
        with make() as transport:
            for number in (3, 4):
                changes = {"phase": "va", "reference": reference}
                expected = learner.fit(task(number, **changes), shard(1), lambda status: None)
                assert answers(transport, (1,), number, **changes)[1].adapter.load().sha256 == expected.adapter.sha256

    def test_a_client_that_fails_says_why_and_the_others_go_on(self, make):
        with make(broken=(2,)) as transport:
            for number in (0, 1):
                found = answers(transport, (0, 1, 2, 3), number)
                assert found.pop(2) == ClientFailure(2, "the loss is not finite")
                assert all(isinstance(answer, ClientUpdate) for answer in found.values())

    @pytest.mark.parametrize("errors", [ERRORS[:4], ERRORS[4:8], ERRORS[8:]])
    def test_whatever_training_raises_is_the_client_s_answer_with_its_reason(self, make, errors):
        with make(errors={number: error for number, (error, _) in enumerate(errors)}) as transport:
            for number in (0, 1):
                found = answers(transport, tuple(range(CLIENTS)), number)
                assert [found[client].reason for client in range(len(errors))] == [reason for _, reason in errors]
                assert all(isinstance(found[client], ClientUpdate) for client in range(len(errors), CLIENTS))

    def test_all_may_fail(self, make):
        with make(broken=(0, 1, 2, 3)) as transport:
            assert all(isinstance(answer, ClientFailure) for answer in answers(transport, (0, 1, 2, 3)).values())

    def test_heartbeats_are_heard(self, make):
        heard = []
        with make() as transport:
            transport.begin(RunIdentity("run"), Listener(heartbeat=heard.append))
            answers(transport, (0, 1, 2, 3))
        assert {status.client_id for status in heard if status.round == 0 and status.run_id == "run"} <= {0, 1, 2, 3}
        assert heard
