"""Late answers in the exchange directory: what a client commits, and what the server takes of it."""

import dataclasses

import pytest

from fccl.adapters.adapter import Adapter
from fccl.errors import FederationError
from fccl.federation.kept_rounds import kept_round
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.verify import signed_words
from fccl.keys import client_keys, create_keys, revoke_keys, server_keys
from fccl.messages import ClientFailure
from fccl.paths import ExchangePaths, KeyPaths, LogPaths
from fccl.records.late import LateUpdate
from fccl.specs import ExchangeSpec
from fccl.testing.late import LATE, OTHERS, HeldLearner, held_in, let_go
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.testing.transport import CLIENTS, task, toy_learner
from fccl.transports.exchange.answers import AnswerReader
from fccl.transports.exchange.client import AskedRound, ExchangeClient
from fccl.transports.exchange.heartbeat import Heartbeat
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.protocol import Listener
from tests.federation.test_late import Killed, KillsOnce, LateClients
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.exchange_tools import edit, fit, replace, until


@pytest.fixture
def keys(tmp_path):
    folder = KeyPaths(tmp_path / "keys")
    create_keys(folder, 4)
    return folder


def committed(paths, opened, client_id=1, keys=None, learner=None):
    answer = (learner or ToyLearner()).fit(task(opened.round), shard(client_id), lambda status: None)
    ExchangeClient(paths, client_id, ToyLearner(), shard, keys=keys).commit(opened, answer)


def late_answers(paths, exchange, spoil=lambda paths, opened: None, keys=None):
    """The late answers to round 0 of client 1, which answers when round 1 is open."""
    opened = exchange.open(task(0), (0, 1))
    committed(paths, opened, 0, keys and client_keys(keys, 0))
    assert isinstance(fit(exchange, (0, 1))[1], ClientFailure)
    later = exchange.open(task(1), (0,))
    committed(paths, later, 0, keys and client_keys(keys, 0))
    committed(paths, opened, 1, keys and client_keys(keys, 1))
    spoil(paths, opened)
    assert sorted(fit(exchange, (0,), number=1)) == [0]
    return list(exchange.late(task(0), (1,)))


def test_a_late_answer_is_the_client_s_own_to_the_round_that_is_closed(paths, transport):
    with transport(late="next", timeout_s=0.01) as exchange:
        found = late_answers(paths, exchange)
        expected = ToyLearner().fit(task(0), shard(1), lambda status: None)
        assert [(each.client_id, each.round, each.adapter.load().sha256) for each in found] == [
            (1, 0, expected.adapter.load().sha256)
        ]
        assert list(exchange.late(task(0), (2, 3))) == []


SPOILT = [
    (edit({"round": 1}), "the answer is of round 1, asked was 0"),
    (edit({"run_id": "other"}), "the answer is of run_id 'other', asked was 'run'"),
    (edit({"phase": "va"}), "the answer is of phase 'va', asked was 'sft'"),
    (edit({"client_id": 0}), "the answer is of client_id 0, asked was 1"),
    (edit({"base_sha256": "0" * 64}), "the training began from another global adapter than this round's"),
    (edit({"lora_r": 7}), "rank 7 is more than LORA_R=1"),
    (replace("update", adapter(7.0, 7.0, 7.0).to_bytes()), "is not the file that its contribution speaks of"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILT)
def test_everything_that_is_checked_of_an_answer_is_checked_of_a_late_one(paths, transport, spoil, reason):
    with transport(late="next", timeout_s=0.01) as exchange:
        assert late_answers(paths, exchange, spoil) == []
        assert [each.client_id for each in exchange.quarantine.rejections] == [1]
        assert reason in exchange.quarantine.rejections[0].reason


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (edit({"signature": ""}), "client 1 has not signed it"),
        (edit({"avg_loss": 0.001}), "the signature is not client 1's"),
    ],
)
def test_a_late_answer_that_its_client_has_not_signed_is_refused(paths, transport, keys, spoil, reason):
    with transport(server_keys(keys), late="next", timeout_s=0.01) as exchange:
        assert late_answers(paths, exchange, spoil, keys) == []
        assert exchange.quarantine.rejections[0].reason == reason


def test_a_late_answer_that_lies_there_when_its_key_is_revoked_is_refused(paths, transport, keys):
    with transport(server_keys(keys), late="next", timeout_s=0.01) as exchange:
        assert late_answers(paths, exchange, lambda paths, opened: revoke_keys(keys, {1}), keys) == []
        assert exchange.quarantine.rejections[0].reason == "client 1's key is revoked"


def test_a_failure_is_no_late_answer(paths, transport):
    def fails(paths, opened):
        ExchangeClient(paths, 1, ToyLearner(), shard).commit(opened, ClientFailure(1, "it broke"))

    with transport(late="next", timeout_s=0.01) as exchange:
        assert late_answers(paths, exchange, fails) == []
        assert exchange.quarantine.rejections == []


def test_a_late_answer_that_ends_the_server_is_not_read_again_when_it_is_started_anew(paths, transport, monkeypatch):
    real = AnswerReader.read

    def read(reader, client_id):
        if client_id == 1:
            raise Killed
        return real(reader, client_id)

    with transport(late="next", timeout_s=0.01) as exchange, monkeypatch.context() as patch:
        patch.setattr(AnswerReader, "read", read)
        with pytest.raises(Killed):
            late_answers(paths, exchange)
    with transport(late="next", timeout_s=0.01) as exchange:
        assert sorted(fit(exchange, (0,), number=1)) == [0]
        assert list(exchange.late(task(0), (1,))) == []
        assert exchange.quarantine.rejections[0].reason == "the server ended while it read this answer"


@pytest.mark.parametrize(
    ("late", "rounds_later", "learner", "is_there"),
    [
        ("next", 0, toy_learner(), True),
        ("next", 1, toy_learner(), True),
        ("next", 2, toy_learner(), False),
        ("next", 1, toy_learner(broken=(1,)), False),  # nothing that could count
        ("drop", 1, toy_learner(), False),
    ],
)
def test_a_client_commits_a_late_update_where_it_can_count_and_nothing_else(
    paths, transport, late, rounds_later, learner, is_there
):
    told = []
    with transport(late=late, keep_rounds=3) as exchange:
        opened = exchange.open(task(0), (1,))
        for number in range(1, rounds_later + 1):
            exchange.open(task(number), (0,))
        client = ExchangeClient(paths, 1, learner, shard, listen=Listener(line=told.append))
        client.answer(AskedRound(task(0), opened, Heartbeat(paths, 1, 60.0)))
        assert paths.flag(1, 0).exists() == is_there
    assert any("too late" in line for line in told) != is_there


def test_a_late_answer_to_another_phase_is_not_committed(paths, transport):
    with transport(late="next") as exchange:
        opened = exchange.open(task(0), (1,))
        exchange.open(task(1, phase="va", reference=adapter(1.0, 1.0, 1.0)), (0,))
        client = ExchangeClient(paths, 1, ToyLearner(), shard)
        client.answer(AskedRound(task(0), opened, Heartbeat(paths, 1, 60.0)))
        assert not paths.flag(1, 0).exists()


def test_tasks_say_that_late_answers_count_and_where_they_do_not_they_have_the_bytes_that_they_had(paths, transport):
    with transport(late="next") as exchange:
        exchange.open(task(0), (1,))
        assert b'"late":"next"' in paths.task(0).read_bytes()
    with transport() as exchange:
        exchange.open(task(0), (1,))
        assert b"late" not in paths.task(0).read_bytes()


def test_late_answers_need_a_round_that_is_kept():
    with pytest.raises(ValueError, match="LATE_UPDATES=next needs KEEP_ROUNDS >= 1"):
        ExchangeSpec.model_validate(exchange_spec(2).model_dump() | {"late": "next", "keep_rounds": 0})


def conducted(root, listener, clock, resume=False, keys=None):
    """The first two rounds of a run over the directory, in which client `LATE` is held from round 0 on."""
    paths, folder = ExchangePaths(root / "exchange"), RunFolder.at(root / "logs")
    fed = federation(CLIENTS, rounds=3, late_updates="next")
    heard = []

    def on_answer(answer):
        listener.answer(answer)
        heard.append((answer.client_id, getattr(answer, "round", -1)))
        number = heard[-1][1]
        if number >= 0 and all((client, number) in heard for client in OTHERS):
            clock.ahead += 10_000.0

    run = Run(dataclasses.replace(fed), folder, lambda: START.adapter, listener=_Listening(on_answer))
    spec = exchange_spec(CLIENTS, late="next", timeout_s=600.0, stale_s=600.0)
    with ExchangeTransport(paths, spec, folder.paths.received, keys) as transport:
        try:
            for result in run.rounds(transport, resume):
                if result.record.round == 0:
                    (root / "hold" / "0").unlink()
                    until(paths.flag(LATE, 0).exists)
                if result.record.round == 1:
                    return result
        finally:
            if listener.at is None and (run.state is None or run.state.next_round == 2):
                let_go(root / "hold")
                transport.finish(run.identity.run_id, 2, adapter())


class _Listening(KillsOnce):
    def __init__(self, hear):
        self.hear = hear

    def answer(self, answer):
        self.hear(answer)


def test_a_server_that_is_killed_with_a_late_answer_in_hand_takes_it_once_when_it_is_started_again(tmp_path, clock):
    held_in(tmp_path / "hold", 0, 1)
    learner, listener = HeldLearner(hold=tmp_path / "hold"), KillsOnce(LATE, 0)
    (tmp_path / "exchange").mkdir()
    with client_threads(tmp_path / "exchange", dict.fromkeys(range(CLIENTS), learner)):
        with pytest.raises(Killed):
            conducted(tmp_path, listener, clock)
        assert RunFolder.at(tmp_path / "logs").state().next_round == 1
        result = conducted(tmp_path, listener, clock, resume=True)
    assert result.record.late == (LateUpdate(client_id=LATE, round=0),)
    fed = federation(CLIENTS, rounds=3, late_updates="next")
    alone = list(fed.run(START, LateClients({(0, LATE), (1, LATE)})))
    assert result.state.adapter.to_bytes() == alone[1].state.adapter.to_bytes()
    assert isinstance(result.state.adapter, Adapter)


def test_a_kept_late_update_is_signed_for_the_round_that_it_was_trained_for_also_when_its_key_is_revoked_later(
    tmp_path, clock, keys
):
    held_in(tmp_path / "hold", 0, 1)
    (tmp_path / "exchange").mkdir()
    learner, listener = HeldLearner(hold=tmp_path / "hold"), KillsOnce(LATE, 9)
    listener.at = None
    with client_threads(tmp_path / "exchange", dict.fromkeys(range(CLIENTS), learner), keys):
        conducted(tmp_path, listener, clock, keys=server_keys(keys))
    kept = kept_round(LogPaths(tmp_path / "logs"), 1)
    assert [each.trained_for for each in kept.inputs.updates] == [None, None, 0, None]
    assert signed_words(kept, server_keys(keys).public) == f"; signed by its {CLIENTS} clients"
    revoke_keys(keys, {LATE})
    assert signed_words(kept, server_keys(keys).public) == f"; signed by its {CLIENTS} clients"
    updates = [each.model_copy(update={"trained_for": None}) for each in kept.inputs.updates]
    claimed = dataclasses.replace(kept, inputs=kept.inputs.model_copy(update={"updates": tuple(updates)}))
    with pytest.raises(FederationError, match=f"client {LATE} has not signed the update that was kept of it"):
        signed_words(claimed, server_keys(keys).public)
