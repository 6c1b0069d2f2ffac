"""Joining and leaving over the exchange directory: a key is the right to, and nobody speaks for another."""

import json
import threading

import pytest

from fccl.errors import FederationError, SettingsError
from fccl.federation.declared import OwnData
from fccl.keys import add_keys, client_keys, create_keys, revoke_keys, server_keys
from fccl.messages import ClientFailure, ClientUpdate, Statement
from fccl.paths import KeyPaths
from fccl.records.members import Departure
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.testing.transport import task
from fccl.training.declaring import Declarer
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.members import Statements, state
from fccl.transports.protocol import Listener, RunIdentity
from tests.federation.test_members import own_shard
from tests.transports.exchange_tools import fit, until


@pytest.fixture
def keys(tmp_path):
    folder = KeyPaths(tmp_path / "keys")
    create_keys(folder, 3)
    return folder


@pytest.fixture
def opened(transport, keys):
    """A transport of an open federation of three, entered, and the task of its first round."""
    with transport(server_keys(keys), open=True, num_clients=3, timeout_s=0.01) as exchange:
        exchange.begin(RunIdentity("run"))
        yield exchange, exchange.open(task(0), (0, 1, 2))


def refused(exchange):
    return [(each.client_id, each.reason) for each in exchange.quarantine.rejections]


def test_a_statement_that_its_client_has_signed_is_heard_until_it_is_known(paths, keys, opened):
    exchange, asked = opened
    number = add_keys(keys, 1)[0]
    state(paths, client_keys(keys, number), asked, number, "join")
    [said] = exchange.news({})
    assert (said.client_id, said.move) == (number, "join") == (3, "join")
    assert exchange.news({number: said.time}) == []
    state(paths, client_keys(keys, number), asked, number, "leave")
    [later] = exchange.news({number: said.time})
    assert (later.move, later.time > said.time) == ("leave", True)
    assert refused(exchange) == []


def spoilt(paths, **changes):
    path = paths.member(1)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signature": ""}, "client 1 has not signed it"),
        ({"time": 1.0}, "the signature is not client 1's"),
        ({"move": "join"}, "the signature is not client 1's"),
        ({"run_id": "other"}, "the statement is of another run or client"),
        ({"client_id": 0}, "the statement is of another run or client"),
        ({"time": float("1e12")}, "member_1.json is not what the protocol asks for"),
    ],
)
def test_who_leaves_in_another_s_name_is_refused_and_nobody_leaves(paths, keys, opened, changes, reason):
    exchange, asked = opened
    state(paths, client_keys(keys, 1), asked, 1, "leave")
    spoilt(paths, **changes)
    assert exchange.news({}) == []
    [(client, why)] = refused(exchange)
    assert client == 1
    assert reason in why or "time" in why
    assert not paths.member(1).exists()


def test_another_client_s_key_does_not_do(paths, keys, opened):
    exchange, asked = opened
    state(paths, client_keys(keys, 2), asked, 1, "leave")
    assert exchange.news({}) == []
    assert refused(exchange) == [(1, "the signature is not client 1's")]


def test_as_many_clients_as_one_likes_cannot_join_without_keys(paths, keys, opened, tmp_path):
    """Somebody who can write to the directory makes keys of its own."""
    exchange, asked = opened
    own = KeyPaths(tmp_path / "own")
    create_keys(own, 20)
    for number in range(3, 20):
        state(paths, client_keys(own, number), asked, number, "join")
    assert exchange.news({}) == []
    assert refused(exchange) == [(number, f"the signature is not client {number}'s") for number in range(3, 20)]


def test_a_number_of_a_revoked_key_is_never_given_again_and_its_statements_are_refused(paths, keys, opened):
    exchange, asked = opened
    own = client_keys(keys, 2)
    revoke_keys(keys, {2})
    state(paths, own, asked, 2, "join")
    assert exchange.news({}) == [Statement(client_id=2, move="revoked", time=0.0)]
    assert refused(exchange) == [(2, "client 2's key is revoked")]
    assert add_keys(keys, 2) == (3, 4)


def test_an_old_statement_that_is_put_back_says_nothing(paths, keys, opened):
    exchange, asked = opened
    state(paths, client_keys(keys, 1), asked, 1, "leave")
    old = paths.member(1).read_bytes()
    state(paths, client_keys(keys, 1), asked, 1, "join")
    [said] = exchange.news({})
    paths.member(1).write_bytes(old)
    server = Statements(paths, exchange.quarantine, server_keys(keys).current, open=True)
    assert list(server.news("run", {1: said.time})) == []
    assert server.gone("run", 1) == ""


def test_something_else_where_a_statement_belongs_is_moved_and_is_none(paths, keys, opened):
    exchange, _ = opened
    paths.member(1).mkdir()
    assert exchange.news({}) == []
    assert not paths.member(1).exists()


def test_statements_are_of_one_run_and_go_with_it(paths, keys, opened, transport):
    exchange, asked = opened
    state(paths, client_keys(keys, 1), asked, 1, "leave")
    exchange.begin(RunIdentity("run"))
    assert paths.member(1).exists()
    exchange.begin(RunIdentity("next", 5.0))
    assert not paths.member(1).exists()


def test_where_the_federation_is_not_open_nobody_states_anything_and_nothing_is_heard(paths, keys, transport):
    with transport(server_keys(keys)) as exchange:
        asked = exchange.open(task(0), (0, 1))
        client = ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1))
        with pytest.raises(FederationError, match="this federation has fixed members"):
            client.leave()
        state(paths, client_keys(keys, 1), asked, 1, "leave")
        assert exchange.news({}) == []
        assert b"open" not in paths.task(0).read_bytes()


def test_who_has_no_key_or_no_run_or_is_at_work_cannot_leave(paths, keys, opened):
    with pytest.raises(FederationError, match="the client has no key"):
        ExchangeClient(paths, 1, ToyLearner(), shard).leave()
    client = ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1))
    rounds = client.rounds()
    next(rounds)
    with pytest.raises(FederationError, match="client 1 is at work"):
        ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1)).leave()
    rounds.close()
    opened[0].finish("run", 1, adapter())
    with pytest.raises(FederationError, match="no round is open"):
        ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1)).leave()


class Clients:
    """Clients in threads that a test starts one by one. They end when the run is done, or a round holds no more."""

    def __init__(self, paths, keys, load_shard=shard):
        self.paths, self.keys, self.load_shard, self.threads = paths, keys, load_shard, {}

    def start(self, number, learner=None):
        client = ExchangeClient(
            self.paths,
            number,
            learner or ToyLearner(),
            self.load_shard,
            client_keys(self.keys, number),
            heartbeat_s=0.2,
            grace_s=0.0,
            services=(Declarer(),),
        )
        thread = threading.Thread(target=client.run, daemon=True)
        thread.start()
        self.threads[number] = thread

    def join(self):
        for thread in self.threads.values():
            thread.join(60)
            assert not thread.is_alive()


def test_who_leaves_in_the_middle_of_a_round_is_not_waited_for(paths, transport, keys):
    told = []
    with transport(server_keys(keys), open=True, num_clients=3, timeout_s=600.0, retries=3) as exchange:
        exchange.begin(RunIdentity("run"), Listener(line=told.append))
        answers = exchange.ask(task(0), (0, 1))
        asked = exchange.open(task(0), (0, 1))
        ExchangeClient(paths, 0, ToyLearner(), shard, client_keys(keys, 0)).commit(
            asked, ToyLearner().fit(task(0), shard(0), lambda status: None)
        )
        ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1)).leave()
        found = {answer.client_id: answer for answer in answers}
    assert isinstance(found[0], ClientUpdate)
    assert found[1] == ClientFailure(1, "has left")
    assert told == ["client 1: has left"]


def test_an_answer_from_before_its_client_left_counts(paths, transport, keys):
    with transport(server_keys(keys), open=True, num_clients=3, timeout_s=600.0) as exchange:
        asked = exchange.open(task(0), (1,))
        client = ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1))
        client.commit(asked, ToyLearner().fit(task(0), shard(1), lambda status: None))
        client.leave()
        assert isinstance(fit(exchange, (1,))[1], ClientUpdate)


@pytest.mark.parametrize("is_open", [True, False])
def test_an_answer_that_lies_there_unread_when_its_key_is_revoked_is_refused(paths, transport, keys, is_open):
    with transport(server_keys(keys), open=is_open, num_clients=3, timeout_s=600.0, retries=2) as exchange:
        asked = exchange.open(task(0), (0, 1))
        for number in (0, 1):
            ExchangeClient(paths, number, ToyLearner(), shard, client_keys(keys, number)).commit(
                asked, ToyLearner().fit(task(0), shard(number), lambda status: None)
            )
        revoke_keys(keys, {1})
        found = fit(exchange)
        assert isinstance(found[0], ClientUpdate)
        assert found[1] == ClientFailure(1, "its key is revoked")
        assert refused(exchange) == [(1, "client 1's key is revoked")]
    with pytest.raises(SettingsError, match="the key of client 1 is revoked"):
        client_keys(keys, 1)


def test_a_whole_run_in_which_one_joins_one_leaves_and_one_is_revoked(paths, transport, keys):
    """With data of their own, declared when they first take part; the files of strangers are refused."""
    crew = Clients(paths, keys, own_shard)
    with transport(server_keys(keys), open=True, num_clients=3, timeout_s=600.0) as exchange:
        fed = federation(3, rounds=2, open=True)
        object.__setattr__(fed, "own", OwnData())
        for number in range(3):
            crew.start(number)
        results = []
        for result in fed.run(START, exchange):
            results.append(result)
            if result.record.round == 0:
                assert add_keys(keys, 1) == (3,)
                crew.start(3)
                until(paths.member(3).exists)
                revoke_keys(keys, {1})
            if result.record.round == 1:
                until(lambda: json.loads(paths.member(0).read_text())["move"] == "join")
                state(paths, client_keys(keys, 0), exchange.rounds_of("run").task(2, "done", b"x", None), 0, "leave")
        exchange.finish("run", 4, adapter())
        crew.join()
    assert [result.record.selected for result in results] == [(0, 1, 2), (0, 2, 3), (2, 3), (2, 3)]
    assert [result.record.joined for result in results] == [(), (3,), (), ()]
    assert [result.record.left for result in results] == [
        (),
        (Departure(client_id=1, revoked=True),),
        (Departure(client_id=0),),
        (),
    ]
    assert [result.record.excluded for result in results] == [()] * 4


def test_a_client_that_is_started_again_after_it_left_joins_again(paths, transport, keys):
    crew = Clients(paths, keys)
    with transport(server_keys(keys), open=True, num_clients=3, timeout_s=600.0) as exchange:
        asked = exchange.open(task(0), (0,))
        ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1)).leave()
        [left] = exchange.news({})
        crew.start(1)
        until(lambda: json.loads(paths.member(1).read_text())["move"] == "join")
        [back] = exchange.news({1: left.time})
        assert (left.move, back.move, asked.work.open) == ("leave", "join", True)
        exchange.finish("run", 1, adapter())
        crew.join()


def test_a_client_whose_key_is_revoked_is_told_so_once_and_trains_no_more(paths, transport, keys):
    lines, learner = [], ToyLearner()
    client = ExchangeClient(
        paths,
        1,
        learner,
        shard,
        client_keys(keys, 1),
        listen=Listener(line=lines.append),
        heartbeat_s=0.05,
        grace_s=0.0,
    )
    with transport(server_keys(keys), num_clients=3, timeout_s=600.0) as exchange:
        revoke_keys(keys, {1})
        opened = exchange.open(task(0), (0, 1, 2))
        assert opened.revoked == (1,)
        thread = threading.Thread(target=client.run)
        thread.start()
        until(lambda: any("was revoked" in line for line in lines))
        exchange.open(task(1), (0, 1, 2))
        exchange.finish("run", 2, adapter())
        thread.join()
    assert [line for line in lines if "revoked" in line] == [
        "the key of client 1 was revoked: the server takes nothing that it sends, so it does not train; ask for a key "
        "of a new number (`fccl keys --add 1`)"
    ]
    assert learner.calls == []


def test_a_round_in_which_nobody_is_revoked_has_the_bytes_that_it_had(paths, transport, keys):
    with transport(server_keys(keys), num_clients=3, timeout_s=600.0) as exchange:
        assert b"revoked" not in exchange.open(task(0), (0, 1)).written()
