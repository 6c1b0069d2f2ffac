"""Members of an open federation: who joins and leaves, what is recorded, and what a resume goes on with."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.shards import ClientShard
from fccl.errors import FederationError
from fccl.federation.declared import OwnData
from fccl.federation.late import Pending
from fccl.federation.members import DEALT, Members, after_news
from fccl.federation.replay import ReplayedRun
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.selection import select_clients
from fccl.messages import Statement
from fccl.paths import LogPaths
from fccl.records.members import Departure
from fccl.records.run import RoundRecord, RunState
from fccl.storage.reading import read_records, read_value
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.training.declaring import Declarer
from fccl.transports.in_process import InProcessTransport

statements = st.builds(
    Statement,
    client_id=st.integers(0, 6),
    move=st.sampled_from(["join", "leave"]),
    time=st.integers(1, 50).map(float),
)


def said(client, move, time=1.0):
    return Statement(client_id=client, move=move, time=time)


class Coming(InProcessTransport):
    """What clients say before each of the federation's rounds."""

    def __init__(self, news, load_shard=shard, learner=None):
        super().__init__(learner or ToyLearner(), load_shard, (Declarer(),))
        self.by_round, self.asked = news, []

    def ask(self, request, client_ids):
        self.asked.append((type(request).__name__, request.round, tuple(client_ids)))
        return super().ask(request, client_ids)

    def news(self, known):
        number = max((number for _, number, _ in self.asked), default=-1) + 1
        found = [each for start, words in self.by_round.items() if start <= number for each in words]
        return [each for each in found if each.time > known.get(each.client_id, -1.0) or each.move == "revoked"]


def opened(**changes):
    return federation(3, rounds=3, open=True, **changes)


def run(transport, fed=None, state=START):
    return list((fed or opened()).run(state, transport))


@given(st.sets(st.integers(0, 6)), st.lists(statements, max_size=20))
def test_of_a_client_s_statements_the_latest_counts_in_whatever_order_they_come(members, news):
    before, forward = Members(tuple(sorted(members))), Members(tuple(sorted(members)))
    newest = {}
    for each in news:
        if each.client_id not in newest or each.time > newest[each.client_id].time:
            newest[each.client_id] = each
    for each in news:
        forward, _ = after_news(forward, [each], None, lambda line: None)
    assert forward.heard == {client: each.time for client, each in newest.items()}
    came = {client for client, each in newest.items() if each.move == "join"}
    assert set(forward.clients) == (members - set(newest)) | came
    again, moves = after_news(forward, news, None, lambda line: None)
    assert (again, moves.joined, moves.left) == (forward, (), ()), "what was taken says nothing again"
    assert before.heard == {}


@given(st.sets(st.integers(0, 6)), st.lists(statements, max_size=7, unique_by=lambda each: each.client_id))
def test_members_after_a_round_are_those_before_with_who_joined_and_without_who_left(members, news):
    after, moves = after_news(Members(tuple(sorted(members))), news, None, lambda line: None)
    left = {each.client_id for each in moves.left}
    assert set(after.clients) == (members | set(moves.joined)) - left
    assert not set(moves.joined) & members
    assert left <= members


def test_who_joins_is_asked_from_the_next_round_on_and_who_leaves_no_more():
    own = dataclasses.replace(opened(), own=OwnData())
    transport = Coming({1: [said(7, "join")], 2: [said(0, "leave")], 4: [said(0, "join", 2.0)]}, own_shard)
    results = run(transport, own)
    assert [result.record.selected for result in results] == [
        (0, 1, 2),
        (0, 1, 2, 7),
        (1, 2, 7),
        (1, 2, 7),
        (0, 1, 2, 7),
        (0, 1, 2, 7),
    ]
    assert [result.record.joined for result in results] == [(), (7,), (), (), (0,), ()]
    assert [result.record.left for result in results] == [(), (), (Departure(client_id=0),), (), (), ()]
    declared = [clients for kind, _, clients in transport.asked if kind == "DeclareTask"]
    assert declared == [(0, 1, 2), (7,)], "each declares once in a run, who comes back too"


def own_shard(client_id):
    """As many instructions as pairs: the toy learner reports one number for both."""
    sft = shard(client_id).sft
    return ClientShard(client_id, sft, shard(0).va * len(sft))


def test_a_revoked_client_is_out_and_stays_out():
    told = []
    fed = dataclasses.replace(opened(), tell=told.append)
    results = run(Coming({1: [said(1, "revoked", 0.0)]}), fed)
    assert [result.record.selected for result in results] == [(0, 1, 2)] + [(0, 2)] * 5
    assert results[1].record.left == (Departure(client_id=1, revoked=True),)
    assert told == ["client 1 is no member any more: its key is revoked"]


def test_where_data_is_dealt_only_clients_of_the_start_can_come_back():
    told = []
    fed = dataclasses.replace(opened(), tell=told.append)
    results = run(Coming({1: [said(7, "join"), said(2, "leave")], 2: [said(2, "join", 2.0)]}), fed)
    assert [result.record.selected for result in results] == [(0, 1, 2), (0, 1)] + [(0, 1, 2)] * 4
    assert f"client 7 cannot join: {DEALT}" in told


def test_when_all_have_left_the_round_ends_with_one_error():
    leaving = [said(client, "leave") for client in range(3)]
    with pytest.raises(FederationError, match="round 2 has 0 good updates"):
        run(Coming({1: leaving}))


def test_where_members_are_fixed_nobody_is_heard_and_the_records_stay_as_they_were():
    class Loud(InProcessTransport):
        def news(self, known):
            raise AssertionError("asked")

    results = run(Loud(ToyLearner(), shard), federation(3))
    assert all(result.state.members is None for result in results)
    assert not any(word in result.record.model_dump_json() for result in results for word in ("joined", '"left"'))


@given(st.integers(1, 8), st.integers(0, 30))
def test_without_moves_an_open_federation_draws_whom_a_fixed_one_draws(per_round, number):
    plan = federation(8, rounds=30, per_round=per_round, open=True).plan
    assert select_clients(plan, number, (), tuple(range(8))) == select_clients(plan, number)


def test_a_round_takes_all_members_or_as_many_as_clients_per_round_says():
    everybody = tuple(range(12))
    assert select_clients(federation(8, open=True).plan, 0, (3,), everybody) == tuple(sorted({*everybody} - {3}))
    assert len(select_clients(federation(8, per_round=5, open=True).plan, 0, (), everybody)) == 5


def test_a_late_answer_of_a_client_that_has_left_is_not_asked_for():
    update = ToyLearner()
    pending = Pending(START.adapter, (1, 2))
    assert pending.without((), (0, 2)) == (2,)
    assert pending.without((), None) == (1, 2)
    assert update.calls == []


NEWS = {1: [said(7, "join")], 2: [said(0, "leave")], 4: [said(0, "join", 2.0), said(1, "revoked", 0.0)]}


def test_a_run_that_goes_on_has_the_members_that_it_had(tmp_path):
    fed = dataclasses.replace(opened(), own=OwnData())
    whole = list(Run(fed, RunFolder.at(tmp_path / "whole"), lambda: START.adapter).rounds(Coming(NEWS, own_shard)))
    for stop in range(1, 6):
        folder = RunFolder.at(tmp_path / str(stop))
        for result in (rounds := Run(fed, folder, lambda: START.adapter).rounds(Coming(NEWS, own_shard))):
            if result.record.round + 1 == stop:
                rounds.close()
        again = Coming(NEWS, own_shard)
        again.asked.append(("before", stop - 1, ()))
        rest = list(Run(fed, folder, lambda: START.adapter).rounds(again, resume=True))
        assert [result.record.selected for result in rest] == [result.record.selected for result in whole[stop:]]
        assert rest[-1].state.adapter.sha256 == whole[-1].state.adapter.sha256
        records = list(read_records(folder.paths.progress, RoundRecord, lambda row: row.get("event") == "round"))
        assert [(each.joined, each.left) for each in records] == [
            (each.record.joined, each.record.left) for each in whole
        ]
    state = read_value(RunFolder.at(tmp_path / "whole").paths.state, RunState)
    assert state.members.clients == (0, 2, 7)


def test_a_run_with_moves_is_replayed_with_the_members_of_each_round(tmp_path):
    fed = dataclasses.replace(opened(per_round=2), own=OwnData())
    conducted = Run(fed, RunFolder.at(tmp_path), lambda: START.adapter)
    results = list(conducted.rounds(Coming(NEWS, own_shard)))
    named = dataclasses.replace(fed, run_id=conducted.identity.run_id)
    declared = results[-1].state.declared
    again = list(ReplayedRun(LogPaths(tmp_path), named, 6, declared=declared).rounds())
    assert [one.state.adapter.sha256 for one in again] == [one.state.adapter.sha256 for one in results]
