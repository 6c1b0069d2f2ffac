"""Over Flower whatever goes wrong at a site or on its way is an answer with a reason, and the others' rounds go on."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fccl.keys import create_keys, server_keys
from fccl.messages import ClientFailure
from fccl.paths import ExchangePaths, KeyPaths
from fccl.records.sites import SitesRecord
from fccl.storage.reading import read_value
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.testing.transport import answers, task
from fccl.transports.flower.client_app import app
from fccl.transports.flower.parcel import Parcel
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange_tools import until
from tests.transports.flower.sites import good, require_left_out


def test_a_site_without_a_supernode_is_a_failure_with_the_reason(sites):
    sites.start(0)
    with sites.workers(0), sites.transport(nodes_s=0.1) as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
    reason = "no SuperNode has said for 0.1 s that it is the site of client 1"
    assert found[1] == ClientFailure(1, reason)


def test_a_site_without_a_worker_is_a_failure_with_the_reason(sites):
    sites.start(0), sites.start(1)
    with sites.workers(0), sites.transport(stale_s=2.0) as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
    reason = "no worker of client 1 has been at work there for 2 s"
    assert found[1] == ClientFailure(1, f"its site has failed 3 times: {reason}")


def raising(message, context):
    if message.metadata.message_type == "train":
        raise ZeroDivisionError("division by zero")
    return app(message, context)


def other_keys(message, context):
    """As a site of some other Flower app answers."""
    if message.metadata.message_type == "train":
        content = RecordDict({"arrays": ArrayRecord(), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)
    return app(message, context)


def others_files(message, context):
    """Somebody else's answer in the place of its own."""
    reply = app(message, context)
    if message.metadata.message_type == "query":
        return reply
    files = Parcel.of_record(reply.content).files
    renamed = {name.replace("client_1", "client_0").replace("done_1", "done_0"): each for name, each in files.items()}
    return Message(Parcel(renamed).record(), reply_to=message)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raising, "Flower reports error 2: ZeroDivisionError('division by zero')"),
        (other_keys, "the message is no parcel: its records are ['arrays', 'metrics']"),
        (others_files, "the answer has files "),
    ],
)
def test_a_site_that_answers_with_something_else_is_left_out_with_the_reason(sites, answer, reason):
    require_left_out(sites, answer, reason)


def absurd(message, context):
    """The worker's answer with a loss that no training has."""
    reply = app(message, context)
    if message.metadata.message_type == "query":
        return reply
    files = dict(Parcel.of_record(reply.content).files)
    for name in [name for name in files if name.startswith("contrib_")]:
        files[name] = json.dumps(json.loads(files[name]) | {"avg_loss": -1e300}).encode()
    return Message(Parcel(files).record(), reply_to=message)


def test_absurd_numbers_are_refused_as_in_any_exchange_directory(sites):
    sites.start(0), sites.start(1, absurd)
    with sites.workers(0, 1), sites.transport() as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
    assert isinstance(found[1], ClientFailure)
    assert found[1].reason.startswith("refused: ")


def test_with_keys_a_site_that_says_it_is_another_client_is_not_believed(sites, tmp_path):
    """Whoever has the SuperLink, or says that it is client 1, cannot sign in its place."""
    keys = KeyPaths(tmp_path / "keys")
    create_keys(keys, 2)
    sites.start(0), sites.start(1)
    told = []
    with sites.workers(0, keys=keys), sites.workers(1), sites.transport(server_keys(keys), stale_s=3.0) as transport:
        transport.begin(RunIdentity("run"), Listener(line=told.append))
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
    assert isinstance(found[1], ClientFailure)
    assert told[:3] == ["client 1: refused: client 1 has not signed it"] * 3


def test_a_supernode_that_goes_in_the_middle_of_a_round_is_replaced_by_the_next(sites):
    """The message of the one that went is never answered."""

    def silent(message, context):
        if message.metadata.message_type == "query":
            return app(message, context)
        sites.start(1)
        sites.nodes.stop(message.metadata.dst_node_id)
        return app(message, context)  # too late: nobody takes it

    sites.start(0), sites.start(1, silent)
    with sites.workers(0, 1), sites.transport() as transport:
        found = answers(transport, (0, 1))
        assert [good(found[number], number) for number in (0, 1)] == [True, True]


def test_a_superlink_that_has_lost_its_messages_is_sent_them_again(sites):
    lost = []

    def once(message, context):
        if message.metadata.message_type == "train" and not lost:
            lost.append(message.metadata.message_id)
            sites.nodes.state.delete_messages({message.metadata.message_id})
        return app(message, context)

    sites.start(0), sites.start(1, once)
    with sites.workers(0, 1), sites.transport() as transport:
        found = answers(transport, (0, 1))
        assert [good(found[number], number) for number in (0, 1)] == [True, True]
    assert len(lost) == 1


def losing(kind):
    """An app to which the first message of a kind never comes, and the list of those that were lost."""
    lost = []

    def once(message, context):
        if message.metadata.message_type == kind and not lost:
            lost.append(message.metadata.message_id)
            return None
        return app(message, context)

    return lost, once


def test_a_message_that_never_arrived_is_sent_again_and_trained_once(sites):
    """The connection broke while the SuperLink handed it out: nobody says so."""
    sites.lost_s, learner = 0.2, ToyLearner()
    lost, once = losing("train")
    sites.start(0), sites.start(1, once)
    with sites.workers(0), sites.workers(1, learner=learner), sites.transport() as transport:
        found = answers(transport, (0, 1))
        assert [good(found[number], number) for number in (0, 1)] == [True, True]
    assert len(lost) == 1
    assert learner.calls == [(0, 1)]


def test_the_question_whose_site_a_node_is_may_be_lost_too(sites):
    sites.lost_s = 0.5
    _, once = losing("query")
    sites.start(0), sites.start(1, once)
    with sites.workers(0, 1), sites.transport(nodes_s=0.1) as transport:
        found = answers(transport, (0, 1))
        assert [good(found[number], number) for number in (0, 1)] == [True, True]


def test_a_site_that_is_at_work_for_an_earlier_server_is_waited_for(sites):
    """It says whose it is when that is done: later than a site without a node is waited for."""
    free, sites.lost_s = threading.Event(), 0.2

    def busy(message, context):
        free.wait(60)
        return app(message, context)

    sites.start(0), sites.start(1, busy)
    with sites.workers(0, 1), sites.transport(nodes_s=0.1) as transport:
        arriving = transport.ask(task(), (0, 1))
        assert good(next(arriving), 0)
        threading.Timer(1.0, free.set).start()
        assert good(next(arriving), 1)


class Stopped:
    """The grid of a run that was stopped."""

    def get_nodes(self):
        raise RuntimeError("the run is not running")


def test_a_superlink_that_takes_no_more_messages_ends_the_waiting_with_the_reason(sites):
    sites.grid = Stopped()
    with sites.transport() as transport:
        found = answers(transport, (0, 1))
    reason = "the SuperLink takes no more messages: RuntimeError('the run is not running')"
    assert found == {0: ClientFailure(0, reason), 1: ClientFailure(1, reason)}


def test_the_file_of_the_sites_says_who_is_there_and_what_was_carried(sites):
    sites.start(0)
    with sites.workers(0), sites.transport(nodes_s=0.1) as transport:
        assert good(answers(transport, (0, 1))[0], 0)
        until(lambda: sites.log.exists() and read_value(sites.log, SitesRecord).sites[0].up)
    said = read_value(sites.log, SitesRecord)
    first, second = said.sites
    assert (first.online, second.online, second.seen, second.down) == (True, False, None, 0)
    assert [(each.down, each.up) for each in said.rounds] == [(first.down, first.up)]
    answer = sum(path.stat().st_size for path in ExchangePaths(sites.site(0)).answer(0, 0))
    assert first.up >= answer > 0


def test_a_client_that_failed_is_asked_again_where_the_quorum_asks_for_it(sites):
    class Once(ToyLearner):
        def fit(self, task, shard, on_status):
            self.broken = frozenset({1} if not self.calls else set())
            return super().fit(task, shard, on_status)

    sites.start(0), sites.start(1)
    with sites.workers(0), sites.workers(1, learner=Once()), sites.transport(quorum=2, retries=1) as transport:
        found = answers(transport, (0, 1))
        assert [good(found[number], number) for number in (0, 1)] == [True, True]


def test_a_node_that_says_nothing_sensible_is_not_sent_a_task(sites):
    def strange(message, context):
        return Message(RecordDict({"site": MetricRecord({"client-id": 1})}), reply_to=message)

    sites.start(0), sites.start(1, strange)
    with sites.workers(0), sites.transport(nodes_s=0.1) as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
    assert isinstance(found[1], ClientFailure)


def test_a_server_that_starts_again_takes_the_answers_that_the_sites_have(sites):
    """Every worker trains once: the second server's messages find the answers of the first one's."""
    learner = ToyLearner()
    sites.start(0), sites.start(1)
    with sites.workers(0, 1, learner=learner):
        with sites.transport() as transport:
            for _ in transport.ask(task(), (0, 1)):
                break  # as if it died here
            until(lambda: sorted(learner.calls) == [(0, 0), (0, 1)])
            for path in sites.paths.root.glob("*_round_0*"):
                path.unlink()
            found = answers(transport, (0, 1))
        assert [good(found[number], number) for number in (0, 1)] == [True, True]
    assert sorted(learner.calls) == [(0, 0), (0, 1)]


def test_a_run_that_begins_after_another_one_is_no_end_for_its_workers(sites):
    fed = federation(2, rounds=1)
    alone = list(fed.run(START, InProcessTransport(ToyLearner(), shard)))
    sites.start(0), sites.start(1)
    for run in ("first", "second"):
        with sites.workers(0, 1), sites.transport() as transport:
            results = list(replace(fed, run_id=run).run(START, transport))
            transport.finish(run, 2, results[-1].state.adapter)
            for number in (0, 1):
                assert ExchangePaths(sites.site(number)).phase(2).read_text() == "done"
        assert results[-1].state.adapter.to_bytes() == alone[-1].state.adapter.to_bytes()


NODE_KEYS = {0: b"key of client 0", 1: b"key of client 1"}


def test_with_node_keys_a_node_is_believed_for_the_client_whose_key_it_has(sites):
    """Another one that says the same later, with a key of its own or another client's, takes no one's place."""
    for number in (0, 1):
        sites.start(number, key=NODE_KEYS[number])
    with sites.workers(0, 1), sites.transport(node_keys=NODE_KEYS) as transport:
        assert all(good(found, number) for number, found in answers(transport, (0, 1)).items())
        evil = [sites.start(0, folder=sites.folder / "evil"), sites.start(0, folder=sites.folder / "evil", key=b"2")]
        until(lambda: all(sites.nodes.handled.get(node) for node in evil))
        found = answers(transport, (0, 1), number=1)
        assert not isinstance(found[0], ClientFailure)
    assert not ExchangePaths(sites.folder / "evil").task(1).exists(), "it was sent nothing"


@pytest.mark.parametrize(("key", "whose"), [(NODE_KEYS[0], "client 0's"), (b"another", "of no client")])
def test_a_node_that_names_a_client_whose_key_it_has_not_is_a_failure_with_the_reason(sites, key, whose):
    sites.start(1, key=key)
    with sites.transport(node_keys=NODE_KEYS, nodes_s=0.5) as transport:
        found = answers(transport, (1,))
    said = "no SuperNode has said for 0.5 s that it is the site of client 1"
    assert found[1] == ClientFailure(1, f"{said}: a SuperNode says so, but its node key is {whose}")


def test_without_node_keys_nodes_are_believed(sites):
    sites.start(0, key=NODE_KEYS[1])
    with sites.workers(0), sites.transport() as transport:
        assert good(answers(transport, (0,))[0], 0)


def test_a_node_that_is_known_by_its_key_is_not_given_up_while_it_is_asked(sites):
    """A busy site takes its time to start the app that answers."""
    may_say = threading.Event()

    def slow(message, context):
        if message.metadata.message_type == "query":
            may_say.wait(60)
        return app(message, context)

    sites.start(0, slow, key=NODE_KEYS[0])
    with sites.workers(0), sites.transport(node_keys=NODE_KEYS, nodes_s=0.1) as transport:
        threading.Timer(1.0, may_say.set).start()
        assert good(answers(transport, (0,))[0], 0)


def test_what_fails_of_a_round_that_is_over_is_no_failure_in_the_next(sites, clock):
    """A site has three of its own in each. The first one of these comes when the next round is open."""
    is_next, failures = threading.Event(), []

    def tells(message, context):
        if message.metadata.group_id == "1":
            is_next.set()
        return app(message, context)

    def failing(message, context):
        if message.metadata.message_type == "query" or len(failures) == 3:
            return app(message, context)
        is_next.wait(60)
        failures.append(message.metadata.group_id)
        raise ZeroDivisionError

    sites.start(0, tells), sites.start(1, failing)
    with sites.workers(0, 1), sites.transport() as transport:
        arriving = transport.ask(task(), (0, 1))
        assert good(next(arriving), 0)
        clock.ahead += 1000.0
        assert isinstance(next(arriving), ClientFailure)
        assert list(arriving) == []
        found = answers(transport, (0, 1), number=1)
    assert failures == ["0", "1", "1"]
    assert [isinstance(found[number], ClientFailure) for number in (0, 1)] == [False, False]


@pytest.mark.parametrize(("late", "rounds"), [("drop", 1), ("next", 2)])
def test_a_message_lives_longer_than_its_site_waits_for_the_answer(sites, late, rounds):
    """And where late answers count, the site waits while the next round is open too."""
    heard = []

    def hears(message, context):
        if message.metadata.message_type == "train":
            heard.append((Parcel.of_record(message.content).wait_s, message.metadata.ttl))
        return app(message, context)

    sites.start(0, hears)
    with sites.workers(0), sites.transport(late=late, timeout_s=600.0) as transport:
        assert good(answers(transport, (0,))[0], 0)
    ((wait_s, ttl),) = heard
    assert wait_s == 600.0 * rounds
    assert ttl > wait_s


def test_a_wait_of_centuries_is_a_wait_as_any_other(sites):
    """A timeout that stands for none, by the number of attempts: a site reads no more seconds than a parcel may say."""
    sites.start(0), sites.start(1)
    with sites.workers(0, 1), sites.transport(timeout_s=1e9, retries=1, late="next") as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
        assert good(found[1], 1)
