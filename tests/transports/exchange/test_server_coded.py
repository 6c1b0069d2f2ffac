"""Coded adapters in the exchange directory: what is read, what is refused, and kills between residual and flag."""

import dataclasses
from contextlib import suppress

import pytest

from fccl.adapters.coded import CodedAdapter
from fccl.keys import client_keys, create_keys, server_keys
from fccl.messages import ClientFailure, ClientUpdate, ResidualsInFolders, Worker
from fccl.paths import ExchangePaths, KeyPaths, StatePaths
from fccl.specs.codecs import CodecSpec
from fccl.testing.coded import coded_by_hand, coding
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, TRAIN, ToyLearner, adapter, federation, shard
from fccl.testing.transport import task, toy_learner
from fccl.transports.exchange import client as exchange_client
from fccl.transports.exchange import few_bytes
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.heartbeat import Heartbeat
from fccl.transports.exchange.server import ExchangeTransport
from tests.federation.test_run_kills import Killed, Kills
from tests.transports.exchange_tools import clients, finish

TOPK = CodecSpec(name="topk", share=0.3)
INT8 = CodecSpec(name="int8")


def asking(codec, number=0, coded=None):
    return dataclasses.replace(
        task(number, (1.0, 2.0, 3.0 + number)), train=TRAIN.model_copy(update={"codec": codec}), coded=coded
    )


def client_of(paths, number=1, keys=None, **changes):
    return ExchangeClient(paths, number, ToyLearner(), shard, keys, **changes)


def asked_of(client):
    """The newest round as this client begins it."""
    opened = client.newest()
    return client.begin(opened, opened.work, Heartbeat(client.paths, client.client_id, 1.0))


def test_clients_read_the_few_bytes_alone(paths, transport, monkeypatch):
    read, real = [], few_bytes.read_named

    def noted(path, *about):
        read.append(path.name)
        return real(path, *about)

    for module in (exchange_client, few_bytes):
        monkeypatch.setattr(module, "read_named", noted)
    fed = coding(federation(2, rounds=2), INT8)
    with transport() as exchange, clients(paths, {number: toy_learner() for number in range(2)}):
        results = list(fed.run(START, exchange))
        finish(exchange)
    assert results[-1].state.adapter.to_bytes() == coded_by_hand(fed).to_bytes()
    globals_read = [name for name in read if name.startswith("global_")]
    assert sorted(globals_read) == sorted(2 * [f"global_round_{number}.coded" for number in range(4)])


def test_a_client_that_joins_late_reads_the_whole_and_one_that_was_there_its_change(paths, transport):
    first = asking(INT8)
    sent = CodedAdapter.of(adapter(1.0, 2.5, 4.0), first.adapter, INT8, seed=3)
    second = dataclasses.replace(asking(INT8, 1, sent.content), adapter=sent.load())
    with transport() as exchange:
        exchange.open(first, (0, 1))
        there = client_of(paths)
        asked_of(there)
        exchange.open(second, (0, 1))
        late = client_of(paths, 0)
        assert [asked_of(each).task.adapter.sha256 for each in (there, late)] == [second.adapter.sha256] * 2
        paths.global_adapter(1).write_bytes(b"x" * paths.global_adapter(1).stat().st_size)
        again = client_of(paths, 0)
        assert asked_of(again) is None, "without a base only the whole file will do"


@pytest.mark.parametrize("spoilt", ["another adapter", "another base", "noise", "gone", "a seed"])
def test_few_bytes_that_come_to_anything_else_are_passed_over_for_the_whole(spoilt, paths, transport):
    first, base = asking(INT8), adapter(9.0, 9.0, 9.0)
    contents = {
        "another adapter": CodedAdapter.of(adapter(5.0, 5.0, 5.0), first.adapter, INT8, seed=3).content,
        "another base": CodedAdapter.of(adapter(5.0, 5.0, 5.0), base, INT8, seed=3).content,
        "noise": b"fccl chg" + b"\xff" * 70,
        "gone": b"fccl chg",
        "a seed": b"fccl new" + b"\xff" * 80,
    }
    second = asking(INT8, 1, contents[spoilt])
    with transport() as exchange:
        exchange.open(first, (0, 1))
        client = client_of(paths)
        asked_of(client)
        exchange.open(second, (0, 1))
        if spoilt == "gone":
            paths.coded_global(1).unlink()
        assert asked_of(client).task.adapter.sha256 == second.adapter.sha256


def committed(paths, exchange, asked, spoil=lambda content: content, keys=None, codec=None):
    """Client 1's answer, its coded file spoilt after the contribution was written, or before with `codec`."""
    opened, client = exchange.open(asked, (0, 1)), client_of(paths, keys=keys)
    done = dataclasses.replace(asked, train=TRAIN.model_copy(update={"codec": codec or asked.train.codec}))
    client.commit(opened, Worker(ToyLearner(), shard).answer(done, 1, lambda status: None))
    path = paths.coded_update(1, 0)
    if path.exists():
        path.write_bytes(spoil(path.read_bytes()))


def answer_to(exchange, asked):
    return {answer.client_id: answer for answer in exchange.ask(asked, (1,))}[1]


@pytest.mark.parametrize("signed", [False, True])
def test_a_coded_update_counts_as_it_was_sent(signed, paths, transport, tmp_path):
    folder = KeyPaths(tmp_path / "keys")
    create_keys(folder, 4)
    server, mine = (server_keys(folder), client_keys(folder, 1)) if signed else (None, None)
    asked = asking(TOPK)
    with transport(server, timeout_s=0.01) as exchange:
        committed(paths, exchange, asked, keys=mine)
        found = answer_to(exchange, asked)
    expected = Worker(ToyLearner(), shard).answer(asked, 1, lambda status: None)
    assert isinstance(found, ClientUpdate)
    assert found.adapter.load().sha256 == expected.adapter.sha256
    assert found.sent == expected.sent == len(expected.adapter.content)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "is not the file that its contribution speaks of"),
        (lambda content: content[:-1], "has"),
        (lambda content: content + b"\0", "has"),
    ],
)
def test_a_coded_update_that_was_changed_is_refused(spoil, reason, paths, transport):
    asked = asking(TOPK)
    with transport(timeout_s=0.01) as exchange:
        committed(paths, exchange, asked, spoil)
        found = answer_to(exchange, asked)
    assert isinstance(found, ClientFailure)
    assert reason in found.reason


@pytest.mark.parametrize("codec", [CodecSpec(), INT8, CodecSpec(name="topk", share=0.9)], ids=str)
def test_an_update_in_another_codec_than_was_asked_for_is_refused(codec, paths, transport):
    asked = asking(TOPK)
    with transport(timeout_s=0.01) as exchange:
        committed(paths, exchange, asked, codec=codec)
        found = answer_to(exchange, asked)
    assert isinstance(found, ClientFailure)


def rounds_of(root, kills=None, at=-1):
    """The coded bytes of three rounds of a client that starts anew in each, and the writes of the second. In that it
    dies at one of them, and starts again.
    """
    found, seen, paths = [], 0, ExchangePaths(root / "exchange")
    with ExchangeTransport(paths, exchange_spec(2), root / "received") as exchange:
        for number in range(3):
            exchange.open(asking(TOPK, number), (1,))
            if number == 1 and kills is not None:
                kills.begin(at)
                with suppress(Killed):
                    answered(paths, root)
                seen = kills.seen
                kills.begin()
            answered(paths, root)
            found.append(paths.coded_update(1, number).read_bytes())
    return found, seen


def answered(paths, root):
    client = client_of(paths, residuals=ResidualsInFolders(StatePaths(root / "state").residuals))
    if not client.is_answered(client.newest()):
        client.answer(asked_of(client))


def test_a_client_killed_at_any_write_of_an_answer_sends_the_same_bytes(monkeypatch, tmp_path):
    kills = Kills(monkeypatch)
    expected, writes = rounds_of(tmp_path / "whole", kills)
    assert writes > 8
    for at in range(writes):
        found, seen = rounds_of(tmp_path / str(at), kills, at)
        assert (found, seen) == (expected, at)
