"""What the exchange directory must survive: late and dead clients, restarts, other runs, full disks."""

import json
import threading
import time

import pytest

from fccl.errors import FederationError, StorageError
from fccl.messages import ClientFailure, ClientUpdate
from fccl.storage.files import write_text
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.testing.transport import task
from fccl.transports.exchange import watch as watch_module
from fccl.transports.exchange.answers import AnswerReader
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.received import FitAnswers
from fccl.transports.exchange.wire import TaskFile
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.exchange_tools import clients, finish, fit, until

# --- late, dead, never there


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
    fed, uphold = federation(2, rounds=1, min_clients=2), FitAnswers.uphold
    received = paths.root.parent / "received"

    def waiting_in_vain(source):
        uphold(source)
        clock.ahead += 90.0 if any(received.glob("client_0_*")) else 0.0

    monkeypatch.setattr(FitAnswers, "uphold", waiting_in_vain)
    with transport(quorum=2, retries=1, timeout_s=90.0) as exchange, clients(paths, {0: ToyLearner()}):
        with pytest.raises(FederationError, match="round 1 has 1 good update, MIN_CLIENTS is 2"):
            fed.run_round(START, exchange)
        finish(exchange)


# --- restarts


def test_a_restarted_orchestrator_computes_nothing_twice(paths, transport):
    """It was killed after the clients had answered: the answers that are there count, and give the same bytes."""
    fed = federation(3, rounds=2)
    whole = list(fed.run(START, InProcessTransport(ToyLearner(), shard)))
    with clients(paths, {number: ToyLearner() for number in range(3)}) as started:
        state = START
        for number in range(4):
            with transport() as exchange:
                lost = fed.run_round(state, exchange)  # and nothing of it was committed
            opened = paths.phase(number).stat().st_mtime_ns
            with transport() as exchange:
                state = fed.run_round(state, exchange).state
            assert state.adapter.sha256 == lost.record.adapter_sha256
            assert paths.phase(number).stat().st_mtime_ns == opened, "a round that is open is not opened again"
        with transport() as exchange:
            exchange.finish("run", 4, state.adapter)
    assert state.adapter.to_bytes() == whole[-1].state.adapter.to_bytes()
    for number, client in enumerate(started):
        assert client.learner.calls == [(round_number, number) for round_number in range(4)]


def test_a_restarted_client_does_not_repeat_what_it_has_committed(paths, transport):
    with transport(timeout_s=60.0) as exchange:
        with clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
            fit(exchange)
            exchange.finish("run", 1, adapter())
        again = ToyLearner()
        exchange.rounds_of("run").take_back(1, 0)
        paths.phase(1).unlink()
        with clients(paths, {0: again}), clients(paths, {1: ToyLearner()}):
            fit(exchange)
            exchange.finish("run", 1, adapter())
        assert again.calls == []


def test_an_answer_that_was_cleared_away_with_its_round_is_not_computed_again(paths, transport):
    """The run may end between the client's look at the round and its look at its own answer."""

    class LooksLate(ExchangeClient):
        def is_answered(self, task):
            exchange.finish("run", 1, adapter())
            return super().is_answered(task)

    again = LooksLate(paths, 0, ToyLearner(), shard, grace_s=0.0)
    with transport(keep_rounds=0) as exchange:
        opened = exchange.open(task(), (0,))
        ExchangeClient(paths, 0, ToyLearner(), shard).commit(opened, ToyLearner().fit(task(), shard(0), print))
        again.run()
    assert again.learner.calls == []


@pytest.mark.parametrize("lost", ["phase", "task", "global_adapter", "update", "contribution", "flag"])
def test_whatever_file_a_crash_has_lost_the_round_comes_out_the_same(paths, transport, lost):
    fed = federation(2, rounds=1)
    with transport(timeout_s=60.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        first = fed.run_round(START, exchange).record
        number = (0,) if lost in ("phase", "task", "global_adapter") else (1, 0)
        getattr(paths, lost)(*number).unlink()
        if lost == "update":
            paths.flag(1, 0).unlink()  # the flag is written last, so it is lost with whatever was written before it
        if lost == "contribution":
            paths.flag(1, 0).unlink()
        again = fed.run_round(START, exchange).record
        finish(exchange)
    assert again.adapter_sha256 == first.adapter_sha256
    assert again.excluded == ()


def test_two_orchestrators_cannot_hold_one_directory(paths, transport):
    with (
        transport(),
        pytest.raises(FederationError, match=r"another orchestrator is at work on .* already \(process"),
        transport(),
    ):
        pass
    with transport():  # the first has let it go
        pass


def test_a_client_runs_once(paths, transport):
    with transport() as exchange, clients(paths, {0: ToyLearner()}):
        fit(exchange, (0,))
        with pytest.raises(FederationError, match="client 0 is at work"):
            ExchangeClient(paths, 0, ToyLearner(), shard).run()
        finish(exchange)


def test_a_transport_that_is_not_entered_says_so(transport):
    with pytest.raises(FederationError, match="not held"):
        list(transport().ask(task(), (0,)))


# --- other runs, other rounds


def test_a_new_run_clears_the_old_one_away(paths, transport):
    with transport() as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        fit(exchange)
        finish(exchange)
    (paths.root / "mine.txt").write_text("not the protocol's")
    fed = federation(2, rounds=1)
    object.__setattr__(fed, "run_id", "another")
    with transport(timeout_s=60.0) as exchange:
        running = threading.Thread(target=lambda: results.append(fed.run_round(START, exchange)))
        results = []
        running.start()
        with client_threads(paths.root, {0: ToyLearner(), 1: ToyLearner()}, grace_s=10.0):
            running.join()
            assert TaskFile.model_validate_json(paths.task(0).read_text()).run_id == "another"
            assert not paths.phase(1).exists()
            exchange.finish("another", 1, adapter())
    assert results[0].record.excluded == ()
    assert (paths.root / "mine.txt").exists()


def test_a_client_that_starts_after_the_end_ends_when_no_new_run_begins(paths, transport):
    with transport() as exchange:
        finish(exchange)
    learner = ToyLearner()
    ExchangeClient(paths, 0, learner, shard, grace_s=0.5).run()
    assert learner.calls == []


def test_a_new_run_takes_the_old_end_away_before_it_is_ready(paths, transport):
    """A client without any patience, started while the server is still loading its model, takes part in the new run."""
    with transport() as exchange:
        finish(exchange)
    with transport(timeout_s=60.0) as exchange:
        exchange.begin(RunIdentity("next"))
        with clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
            time.sleep(1.0)  # time enough to leave
            found = fit(exchange)
            finish(exchange)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())


def test_old_rounds_are_pruned_and_the_current_one_never(paths, transport):
    fed = federation(2, rounds=3)
    with transport(keep_rounds=1, timeout_s=60.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        for result in fed.run(START, exchange):
            number = result.record.round
            rounds = {
                name.round
                for path in paths.root.iterdir()
                if (name := paths.name(path.name)) and name.round is not None
            }
            assert rounds == set(range(max(0, number - 1), number + 1))
            assert len(list(paths.root.glob("reference_*.safetensors"))) == (number >= 3)
        exchange.finish("run", 6, result.state.adapter)


def test_rounds_after_the_current_one_are_cleared_away(paths, transport):
    """A server that was restored from an older state opens its round again, and clients see that one as the newest."""
    with transport(timeout_s=60.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        for number in (0, 1, 2, 1):
            assert all(isinstance(answer, ClientUpdate) for answer in fit(exchange, number=number).values())
            assert not paths.phase(number + 1).exists()
        finish(exchange)


# --- the disk


def test_a_full_disk_is_one_error_and_the_round_comes_out_the_same_afterwards(paths, transport, monkeypatch, tmp_path):
    """The disk refuses the n-th write of the server, for every n; then it has room again and the run goes on."""
    fed = federation(2, rounds=1)
    expected = [result.record.adapter_sha256 for result in fed.run(START, InProcessTransport(ToyLearner(), shard))]
    real = Quarantine.write
    for n in range(5):
        for path in paths.root.glob("*") if paths.root.exists() else ():
            path.is_file() and path.unlink()
        left = [n]

        def failing(folder, path, *arguments, left=left, **more):
            left[0] -= threading.current_thread() is threading.main_thread()
            if left[0] < 0 and threading.current_thread() is threading.main_thread():
                raise StorageError(f"cannot write {path}: the disk is full")
            real(folder, path, *arguments, **more)

        with clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
            monkeypatch.setattr(Quarantine, "write", failing)
            state = START
            try:
                with transport(timeout_s=60.0) as exchange:
                    for result in fed.run(state, exchange):
                        state = result.state
            except StorageError:
                pass
            monkeypatch.setattr(Quarantine, "write", real)
            with transport(timeout_s=60.0) as exchange:
                for result in fed.run(state, exchange):
                    state = result.state
                assert state.adapter.sha256 == expected[-1]
                exchange.finish("run", 2, state.adapter)


def test_a_client_whose_disk_is_full_ends_with_that_error(paths, transport, monkeypatch):
    with transport() as exchange:
        exchange.open(task(), (0,))

        def full(*arguments):
            raise StorageError("the disk is full")

        class Fills(ToyLearner):
            def fit(self, task, shard, on_status):
                monkeypatch.setattr(Quarantine, "write", full)
                time.sleep(0.3)  # the beating thread finds out
                return super().fit(task, shard, on_status)

        with pytest.raises(StorageError, match="disk is full"):
            ExchangeClient(paths, 0, Fills(), shard, heartbeat_s=0.1).run()
        assert not paths.flag(0, 0).exists()


# --- waiting


def test_a_lost_notification_hangs_nothing(paths, transport, monkeypatch):
    """No change is ever notified: server and clients look by themselves now and then."""
    monkeypatch.setattr(watch_module.Notified, "on_any_event", lambda self, event: None)
    monkeypatch.setattr(watch_module, "RESCAN_S", 0.02)
    fed = federation(2, rounds=1)
    with (
        transport(watch="notify", timeout_s=60.0) as exchange,
        clients(paths, {0: ToyLearner(), 1: ToyLearner()}, watch="notify"),
    ):
        results = list(fed.run(START, exchange))
        exchange.finish("run", 2, results[-1].state.adapter)
    assert [result.record.excluded for result in results] == [(), ()]
