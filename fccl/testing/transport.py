"""Contract of every transport: a test file subclasses `TransportContract` and says how its transport is made.

    class TestMine(TransportContract):
        @pytest.fixture
        def make(self):
            return lambda broken=(), errors=None: MyTransport(
                toy_learner(broken, errors), shard, toy_services(broken)
            )

Every client of the transport works with `toy_learner`, `toy_services` and `fccl.testing.toy.shard`, in this process or
in one of its own. The suite compares bytes: whatever carries the task, the federation's adapter is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.rules import aggregation
from fccl.errors import ModelError
from fccl.federation.rounds import Federation
from fccl.federation.selection import select_clients
from fccl.federation.state import FederationState
from fccl.messages import (
    ClientEvaluation,
    ClientFailure,
    ClientUpdate,
    EvaluateTask,
    FitTask,
    Given,
    OwnTestTask,
    Request,
    declined,
)
from fccl.records.run import ClientStatus
from fccl.specs import TrainSpec
from fccl.specs.codecs import CodecSpec
from fccl.specs.personal import PersonalSpec
from fccl.testing.coded import codec_length, coded_by_hand, coding
from fccl.testing.reference_learner import LearnerWithReference
from fccl.testing.toy import MODEL, START, TRAIN, adapter, federation, shard
from fccl.testing.toy_requests import (
    AskMaskedCounts,
    AskNumbers,
    MaskedCount,
    PublicNumber,
    ToyEvaluator,
    ToyOwnTester,
)
from fccl.transports.protocol import Listener, RunIdentity, Transport
from fccl.transports.wrapped import WrappedTransport

CLIENTS = 4
ERRORS: list[tuple[BaseException, str]] = [
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


class MakeTransport(Protocol):
    """Makes a transport to `CLIENTS` toy clients; `broken` ones fail, and `errors` are raised, by client."""

    def __call__(
        self, broken: Sequence[int] = (), errors: Mapping[int, BaseException] | None = None
    ) -> AbstractContextManager[Transport]: ...


def toy_learner(broken: Sequence[int] = (), errors: Mapping[int, BaseException] | None = None) -> LearnerWithReference:
    """The learner of every client of the contract."""
    return LearnerWithReference(frozenset(broken), errors=errors or {})


class EverybodyHeard(WrappedTransport):
    """A transport that checks another: each client that is asked is heard exactly once, whatever it answers."""

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Passed on; the answers are counted at the end."""
        found: list[Any] = list(super().ask(request, client_ids))
        heard = sorted(answer.client_id for answer in found)
        assert heard == sorted(client_ids), "each client that was asked is heard exactly once"
        yield from found


def by_hand(fed: Federation) -> Adapter:
    """The run without a transport: every selected client's update, weighed, summed in client order."""
    state, learner = START, LearnerWithReference()
    for number in range(fed.plan.total_rounds):
        phase = fed.plan.phase_of(number)
        reference = state.reference if phase == "va" else None
        task = FitTask("run", number, phase, state.adapter, reference, MODEL, TRAIN, fed.plan.seed)
        updates = [learner.fit(task, shard(client), _unheard) for client in select_clients(fed.plan, number)]
        weights = fed.rule.weigh(task, updates).weights
        mean = weighted_mean(zip(weights, [update.adapter.load() for update in updates], strict=True))
        state = FederationState(number + 1, mean, mean if number == fed.plan.first_round("va") - 1 else state.reference)
    return state.adapter


def scaffold_by_hand(fed: Federation) -> Adapter:
    """SCAFFOLD without a transport: every c_i in a dict of float32 numbers, each phase begun without any."""
    state, learner = START, LearnerWithReference()
    own: dict[int, torch.Tensor] = {}
    shares: dict[int, float] = {}
    for number in range(fed.plan.total_rounds):
        if number == fed.plan.first_round("va"):
            own, shares = {}, {}
        everybody = torch.zeros(3, dtype=torch.float64)
        for client in sorted(own):
            everybody = everybody + shares[client] * own[client].double()
        told = {client: everybody.float() - own.get(client, torch.zeros(3)) for client in range(CLIENTS)}
        reference = state.reference if number >= fed.plan.first_round("va") else None
        phase = fed.plan.phase_of(number)
        task = FitTask("run", number, phase, state.adapter, reference, MODEL, TRAIN, 7, CorrectionsByHand(told))
        chosen = select_clients(fed.plan, number)
        updates = [learner.fit(task, shard(client), _unheard) for client in chosen]
        weights = fed.rule.weigh(task, updates).weights
        for client, update, weight in zip(chosen, updates, weights, strict=True):
            assert update.control is not None
            own[client], shares[client] = update.control.load().tensors["w"], weight * len(chosen) / CLIENTS
        mean = weighted_mean(zip(weights, [update.adapter.load() for update in updates], strict=True))
        state = FederationState(number + 1, mean, mean if number == fed.plan.first_round("va") - 1 else state.reference)
    return state.adapter


@dataclasses.dataclass(frozen=True)
class CorrectionsByHand:
    """Corrections from a dict."""

    numbers: Mapping[int, torch.Tensor]

    def of(self, client_id: int) -> Adapter:
        """The correction of one client."""
        return Adapter({"w": self.numbers[client_id]})


def keeping(fed: Federation) -> Federation:
    """The federation with control variates kept in memory: a transport may give them in files that last for a round."""
    return dataclasses.replace(fed, keep_control=lambda update: update.control.load() if update.control else None)


def task(
    number: int = 0,
    start: Sequence[float] = (1.0, 2.0, 3.0),
    phase: Any = "sft",
    reference: Adapter | None = None,
) -> FitTask:
    """A toy task."""
    return FitTask("run", number, phase, adapter(*start), reference, MODEL, TRAIN, 7)


def evaluation(number: int = 0, phase: Any = "sft", reference: Adapter | None = None) -> EvaluateTask:
    """A toy request for the clients' losses."""
    return EvaluateTask("run", number, phase, adapter(1.0, 2.0, 4.0), reference, MODEL, batch_size=2)


def own_test(train: TrainSpec) -> OwnTestTask:
    """A toy request for the clients' own tests."""
    adapters = adapter(1.0, 2.0, 4.0), adapter(), None
    return OwnTestTask("run", 1, "sft", *adapters, MODEL, train, seed=7, rates=(0.1, 0.1), batch_size=2)


def asked(transport: Transport, request: Request[Given], clients: Sequence[int]) -> dict[int, Given | ClientFailure]:
    """The answers by client, each heard exactly once."""
    found: list[Any] = list(EverybodyHeard(transport).ask(request, clients))
    return {answer.client_id: answer for answer in found}


def answers(
    transport: Transport, clients: Sequence[int], number: int = 0, **changes: Any
) -> dict[int, ClientUpdate | ClientFailure]:
    """The answers to a toy task by client, each heard exactly once."""
    return asked(transport, task(number, **changes), clients)


def _unheard(status: ClientStatus) -> None:
    """Nobody listens."""


class TransportContract:
    """The duties of every transport. Subclasses give the fixture `make`."""

    @pytest.fixture
    def make(self) -> MakeTransport:
        """`make(broken=(...), errors={...})`: a context manager of a transport to `CLIENTS` toy clients."""
        raise NotImplementedError

    @pytest.mark.parametrize("per_round", [CLIENTS, 2])
    def test_a_whole_run_has_the_same_bytes_as_by_hand(self, make: MakeTransport, per_round: int) -> None:
        fed = federation(CLIENTS, rounds=3, per_round=per_round)
        with make() as transport:
            results = list(fed.run(START, EverybodyHeard(transport)))
        assert results[-1].state.adapter.to_bytes() == by_hand(fed).to_bytes()
        assert [result.record.excluded for result in results] == [()] * 6

    @pytest.mark.parametrize("per_round", [CLIENTS, 2])
    def test_control_variates_have_the_same_bytes_as_by_hand(self, make: MakeTransport, per_round: int) -> None:
        fed = federation(CLIENTS, rounds=3, per_round=per_round, aggregation=aggregation("scaffold"))
        with make() as transport:
            results = list(keeping(fed).run(START, EverybodyHeard(transport)))
        assert results[-1].state.adapter.to_bytes() == scaffold_by_hand(fed).to_bytes()
        assert [result.record.excluded for result in results] == [()] * 6
        assert all(result.state.controls for result in results)  # of SFT until VA begins

    @pytest.mark.parametrize("codec", [CodecSpec(name="int4"), CodecSpec(name="topk", share=0.3)], ids=str)
    def test_coded_adapters_have_the_same_bytes_as_by_hand(self, make: MakeTransport, codec: CodecSpec) -> None:
        fed = coding(federation(CLIENTS, rounds=2), codec)
        with make() as transport:
            results = list(fed.run(START, EverybodyHeard(transport)))
        assert results[-1].state.adapter.to_bytes() == coded_by_hand(fed).to_bytes()
        assert [result.record.excluded for result in results] == [()] * 4
        lengths = [result.record.sent.up for result in results if result.record.sent]
        assert lengths == [CLIENTS * codec_length(codec)] * 4

    def test_each_asked_client_answers_once_with_its_own_update(self, make: MakeTransport) -> None:
        learner = LearnerWithReference()
        with make() as transport:
            for number, clients in enumerate([(0, 1, 2, 3), (3,), (0, 2)]):
                for client, update in answers(transport, clients, number).items():
                    expected = learner.fit(task(number), shard(client), _unheard)
                    assert isinstance(update, ClientUpdate)
                    assert (update.run_id, update.round, update.phase) == ("run", number, "sft")
                    assert update.adapter.load().sha256 == expected.adapter.load().sha256
                    assert update.adapter.form == expected.adapter.form
                    assert (update.contribution, update.report) == (expected.contribution, expected.report)

    def test_the_reference_travels(self, make: MakeTransport) -> None:
        learner, reference = LearnerWithReference(), adapter(5.0, 6.0, 7.0)
        with make() as transport:
            for number in (3, 4):
                expected = learner.fit(task(number, phase="va", reference=reference), shard(1), _unheard)
                update = answers(transport, (1,), number, phase="va", reference=reference)[1]
                assert isinstance(update, ClientUpdate)
                assert update.adapter.load().sha256 == expected.adapter.load().sha256

    def test_a_preference_task_without_a_reference_travels(self, make: MakeTransport) -> None:
        train = TRAIN.model_copy(update={"preference_loss": "simpo"})
        asked = dataclasses.replace(task(3), phase="va", train=train)
        with make() as transport:
            for update in transport.ask(asked, range(CLIENTS)):
                expected = LearnerWithReference().fit(asked, shard(update.client_id), _unheard)
                assert isinstance(update, ClientUpdate)
                assert update.adapter.load().sha256 == expected.adapter.load().sha256

    def test_a_client_that_fails_says_why_and_the_others_go_on(self, make: MakeTransport) -> None:
        with make(broken=(2,)) as transport:
            for number in (0, 1):
                found = answers(transport, (0, 1, 2, 3), number)
                assert found.pop(2) == ClientFailure(2, "the loss is not finite")
                assert all(isinstance(answer, ClientUpdate) for answer in found.values())

    @pytest.mark.parametrize("errors", [ERRORS[:4], ERRORS[4:8], ERRORS[8:]])
    def test_whatever_training_raises_is_the_client_s_answer_with_its_reason(
        self, make: MakeTransport, errors: list[tuple[BaseException, str]]
    ) -> None:
        with make(errors={number: error for number, (error, _) in enumerate(errors)}) as transport:
            for number in (0, 1):
                found = answers(transport, tuple(range(CLIENTS)), number)
                failed = {client: ClientFailure(client, reason) for client, (_, reason) in enumerate(errors)}
                assert {client: found[client] for client in failed} == failed
                assert all(isinstance(found[client], ClientUpdate) for client in range(len(errors), CLIENTS))

    def test_a_client_that_declines_says_so_and_the_others_go_on(self, make: MakeTransport) -> None:
        with make(errors={2: declined("sft")}) as transport:
            for number in (0, 1):
                found = answers(transport, (0, 1, 2, 3), number)
                assert found.pop(2) == ClientFailure(2, "declines FedIT", declines=True)
                assert all(isinstance(answer, ClientUpdate) for answer in found.values())

    def test_a_client_that_declines_is_no_failure_of_a_run(self, make: MakeTransport) -> None:
        fed = federation(CLIENTS, rounds=2)
        with make(errors={2: declined("sft")}) as transport:
            declining = list(fed.run(START, EverybodyHeard(transport)))
        with make(broken=(2,)) as transport:
            failing = list(fed.run(START, EverybodyHeard(transport)))
        assert declining[-1].state.adapter.to_bytes() == failing[-1].state.adapter.to_bytes()
        assert [(result.record.declined, result.record.excluded) for result in declining] == [((2,), ())] * 4
        assert [result.record.declined for result in failing] == [()] * 4

    def test_where_all_answer_or_fail_in_time_nothing_is_late(self, make: MakeTransport) -> None:
        found = {}
        for late_updates in ("drop", "next"):
            with make(broken=(2,)) as transport:
                found[late_updates] = list(federation(CLIENTS, late_updates=late_updates).run(START, transport))
        assert [result.record.late for result in found["next"]] == [()] * 4
        adapters = [found[late_updates][-1].state.adapter for late_updates in ("drop", "next")]
        assert adapters[0].to_bytes() == adapters[1].to_bytes()

    def test_all_may_fail(self, make: MakeTransport) -> None:
        with make(broken=(0, 1, 2, 3)) as transport:
            assert all(isinstance(answer, ClientFailure) for answer in answers(transport, (0, 1, 2, 3)).values())

    def test_heartbeats_are_heard(self, make: MakeTransport) -> None:
        heard: list[ClientStatus] = []
        with make() as transport:
            transport.begin(RunIdentity("run"), Listener(heartbeat=heard.append))
            answers(transport, (0, 1, 2, 3))
        assert {status.client_id for status in heard if status.round == 0 and status.run_id == "run"} <= {0, 1, 2, 3}
        assert heard

    @pytest.mark.parametrize("phase", ["sft", "va"])
    def test_each_asked_client_evaluates_on_its_own_shard(self, make: MakeTransport, phase: Any) -> None:
        reference = adapter(5.0, 6.0, 7.0) if phase == "va" else None
        with make() as transport:
            for number, clients in enumerate([(0, 1, 2, 3), (1, 3)]):
                request = evaluation(number, phase, reference)
                expected = {client: ToyEvaluator().answer(request, shard(client), _unheard) for client in clients}
                assert asked(transport, request, clients) == expected

    def test_evaluations_stand_between_rounds_and_repeat(self, make: MakeTransport) -> None:
        """Before the first round, in a round that is over, and twice with another adapter."""
        with make() as transport:
            first = asked(transport, evaluation(0), (0, 1))
            updates = answers(transport, (0, 1))
            again = asked(transport, evaluation(0), (0, 1))
            other = asked(transport, dataclasses.replace(evaluation(0), adapter=adapter(9.0, 9.0, 9.0)), (0, 1))
            more = answers(transport, (0, 1), 1)
        assert first == again != other
        assert all(isinstance(answer, ClientUpdate) for answer in (*updates.values(), *more.values()))
        assert all(isinstance(answer, ClientEvaluation) for answer in (*first.values(), *other.values()))

    @pytest.mark.parametrize("personal", [None, PersonalSpec(kind="ditto", pull=0.5), PersonalSpec(kind="finetune")])
    def test_own_tests_come_back_with_the_mean_of_a_personal_adapter_and_without_the_adapter(
        self, make: MakeTransport, personal: PersonalSpec | None
    ) -> None:
        request = own_test(TRAIN.model_copy(update={"personal": personal}))
        with make() as transport:
            found = asked(transport, request, range(CLIENTS))
        assert found == {client: ToyOwnTester().answer(request, shard(client), _unheard) for client in range(CLIENTS)}

    def test_personal_adapters_change_no_byte_of_the_federation(self, make: MakeTransport) -> None:
        fed = federation(CLIENTS, rounds=2)
        train = TRAIN.model_copy(update={"personal": PersonalSpec(kind="ditto", pull=0.5)})
        with make() as transport:
            results = list(dataclasses.replace(fed, train={"sft": train, "va": train}).run(START, transport))
        assert results[-1].state.adapter.to_bytes() == by_hand(fed).to_bytes()

    def test_a_client_that_cannot_evaluate_says_why(self, make: MakeTransport) -> None:
        with make(broken=(2,)) as transport:
            found = asked(transport, evaluation(), range(CLIENTS))
            assert found.pop(2) == ClientFailure(2, "the loss is not finite")
            assert all(isinstance(answer, ClientEvaluation) for answer in found.values())

    def test_a_kind_of_two_steps_takes_the_first_answers_to_everybody(self, make: MakeTransport) -> None:
        with make() as transport:
            for number in (0, 1):
                first = asked(transport, AskNumbers("run", number, "sft"), range(CLIENTS))
                numbers = {client: said.number for client, said in first.items() if isinstance(said, PublicNumber)}
                assert sorted(numbers) == list(range(CLIENTS))
                second = AskMaskedCounts("run", number, "sft", tuple(sorted(numbers.items())))
                found = asked(transport, second, range(CLIENTS))
                counts = [said.count for said in found.values() if isinstance(said, MaskedCount)]
                assert len(counts) == CLIENTS
                assert sum(counts) == sum(len(shard(client).sft) for client in range(CLIENTS))
                assert counts != [len(shard(client).sft) for client in range(CLIENTS)]

    def test_a_kind_that_no_client_knows_is_everybody_s_failure(self, make: MakeTransport) -> None:
        with make() as transport:
            found = asked(transport, AskUnknown("run", 0, "sft"), range(CLIENTS))
        reason = "this client has no answer to requests of kind 'unknown', step 0"
        assert found == {client: ClientFailure(client, reason) for client in range(CLIENTS)}


class AskUnknown(AskNumbers):
    """A request that no client has a service for."""

    kind = "unknown"
