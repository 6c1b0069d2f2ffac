"""Clients with their own data: a claim is fixed for the run, bounded in weights, and stops nobody else."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.contribution.reported import ContributionRule
from fccl.data.overlap import marks_of
from fccl.data.shards import ClientShard
from fccl.errors import DataError, FederationError, UpdateRejected
from fccl.federation.bounds import TIMES_MEDIAN, capped
from fccl.federation.declared import OwnData, sentence
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.messages import Declaration, DeclareTask, read_terms
from fccl.records.run import DeclaredSamples, RoundRecord, RunState
from fccl.storage.reading import read_value
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.training.declaring import Declarer
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import RunIdentity

NUMBERS = st.integers(0, 10**15)
DECLARED = st.dictionaries(st.integers(0, 50), NUMBERS, min_size=1, max_size=20)


@given(DECLARED, st.integers(0, 10**6))
def test_a_number_counts_as_it_is_or_for_the_limit(declared, most):
    counts = capped(declared, most)
    assert set(counts) == set(declared)
    assert all(counts[client] <= declared[client] for client in declared)
    limit = max(counts.values())
    assert all(counts[client] == min(declared[client], limit) for client in declared)
    if most:
        assert limit <= most


@given(DECLARED, st.integers(0, 10**6), st.permutations(range(20)))
def test_the_limit_depends_on_nobody_s_place(declared, most, order):
    clients = sorted(declared, key=lambda client: order[client % 20])
    assert capped({client: declared[client] for client in clients}, most) == capped(declared, most)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.data())
def test_liars_that_are_no_more_than_half_count_for_ten_times_an_honest_client_at_most(honest, data):
    lies = data.draw(st.lists(NUMBERS, max_size=len(honest)))
    counts = capped(dict(enumerate([*honest, *lies])))
    assert max(counts.values()) <= TIMES_MEDIAN * max(honest)
    if len(set(honest)) == 1 and all(lie == 10**15 for lie in lies):
        assert [counts[client] for client in range(len(honest))] == honest, "an honest client loses nothing"


PAIR = shard(0).va


def own_shard(client_id):
    """As many instructions as pairs: the toy learner reports one number for both."""
    sft = shard(client_id).sft
    return ClientShard(client_id, sft, PAIR * len(sft))


class Counting(Declarer):
    """Notes who was asked; `says` is what clients declare in the place of the truth."""

    def __init__(self, says=None):
        object.__setattr__(self, "says", says or {})
        object.__setattr__(self, "asked_clients", [])

    def answer(self, request, shard, on_status):
        self.asked_clients.append(shard.client_id)
        truth = super().answer(request, shard, on_status)
        return truth.model_copy(update=self.says.get(shard.client_id, {}))


class Reporting(ToyLearner):
    """Trains as the toy does, and reports these numbers of samples."""

    def __init__(self, reports):
        super().__init__()
        self.reports = reports

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        said = self.reports.get(shard.client_id, update.contribution.num_samples)
        return replace(update, contribution=update.contribution.model_copy(update={"num_samples": said}))


def ran(service=None, learner=None, load=own_shard, rule=None, **data):
    """The results of a federation of four clients with their own data, and the lines that were told."""
    told = []
    fed = replace(federation(rule=rule), own=OwnData(**data), tell=told.append)
    services = [] if service is None else [service]
    return list(fed.run(START, InProcessTransport(learner or ToyLearner(), load, services))), told


BY_SIZE = ContributionRule(mode="fedavg")


def test_declared_numbers_give_the_bytes_of_known_ones():
    results, told = ran(Declarer(), rule=BY_SIZE)
    known = replace(
        federation(rule=BY_SIZE), known_samples={phase: {n: n + 1 for n in range(4)} for phase in ("sft", "va")}
    )
    expected = list(known.run(START, InProcessTransport(ToyLearner(), own_shard)))
    assert results[-1].state.adapter.sha256 == expected[-1].state.adapter.sha256
    assert [said.counted for said in results[0].record.declared] == [1, 2, 3, 4]
    assert len(told) == 4, "one line for each client, once in a run"


def test_a_huge_claim_counts_for_the_limit_in_weights_and_stands_in_the_record():
    huge = 10**12
    service = Counting({3: {"sft": huge, "va": huge}})
    results, told = ran(service, Reporting({3: huge}), rule=BY_SIZE)
    for result in results:
        assert [said.counted for said in result.record.declared] == [1, 2, 3, 20]
        assert result.record.declared[3].samples == huge
        assert result.record.contributions[3].num_samples == huge
        assert result.record.weights == pytest.approx([1 / 26, 2 / 26, 3 / 26, 20 / 26])
    assert any(
        "client 3 declares 1,000,000,000,000" in line and "count as 20 (MAX_CLIENT_SAMPLES)" in line for line in told
    )


KNOWN = {phase: {0: 1, 1: 2} for phase in ("sft", "va")}


def test_beside_clients_with_shards_only_the_others_declare_and_the_bytes_are_the_same():
    service = Counting()
    results, told = ran_mixed(service, KNOWN, rule=BY_SIZE)
    expected, _ = ran(Declarer(), rule=BY_SIZE)
    assert service.asked_clients == [2, 3]
    assert len(told) == 2
    assert results[-1].state.adapter.sha256 == expected[-1].state.adapter.sha256
    assert {tuple(said.client_id for said in result.record.declared) for result in results} == {(2, 3)}


def ran_mixed(service, known, learner=None, **changes):
    """As `ran`, with shards of which the server knows the sizes."""
    told = []
    fed = replace(federation(**changes), own=OwnData(known=known), known_samples=known, tell=told.append)
    return list(fed.run(START, InProcessTransport(learner or ToyLearner(), own_shard, [service]))), told


def test_known_numbers_bound_a_claim_and_are_not_bounded_themselves():
    """Ten times the lower median of 1, 200, 3 and 10^9."""
    known = {phase: {0: 1, 1: 200} for phase in ("sft", "va")}
    learner = Reporting({1: 200, 3: 10**9})
    results, _ = ran_mixed(Counting({3: {"sft": 10**9, "va": 10**9}}), known, learner, rule=BY_SIZE)
    for result in results:
        assert [said.counted for said in result.record.declared] == [3, 30]
        assert result.record.weights == pytest.approx([1 / 234, 200 / 234, 3 / 234, 30 / 234])


@pytest.mark.parametrize(("client", "whence"), [(1, "its shard has 2"), (3, "it declared 4")])
def test_each_client_is_held_to_what_is_known_of_it(client, whence):
    results, _ = ran_mixed(Counting(), KNOWN, Reporting({client: 60}), rule=BY_SIZE)
    (left_out,) = results[0].record.excluded
    assert (left_out.client_id, left_out.reason) == (client, f"reports 60 samples, but {whence}")


def test_the_limit_may_be_a_number():
    results, _ = ran(Declarer(), rule=BY_SIZE, most=2)
    assert results[0].record.weights == pytest.approx([1 / 7, 2 / 7, 2 / 7, 2 / 7])


def test_a_claim_is_fixed_for_the_run_and_the_others_go_on():
    results, _ = ran(Declarer(), Reporting({1: 5}))
    for result in results:
        assert result.record.clients == (0, 2, 3)
        assert [out.reason for out in result.record.excluded] == ["reports 5 samples, but it declared 2"]


def test_a_client_that_does_not_declare_is_left_out_with_one_line_and_asked_again():
    class Shy(Declarer):
        def answer(self, request, shard, on_status):
            if shard.client_id == 2 and request.round < 2:
                raise DataError("I will not say")
            return super().answer(request, shard, on_status)

    results, _ = ran(Shy())
    assert [result.record.clients for result in results] == [(0, 1, 3)] * 2 + [(0, 1, 2, 3)] * 2
    assert results[0].record.excluded[0].reason == "has not declared its examples: I will not say"
    assert results[0].record.selected == (0, 1, 2, 3)


def test_where_nobody_declares_the_round_has_no_updates():
    with pytest.raises(FederationError, match=r"round 1 has 0 good updates.*has not declared its examples"):
        ran(service=None)


def test_a_client_with_examples_of_one_kind_is_asked_in_that_phase_alone():
    def load(client_id):
        whole = own_shard(client_id)
        return replace(whole, va=()) if client_id == 1 else whole

    learner, service = ToyLearner(), Counting()
    results, _ = ran(service, learner, load)
    assert [result.record.clients for result in results] == [(0, 1, 2, 3)] * 2 + [(0, 2, 3)] * 2
    assert not any(result.record.excluded for result in results)
    assert service.asked_clients == [0, 1, 2, 3]


def test_a_client_that_declares_nothing_is_not_asked_and_said_so():
    learner = ToyLearner()
    _, told = ran(Counting({0: {"sft": 0, "va": 0}}), learner)
    assert all(client != 0 for _, client in learner.calls)
    assert "client 0 declares 0 instructions and 0 pairs; it is not asked to train" in told[0]


def test_a_run_that_goes_on_keeps_what_was_declared(tmp_path):
    service, folder = Counting(), RunFolder.at(tmp_path)
    fed = replace(federation(), own=OwnData())
    first = Run(fed, folder, lambda: START.adapter, identity=RunIdentity("run"))
    rounds = first.rounds(InProcessTransport(ToyLearner(), own_shard, [service]))
    next(rounds)
    rounds.close()
    assert [said.sft for said in read_value(folder.paths.state, RunState).declared] == [1, 2, 3, 4]
    again = Run(fed, folder, lambda: START.adapter, identity=RunIdentity("run"))
    assert len(list(again.rounds(InProcessTransport(ToyLearner(), own_shard, [service]), resume=True))) == 3
    assert service.asked_clients == [0, 1, 2, 3]


def test_records_of_runs_whose_shards_are_known_are_what_they_were():
    result = next(federation().run(START, InProcessTransport(ToyLearner(), own_shard)))
    assert "declared" not in json.loads(result.record.model_dump_json())
    assert RoundRecord.model_validate_json(result.record.model_dump_json()) == result.record


def test_overlap_with_the_server_s_splits_is_counted_by_salted_hashes():
    request = OwnData(("SAY 2  0", "something else")).task("run", 0, "sft")
    assert (
        request.marks == marks_of(["say 2 0", "something else"], "run") != marks_of(["say 2 0", "something else"], "x")
    )
    assert not any("say" in mark for mark in request.marks)
    assert DeclareTask.from_terms(request.terms(), {}) == request
    assert [Declarer().answer(request, own_shard(n), None).overlap for n in range(4)] == [0, 0, 1, 0]
    unchecked = Declarer().answer(OwnData().task("run", 0, "sft"), own_shard(2), None)
    assert unchecked.overlap is None
    said = DeclaredSamples(client_id=2, sft=3, va=3, overlap=1)
    assert sentence(said, {"sft": 3, "va": 3}).endswith(
        "1 of its instructions are in the server's splits: the evaluation is too kind"
    )


@pytest.mark.parametrize(
    "wrong", [{"sft": -1}, {"sft": 10**15 + 1}, {"sft": 1.5}, {"sft": True}, {"va": None}, {"x": 1}, {"overlap": 3}]
)
def test_a_declaration_that_is_no_number_of_examples_cannot_be_read(wrong):
    said = {"client_id": 0, "sft": 1, "va": 1} | wrong
    with pytest.raises(UpdateRejected):
        read_terms(said, Declaration, "the reply")
