"""Clients that are late or dead, fail or never come, and the rounds that wait for them."""

import json
import threading

import pytest

from fccl.errors import FederationError
from fccl.messages import ClientFailure, ClientUpdate
from fccl.storage.files import write_text
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.testing.transport import task
from fccl.transports.exchange.answers import AnswerReader
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.received import FitAnswers
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange_tools import clients, finish, fit, until


def test_a_client_that_never_comes_is_given_up_at_the_deadline(paths, transport, clock):
    with transport(timeout_s=90.0) as exchange, clients(paths, {0: ToyLearner()}):
        answers = exchange.ask(task(), (0, 1))
        assert isinstance(next(answers), ClientUpdate)
        clock.ahead = 90.0
        assert list(answers) == [ClientFailure(1, "no answer within 90 s; it was never seen")]
        finish(exchange)


def test_a_client_that_died_is_given_up_before_the_deadline(paths, transport, clock):
    dead = {"client_id": 1, "state": "training", "run_id": "run", "round": 0, "phase": "sft", "step": 3, "steps": 9}
    with transport(timeout_s=600.0, stale_s=90.0) as exchange, clients(paths, {0: ToyLearner()}):
        exchange.begin(RunIdentity("run"))
        write_text(paths.status(1), json.dumps(dead))  # one beat, and no other
        answers = exchange.ask(task(), (1, 0))
        assert isinstance(next(answers), ClientUpdate)
        clock.ahead = 91.0
        reason = "no heartbeat for 90 s; it was last seen training round 0 step 3 of 9"
        assert list(answers) == [ClientFailure(1, reason)]
        finish(exchange)


def test_a_slow_client_that_lives_has_until_the_deadline(paths, transport, clock):
    """Its heartbeat goes on while it trains, so it is not taken for dead."""
    heard = threading.Event()

    class Lasting(ToyLearner):
        def fit(self, task, shard, on_status):
            update = super().fit(task, shard, on_status)
            for _ in range(5):
                heard.clear()
                assert heard.wait(60)
                clock.ahead += 30.0
            return update

    with (
        transport(timeout_s=600.0, stale_s=90.0) as exchange,
        clients(paths, {1: Lasting()}, heartbeat_s=0.05),
    ):
        exchange.begin(RunIdentity("run"), Listener(heartbeat=lambda status: heard.set()))
        found = fit(exchange, (1,))
        finish(exchange)
    assert isinstance(found[1], ClientUpdate)
    assert clock.ahead == 150.0


def test_a_client_that_is_late_joins_the_next_round(paths, transport, clock):
    class Late(ToyLearner):
        def fit(self, task, shard, on_status):
            until(paths.phase(1).exists)
            return super().fit(task, shard, on_status)

    with transport(timeout_s=90.0) as exchange, clients(paths, {0: ToyLearner(), 1: Late()}) as (_, late):
        told = []
        late.listen = Listener(line=told.append)
        answers = exchange.ask(task(), (0, 1))
        assert isinstance(next(answers), ClientUpdate)
        until(lambda: "round 1 (sft): training" in told)
        clock.ahead = 90.0
        assert isinstance(next(answers), ClientFailure)
        assert isinstance(fit(exchange, number=1)[1], ClientUpdate)
        finish(exchange)
    assert any("too late" in line for line in told)


def test_a_client_that_returns_joins_the_current_round(paths, transport, clock):
    """It is given up as dead, and comes back while the round waits for another."""
    told, dead = [], {"client_id": 0, "state": "idle", "run_id": "run", "round": 0, "phase": "sft"}

    class AfterTheOther(ToyLearner):
        def fit(self, task, shard, on_status):
            until(paths.flag(0, 0).exists)
            return super().fit(task, shard, on_status)

    threads = [
        threading.Thread(target=ExchangeClient(paths, number, learner, shard, grace_s=0.0, heartbeat_s=0.2).run)
        for number, learner in enumerate((ToyLearner(), AfterTheOther()))
    ]

    def hear(line):
        if not told:
            for thread in threads:
                thread.start()
        told.append(line)

    def pass_by(status):
        clock.ahead += 0.0 if told else 91.0

    with transport(timeout_s=600.0, stale_s=90.0) as exchange:
        exchange.begin(RunIdentity("run"), Listener(line=hear, heartbeat=pass_by))
        write_text(paths.status(0), json.dumps(dead))
        found = fit(exchange)
        finish(exchange)
        for thread in threads:
            thread.join()
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert told[0] == "client 0: no heartbeat for 90 s; it was last seen idle"


def test_below_the_quorum_the_round_is_tried_again(paths, transport):
    """A client whose training fails at first is asked a second time."""

    class FailsOnce(ToyLearner):
        def fit(self, task, shard, on_status):
            self.broken = frozenset({1} if not self.calls else ())
            return super().fit(task, shard, on_status)

    told = []
    with transport(quorum=2, retries=2) as exchange, clients(paths, {0: ToyLearner(), 1: FailsOnce()}) as (first, _):
        exchange.begin(RunIdentity("run"), Listener(line=told.append))
        found = fit(exchange)
        finish(exchange)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert told == ["round 1 has 1 good update, MIN_CLIENTS is 2; trying again (1 of 2)"]
    assert first.learner.calls == [(0, 0)], "who has answered is not asked again"


def test_a_client_that_failed_and_is_started_again_may_still_answer(paths, transport, monkeypatch):
    """While the round waits for another."""
    seen, read = threading.Event(), AnswerReader.read

    def reading(reader, number):
        answer = read(reader, number)
        seen.set()
        return answer

    class AfterTheOther(ToyLearner):
        def fit(self, task, shard, on_status):
            assert seen.wait(60), "the server has read the failure"
            thread.start()
            until(lambda: back.is_answered(opened))
            return super().fit(task, shard, on_status)

    monkeypatch.setattr(AnswerReader, "read", reading)
    with transport() as exchange:
        failing = ExchangeClient(paths, 0, ToyLearner(broken=frozenset({0})), shard)
        opened = exchange.open(task(), (0, 1))
        failing.commit(opened, ClientFailure(0, "no memory"))
        back = ExchangeClient(paths, 0, ToyLearner(), shard, grace_s=0.0)
        thread = threading.Thread(target=back.run)
        with clients(paths, {1: AfterTheOther()}):
            found = fit(exchange)
            finish(exchange)
        thread.join()
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())


def test_below_the_quorum_for_good_the_run_ends_resumable(paths, transport, clock, monkeypatch):
    """Each attempt ends at its deadline, which is over when the server has read what there is."""
    fed, uphold, read, heard = federation(2, rounds=1, min_clients=2), FitAnswers.uphold, FitAnswers.read, []

    def reading(source, client_id):
        heard.append(client_id)
        return read(source, client_id)

    def waiting_in_vain(source):
        uphold(source)
        clock.ahead += 90.0 if heard else 0.0

    monkeypatch.setattr(FitAnswers, "read", reading)
    monkeypatch.setattr(FitAnswers, "uphold", waiting_in_vain)
    with transport(quorum=2, retries=1, timeout_s=90.0) as exchange, clients(paths, {0: ToyLearner()}):
        with pytest.raises(FederationError, match="round 1 has 1 good update, MIN_CLIENTS is 2"):
            fed.run_round(START, exchange)
        finish(exchange)
