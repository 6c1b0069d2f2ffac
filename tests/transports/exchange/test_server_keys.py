"""Who may speak: signed answers, signed rounds."""

import dataclasses
import json
import shutil
import threading

import pytest

from fccl.keys import client_keys, create_keys, server_keys
from fccl.messages import ClientFailure, ClientUpdate
from fccl.paths import KeyPaths
from fccl.testing.toy import ToyLearner, adapter, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.memory import Memory
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.exchange_tools import answered, edit, finish, fit, replace, until


@pytest.fixture
def keys(tmp_path):
    folder = KeyPaths(tmp_path / "keys")
    create_keys(folder, 4)
    return folder


def signed_answer(paths, transport, keys, spoil):
    return answered(
        paths, lambda **spec: transport(server_keys(keys), **spec), spoil, keys=client_keys(keys, 1), asked=(1,)
    )


def test_a_signed_answer_counts(paths, transport, keys):
    found, rejections = signed_answer(paths, transport, keys, lambda paths, opened: None)
    assert isinstance(found[1], ClientUpdate)
    assert rejections == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (edit({"signature": ""}), "client 1 has not signed it"),
        (edit({"avg_loss": 0.001}), "the signature is not client 1's"),
        (edit({"num_samples": 10**6}), "the signature is not client 1's"),
        (edit({"signature": "AAAA"}), "the signature is not client 1's"),
        (edit({"signature": "no base64!"}), "the signature is not client 1's"),
        (replace("contribution", b'{"avg_loss": 1.0, "num_samples": 2}'), "client 1 has not signed it"),
        (replace("update", adapter(7.0, 7.0, 7.0).to_bytes()), "is not the file that its contribution speaks of"),
    ],
)
def test_with_keys_nothing_counts_that_the_client_has_not_signed(paths, transport, keys, spoil, reason):
    found, rejections = signed_answer(paths, transport, keys, spoil)
    assert isinstance(found[1], ClientFailure)
    assert reason in rejections[0].reason


def test_another_clients_signature_is_refused(paths, transport, keys):
    found, rejections = answered(
        paths,
        lambda **spec: transport(server_keys(keys), **spec),
        lambda paths, opened: None,
        keys=client_keys(keys, 2),
        asked=(1,),
    )
    assert "the signature is not client 1's" in found[1].reason
    assert len(rejections) == 1


def test_a_replayed_answer_of_another_round_is_refused(paths, transport, keys):
    """The files of round 0, signed and all, under the names of round 1."""
    signed = server_keys(keys)
    with (
        transport(signed, keep_rounds=5) as exchange,
        client_threads(paths.root, {1: ToyLearner()}, keys),
    ):
        fit(exchange, (1,))
        exchange.finish("run", 1, adapter())
    with transport(signed, timeout_s=0.01, keep_rounds=5) as exchange:
        exchange.open(task(1), (1,))
        for old, new in zip(paths.answer(1, 0), paths.answer(1, 1), strict=True):
            new.write_bytes(old.read_bytes())
        found = fit(exchange, (1,), number=1)
    assert "the answer is of round 0, asked was 1" in found[1].reason


@pytest.mark.parametrize("signer", [None, 2])
def test_a_client_with_keys_believes_only_its_server(paths, transport, keys, signer):
    told, learner = [], ToyLearner()
    client = ExchangeClient(
        paths, 1, learner, shard, client_keys(keys, 1), grace_s=0.0, listen=Listener(line=told.append)
    )
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    with transport(None if signer is None else client_keys(keys, signer), timeout_s=0.01) as exchange:
        exchange.open(task(), (1,))
        until(lambda: told)
        assert isinstance(fit(exchange, (1,))[1], ClientFailure)
        finish(exchange)
    until(lambda: len(told) == 2)
    assert thread.is_alive(), "not even the end is believed"
    assert learner.calls == []
    assert told == [f"round {number} is not believed: the server has not signed it" for number in (1, 2)]
    with transport(server_keys(keys)) as exchange:
        finish(exchange)
    thread.join(60)
    assert not thread.is_alive()


def test_a_task_that_was_changed_is_not_believed(paths, transport, keys):
    told = []

    def newest():
        nonlocal client
        client = ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1), listen=Listener(line=told.append))
        return client.newest()

    client = None
    with transport(server_keys(keys)) as exchange:
        exchange.open(task(), (1,))
        assert newest().round == 0
        for changes in (
            {"adapter": {"sha256": "0" * 64, "length": 9}},
            {"run_id": "another"},
            {"phase": "done", "work": None},
        ):
            text = paths.task(0).read_text()
            paths.task(0).write_text(json.dumps(json.loads(text) | changes))
            assert newest() is None
            paths.task(0).write_text(text)
        paths.phase(0).write_text("done")
        assert newest() is None
        paths.phase(0).write_text("sft")
        adapter(8.0, 8.0, 8.0).save(paths.global_adapter(0))
        opened = newest()
        assert client.begin(opened, opened.work, None) is None
    assert told[-1] == "round 1 cannot be begun: global_round_0.safetensors is not the file that the task speaks of"
    assert not paths.flag(1, 0).exists()


# --- a client that is started again


def remembering(paths, keys, tmp_path, told=None, learner=None):
    """A client process that has just been started: its memory is what an earlier one has left."""
    memory = Memory(tmp_path / "state" / "answered.json", client_keys(keys, 1).public.server)
    memory.recall()
    return ExchangeClient(
        paths,
        1,
        learner or ToyLearner(),
        shard,
        client_keys(keys, 1),
        memory,
        grace_s=0.0,
        listen=Listener(line=(told if told is not None else []).append),
    )


def opened(exchange, number, created=100.0, run_id="run"):
    """Open a round of a run; what is in the directory is all that a client goes by."""
    exchange.begin(RunIdentity(run_id, created))
    return exchange.open(dataclasses.replace(task(number), run_id=run_id), (1,))


def answer(client):
    """Answer the newest round, if one is believed. Returns its number."""
    newest = client.newest()
    if newest is None:
        return None
    client.answer(client.begin(newest, newest.work, NoHeart()))
    return newest.round


class NoHeart:
    """Takes every beat."""

    def tell(self, status):
        pass

    turn = check = tell


def test_started_again_it_does_not_believe_an_older_signed_round(paths, transport, keys, tmp_path):
    told = []
    with transport(server_keys(keys), keep_rounds=9) as exchange:
        opened(exchange, 0)
        old = {path: path.read_bytes() for path in (paths.phase(0), paths.task(0), paths.global_adapter(0))}
        opened(exchange, 1)
        assert answer(remembering(paths, keys, tmp_path)) == 1
        for path in list(paths.root.glob("*_1.*")):
            path.unlink()
        for path, content in old.items():
            path.write_bytes(content)
        assert answer(remembering(paths, keys, tmp_path, told)) is None
        assert told[0].startswith(
            "round 1 is not believed: this client has answered round 2 of this run; if the server was set back on "
            "purpose, delete "
        )
        assert not paths.flag(1, 0).exists()
        opened(exchange, 2)
        assert answer(remembering(paths, keys, tmp_path, told)) == 2
        assert len(told) == 3, "the refusal, the training, the answer"


def test_without_its_state_it_is_shown_an_old_round_again(paths, transport, keys, tmp_path):
    """So much is lost with STATE_DIR, and no more."""
    with transport(server_keys(keys), keep_rounds=9) as exchange:
        opened(exchange, 1)
        assert answer(remembering(paths, keys, tmp_path)) == 1
        shutil.rmtree(tmp_path / "state")
        opened(exchange, 0)
        assert answer(remembering(paths, keys, tmp_path)) == 0


@pytest.mark.parametrize(
    ("rounds", "answered"),
    [
        ([("run", 100.0, 0), ("run", 100.0, 0)], [0, 0]),  # tried again
        ([("run", 100.0, 0), ("run", 100.0, 3)], [0, 3]),  # it was not asked meanwhile
        ([("run", 100.0, 5), ("next", 200.0, 0), ("next", 200.0, 1)], [5, 0, 1]),  # --new
        ([("run", 100.0, 5), ("twin", 100.0, 0)], [5, 0]),  # created by the same clock tick
        ([("run", 200.0, 5), ("older", 100.0, 6)], [5, None]),  # played back
        ([("run", 200.0, 5), ("older", 100.0, 6), ("run", 200.0, 6)], [5, None, 6]),
        ([("older", 100.0, 6), ("run", 200.0, 5), ("older", 100.0, 6)], [6, 5, None]),
    ],
)
def test_started_again_before_every_round_it_goes_on_and_never_back(paths, transport, keys, tmp_path, rounds, answered):
    found = []
    for run_id, created, number in rounds:
        with transport(server_keys(keys)) as exchange:
            opened(exchange, number, created, run_id)
            found.append(answer(remembering(paths, keys, tmp_path)))
            exchange.rounds_of(run_id).take_back(1, number)
    assert found == answered


def test_killed_between_memory_and_flag_it_answers_again(paths, transport, keys, tmp_path, monkeypatch):
    with transport(server_keys(keys)) as exchange:
        opened(exchange, 4)
        seen = []
        noted = Memory.note

        def killed(memory, task):
            seen.append(paths.flag(1, 4).exists())
            noted(memory, task)
            raise KeyboardInterrupt

        monkeypatch.setattr(Memory, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            answer(remembering(paths, keys, tmp_path))
        monkeypatch.undo()
        assert seen == [False], "what was answered is known before the server can know it"
        assert not paths.flag(1, 4).exists()
        assert answer(remembering(paths, keys, tmp_path)) == 4
        assert paths.flag(1, 4).exists()


def test_a_run_that_was_left_does_not_come_back(paths, transport):
    client = ExchangeClient(paths, 0, ToyLearner(), shard)
    with transport() as exchange:
        for run_id in ("first", "second"):
            exchange.open(dataclasses.replace(task(), run_id=run_id), (0,))
            client.remember(client.newest().run_id)
        exchange.finish("first", 9, adapter())
        assert client.newest() is None
