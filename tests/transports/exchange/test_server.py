"""What the exchange directory must survive: restarts, other runs, full disks."""

import threading
import time

import pytest

from fccl.errors import FederationError, StorageError
from fccl.messages import ClientUpdate
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.testing.transport import task
from fccl.transports.exchange import watch as watch_module
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.wire import TaskFile
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import RunIdentity
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.exchange_tools import clients, finish, fit

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
