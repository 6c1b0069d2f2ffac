"""What the exchange directory must survive: late, dead and lying clients, restarts, other runs, peers of the original protocol."""

import hashlib
import io
import json
import os
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from fccl.errors import AdapterError, FederationError, StorageError
from fccl.exchange import heart as heart_module
from fccl.exchange import watch as watch_module
from fccl.exchange.client import ExchangeClient
from fccl.exchange.rejected import Rejection
from fccl.exchange.wire import TaskFile
from fccl.files import write_text
from fccl.keys import client_keys, create_keys, server_keys
from fccl.messages import ClientFailure, ClientUpdate
from fccl.paths import ExchangePaths, KeyPaths
from fccl.transports.exchange import ExchangeTransport
from fccl.transports.in_process import InProcessTransport
from tests.processes import exchange_spec
from tests.toy import START, ToyLearner, adapter, federation, shard
from tests.transports.contract import task
from tests.transports.test_exchange_contract import client_threads


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path / "exchange")


@pytest.fixture
def transport(paths, tmp_path):
    """Not entered; the tests give it a spec."""

    def made(keys=None, **spec):
        return ExchangeTransport(paths, exchange_spec(4, **({"timeout_s": 5.0} | spec)), tmp_path / "received", keys)

    return made


def fit(transport, asked=(0, 1), number=0):
    return {answer.client_id: answer for answer in transport.fit(task(number), asked)}


def until(happened, seconds=10):
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)


class Slow(ToyLearner):
    """Client 1 takes its time."""

    seconds = 0.0

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        time.sleep(self.seconds if shard.client_id == 1 else 0)
        return update


def slow(seconds):
    learner = Slow()
    learner.seconds = seconds
    return learner


@contextmanager
def clients(paths, learners, **changes):
    with client_threads(paths.root, learners, grace_s=0.0, **changes) as started:
        yield started


def finish(transport):
    transport.finish("run", 99, adapter())


# --- late, dead, never there


def test_a_client_that_never_comes_is_given_up_at_the_deadline(paths, transport):
    with transport(timeout_s=4.0) as exchange, clients(paths, {0: ToyLearner()}):
        found = fit(exchange)
        finish(exchange)
    assert isinstance(found[0], ClientUpdate)
    assert found[1] == ClientFailure(1, "no answer within 4 s; it was never seen")


def test_a_client_that_died_is_given_up_before_the_deadline(paths, transport):
    started = time.monotonic()
    with transport(timeout_s=60.0, stale_s=0.5) as exchange, clients(paths, {0: ToyLearner()}):
        dead = {"client_id": 1, "state": "training", "run_id": "run", "round": 0, "phase": "sft", "step": 3, "steps": 9}
        opened = threading.Timer(0.3, write_text, (paths.status(1), json.dumps(dead)))  # one beat, and no other
        opened.start()
        found = fit(exchange)
        finish(exchange)
    assert found[1].reason == "no heartbeat for 0.5 s; it was last seen training round 0 step 3 of 9"
    assert time.monotonic() - started < 30


def test_a_slow_client_that_lives_has_until_the_deadline(paths, transport):
    """Its heartbeat goes on while it trains, so it is not taken for dead."""
    with transport(timeout_s=30.0, stale_s=4.0) as exchange, clients(paths, {0: ToyLearner(), 1: slow(7.0)}):
        found = fit(exchange)
        finish(exchange)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())


def test_a_client_that_is_late_joins_the_next_round(paths, transport):
    with transport(timeout_s=1.0) as exchange, clients(paths, {0: ToyLearner(), 1: slow(1.5)}) as (_, late):
        told = []
        late.tell = told.append
        assert isinstance(fit(exchange)[1], ClientFailure)
        late.learner.seconds = 0.0
        exchange._spec = exchange._spec.model_copy(update={"timeout_s": 20.0})
        assert isinstance(fit(exchange, number=1)[1], ClientUpdate)
        finish(exchange)
    assert any("too late" in line for line in told)


def test_a_client_that_returns_joins_the_current_round(paths, transport):
    """It is given up as dead, and comes back while the round waits for another."""
    told = []
    with transport(timeout_s=60.0, stale_s=3.0) as exchange:
        exchange.tell = told.append
        dead = {"client_id": 0, "state": "idle", "run_id": "run", "round": 0, "phase": "sft"}
        threading.Timer(0.1, write_text, (paths.status(0), json.dumps(dead))).start()
        back = ExchangeClient(paths, 0, ToyLearner(), shard, grace_s=0.0, heartbeat_s=0.2)
        thread = threading.Timer(5.0, back.run)
        with clients(paths, {1: slow(10.0)}):
            thread.start()
            found = fit(exchange)
            finish(exchange)
        thread.join()
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert told[0] == "client 0: no heartbeat for 3 s; it was last seen idle"


def test_below_the_quorum_the_round_is_tried_again(paths, transport):
    """A client whose training fails at first is asked a second time."""

    class FailsOnce(ToyLearner):
        def fit(self, task, shard, on_status):
            self.broken = frozenset({1} if not self.calls else ())
            return super().fit(task, shard, on_status)

    told = []
    with transport(quorum=2, retries=2) as exchange, clients(paths, {0: ToyLearner(), 1: FailsOnce()}) as (first, _):
        exchange.tell = told.append
        found = fit(exchange)
        finish(exchange)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert told == ["round 0 has 1 good update, MIN_CLIENTS is 2; trying again (1 of 2)"]
    assert first.learner.calls == [(0, 0)], "who has answered is not asked again"


def test_a_client_that_failed_and_is_started_again_may_still_answer(paths, transport):
    """While the round waits for another."""
    with transport(timeout_s=60.0) as exchange:
        failing = ExchangeClient(paths, 0, ToyLearner(broken=frozenset({0})), shard)
        board = exchange._board("run")
        opened = board.open(0, "sft", task().adapter, exchange._work(board, task(), (0, 1)))
        failing._commit(opened, ClientFailure(0, "no memory"))
        back = ExchangeClient(paths, 0, ToyLearner(), shard, grace_s=0.0)
        thread = threading.Timer(0.4, back.run)
        with clients(paths, {1: slow(1.5)}):
            thread.start()
            found = fit(exchange)
            finish(exchange)
        thread.join()
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())


def test_below_the_quorum_for_good_the_run_ends_resumable(paths, transport):
    fed = federation(2, rounds=1, min_clients=2)
    with transport(quorum=2, retries=1, timeout_s=3.0) as exchange, clients(paths, {0: ToyLearner()}):
        with pytest.raises(FederationError, match="round 0 has 1 good update, MIN_CLIENTS is 2"):
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
    with transport(timeout_s=20.0) as exchange:
        with clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
            fit(exchange)
            exchange.finish("run", 1, adapter())
        again = ToyLearner()
        exchange._board("run").take_back(1, 0)
        paths.phase(1).unlink()
        with clients(paths, {0: again}), clients(paths, {1: ToyLearner()}):
            fit(exchange)
            finish(exchange)
        assert again.calls == []


@pytest.mark.parametrize("lost", ["phase", "task", "global_adapter", "update", "contribution", "flag"])
def test_whatever_file_a_crash_has_lost_the_round_comes_out_the_same(paths, transport, lost):
    fed = federation(2, rounds=1)
    with transport(timeout_s=20.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
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
    with transport(), pytest.raises(FederationError, match=r"another orchestrator is at work on .* already \(process"), transport():
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
        list(transport().fit(task(), (0,)))


# --- other runs, other rounds


def test_a_new_run_clears_the_old_one_away(paths, transport):
    with transport() as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        fit(exchange)
        finish(exchange)
    (paths.root / "mine.txt").write_text("not the protocol's")
    fed = federation(2, rounds=1)
    object.__setattr__(fed, "run_id", "another")
    with transport(timeout_s=20.0) as exchange:
        running = threading.Thread(target=lambda: results.append(fed.run_round(START, exchange)))
        results = []
        running.start()
        with client_threads(paths.root, {0: ToyLearner(), 1: ToyLearner()}, grace_s=10.0):
            running.join()
            assert TaskFile.model_validate_json(paths.task(0).read_text()).run_id == "another"
            assert not paths.phase(99).exists()
            exchange.finish("another", 1, adapter())
    assert results[0].record.excluded == ()
    assert (paths.root / "mine.txt").exists()


def test_a_client_that_starts_after_the_end_waits_for_a_new_run_and_then_ends(paths, transport):
    with transport() as exchange:
        finish(exchange)
    started = time.monotonic()
    ExchangeClient(paths, 0, ToyLearner(), shard, grace_s=0.5).run()
    assert 0.5 <= time.monotonic() - started < 10


def test_old_rounds_are_pruned_and_the_current_one_never(paths, transport):
    fed = federation(2, rounds=3)
    with transport(keep_rounds=1, timeout_s=20.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        for result in fed.run(START, exchange):
            number = result.record.round
            rounds = {name.round for path in paths.root.iterdir() if (name := paths.name(path.name)) and name.round is not None}
            assert rounds == set(range(max(0, number - 1), number + 1))
            assert len(list(paths.root.glob("reference_*.pt"))) == (number >= 3)
        exchange.finish("run", 6, result.state.adapter)


def test_rounds_after_the_current_one_are_cleared_away(paths, transport):
    """A server that was restored from an older state opens its round again, and clients see that one as the newest."""
    with transport(timeout_s=20.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        for number in (0, 1, 2, 1):
            assert all(isinstance(answer, ClientUpdate) for answer in fit(exchange, number=number).values())
            assert not paths.phase(number + 1).exists()
        finish(exchange)


# --- answers that are no good


def answered(paths, transport, spoil, asked=(0, 1), keys=None, **spec):
    """The answers to a round in which client 1's committed files are spoilt before the server looks."""
    told = []
    with transport(**({"timeout_s": 0.5} | spec)) as exchange:
        exchange.tell = told.append
        board = exchange._board("run")
        opened = board.open(0, "sft", task().adapter, exchange._work(board, task(), asked))
        learner = ToyLearner()
        for number in asked:
            client = ExchangeClient(paths, number, learner, shard, keys=keys)
            client._commit(opened, learner.fit(task(), shard(number), lambda status: None))
        spoil(paths, opened)
        found = fit(exchange, asked)
        reasons = [Rejection.model_validate_json(path.read_text()) for path in sorted(paths.rejected.glob("*_reason.json"))]
        assert reasons == exchange.rejected.rejections
    return found, reasons


def edit(changes, client_id=1):
    def spoil(paths, opened):
        path = paths.contribution(client_id, 0)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def replace(kind, content):
    def spoil(paths, opened):
        path = getattr(paths, kind)(1, 0)
        path.unlink()
        path.write_bytes(content)

    return spoil


def linked(kind):
    def spoil(paths, opened):
        path = getattr(paths, kind)(1, 0)
        outside = paths.root.parent / "outside"
        path.rename(outside)
        path.symlink_to(outside)

    return spoil


def pipe(paths, opened):
    paths.contribution(1, 0).unlink()
    os.mkfifo(paths.contribution(1, 0))


def folder(paths, opened):
    paths.update(1, 0).unlink()
    paths.update(1, 0).mkdir()


def huge(paths, opened):
    with open(paths.update(1, 0), "r+b") as file:
        file.truncate(10**9)


def with_nan():
    buffer = io.BytesIO()
    torch.save({"w": torch.tensor([0.0, float("nan"), 0.0])}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (replace("update", b""), "is not the file that its contribution speaks of"),
        (replace("contribution", b""), "is not JSON"),
        (replace("contribution", b"[1, 2]"), "is not a JSON object"),
        (replace("contribution", b"[" * 60_000), "is not JSON"),
        (replace("contribution", b"{" + b" " * 10**6 + b"}"), "bytes, at most 65,536"),
        (replace("contribution", b'{"avg_loss": "1.0", "num_samples": 2}'), "avg_loss: Input should be a valid number"),
        (replace("contribution", b'{"avg_loss": NaN, "num_samples": 2}'), "avg_loss: Input should be a finite number"),
        (replace("contribution", b'{"avg_loss": 1.0, "num_samples": true}'), "num_samples: Input should be a valid integer"),
        (replace("contribution", b'{"avg_loss": null, "num_samples": 2}'), "avg_loss"),
        (edit({"num_samples": 0}), "num_samples"),
        (edit({"avg_loss": -1.0}), "avg_loss"),
        (edit({"adapter_sha256": "../../x"}), "adapter_sha256"),
        (edit({"client_id": "../../x"}), "client_id"),
        (edit({"extra": 1}), "extra"),
        (linked("update"), "client_1_round_0.pt is a symbolic link"),
        (linked("contribution"), "contrib_client_1_round_0.json is a symbolic link"),
        (pipe, "is not a regular file"),
        (folder, "is a folder"),
        (huge, "client_1_round_0.pt has 1,000,000,000 bytes"),
    ],
)
def test_a_broken_answer_is_refused_with_its_reason_and_moved_and_the_other_counts(paths, transport, spoil, reason):
    found, rejections = answered(paths, transport, spoil)
    assert isinstance(found[0], ClientUpdate)
    assert reason in found[1].reason
    assert [(rejection.client_id, rejection.round, rejection.run_id) for rejection in rejections] == [(1, 0, "run")]
    assert reason in rejections[0].reason
    assert sorted(rejections[0].files) == sorted(path.name for path in paths.answer(1, 0))
    assert not any(os.path.lexists(path) for path in paths.answer(1, 0))
    assert sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir()) == sorted([*rejections[0].files, "reason.json"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (adapter(1.0).to_bytes(), "w has shape (1,), expected (3,)"),
        (with_nan(), "not finite"),
        (adapter().to_bytes()[:-40], "not a readable adapter file"),
        (b"not a zip", "is not an adapter file"),
    ],
)
def test_a_file_that_is_no_such_adapter_is_refused(paths, transport, content, reason):
    """Its hash is right: the client itself has sent it."""

    def spoil(paths, opened):
        replace("update", content)(paths, opened)
        edit({"adapter_sha256": hashlib.sha256(content).hexdigest()})(paths, opened)

    found, _ = answered(paths, transport, spoil)
    assert isinstance(found[0], ClientUpdate)
    assert reason in found[1].reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": "another"}, "the answer is of run_id 'another', asked was 'run'"),
        ({"round": 7}, "the answer is of round 7"),
        ({"phase": "va"}, "the answer is of phase 'va'"),
        ({"client_id": 0}, "the answer is of client_id 0"),
        ({"base_sha256": "0" * 64}, "began from another global adapter"),
    ],
)
def test_an_answer_to_something_else_counts_for_nothing_and_the_clients_own_may_still_come(paths, transport, changes, reason):
    with clients(paths, {1: ToyLearner()}):
        found, rejections = answered_and_finished(paths, transport, edit(changes))
    assert isinstance(found[1], ClientUpdate)
    assert reason in rejections[0].reason


def answered_and_finished(paths, transport, spoil):
    """As `answered`; the real client is there and answers when its flag is gone."""
    with transport(timeout_s=20.0) as exchange:
        board = exchange._board("run")
        opened = board.open(0, "sft", task().adapter, exchange._work(board, task(), (0,)))
        learner = ToyLearner()
        ExchangeClient(paths, 1, learner, shard)._commit(opened, learner.fit(task(), shard(1), lambda status: None))
        spoil(paths, opened)
        found = fit(exchange, (1,))
        finish(exchange)
        return found, exchange.rejected.rejections


def test_files_with_names_of_no_client_are_moved_away(paths, transport):
    strangers = ["client_.._.._x_round_0.pt", "client_01_round_0.pt", "done_-1_0.flag", "contrib_client_1_round_0.json.bak", "client_7_round_0.pt"]

    def spoil(paths, opened):
        for name in strangers:
            (paths.root / name).write_text("x")
        os.makedirs(paths.root / "client_.." / "x")

    found, rejections = answered(paths, transport, spoil)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert sorted(name for rejection in rejections for name in rejection.files) == sorted([*strangers, "client_.."])


def test_an_update_cannot_be_changed_after_it_was_checked(paths, transport):
    with transport() as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        found = fit(exchange)
        expected = found[1].adapter.load().sha256
        adapter(9.0, 9.0, 9.0).save(paths.update(1, 0))
        assert found[1].adapter.load().sha256 == expected
        found[1].adapter.path.write_bytes(adapter(9.0, 9.0, 9.0).to_bytes())
        with pytest.raises(AdapterError, match="was changed after it was checked"):
            found[1].adapter.load()
        finish(exchange)


# --- peers that know only the original files


def original_peer(paths, client_id, number, wait=True, **contribution):
    """Waits for the phase file, reads the global adapter, writes an update, a contribution and a flag, each straight into its place."""
    while wait and not paths.phase(number).exists():
        time.sleep(0.01)
    state = torch.load(paths.global_adapter(number), weights_only=True) if wait else {"w": torch.zeros(3)}
    said = {"client": client_id, "round": number, "phase": "sft", "avg_loss": 2.5, "num_samples": 3, "ts": time.time()} | contribution
    paths.contribution(client_id, number).write_text(json.dumps(said))
    torch.save({name: tensor + 1 for name, tensor in state.items()}, paths.update(client_id, number))
    paths.flag(client_id, number).write_text("")


def test_a_peer_of_the_original_protocol_takes_part(paths, transport):
    with transport(timeout_s=20.0) as exchange, clients(paths, {0: ToyLearner()}):
        peer = threading.Thread(target=original_peer, args=(paths, 1, 0), kwargs={"training_time": 1.5})
        peer.start()
        update = fit(exchange)[1]
        peer.join()
        assert update.adapter.load().sha256 == adapter(2.0, 3.0, 4.0).sha256
        finish(exchange)
    assert (update.contribution.avg_loss, update.contribution.num_samples, update.contribution.seconds) == (2.5, 3, 1.5)


def test_its_training_time_is_taken_from_its_files_when_it_does_not_say(paths, transport):
    with transport(timeout_s=20.0) as exchange:
        peer = threading.Thread(target=original_peer, args=(paths, 1, 0))
        peer.start()
        seconds = fit(exchange, (1,))[1].contribution.seconds
        peer.join()
    assert 0 <= seconds < 10


def test_its_files_from_before_the_round_count_for_nothing(paths, transport):
    with transport(timeout_s=0.4) as exchange:
        original_peer(paths, 1, 0, wait=False)
        long_ago = time.time() - 3600
        for path in paths.answer(1, 0):
            os.utime(path, (long_ago, long_ago))
        exchange._board("run")  # clears what other runs have left
        original_peer(paths, 1, 0, wait=False)
        for path in paths.answer(1, 0):
            os.utime(path, (long_ago, long_ago))
        found = fit(exchange, (1,))
    assert found[1].reason.endswith("refused: the answer is older than the round")


@pytest.mark.parametrize("contribution", [{"client": 0}, {"round": 3}, {"phase": "va"}])
def test_it_may_not_contradict_its_file_names(paths, transport, contribution):
    with transport(timeout_s=0.4) as exchange:
        peer = threading.Thread(target=original_peer, args=(paths, 1, 0), kwargs=contribution)
        peer.start()
        assert "the answer is of" in fit(exchange, (1,))[1].reason
        peer.join()


# --- who may speak


@pytest.fixture
def keys(tmp_path):
    folder = KeyPaths(tmp_path / "keys")
    create_keys(folder, 4)
    return folder


def signed_answer(paths, transport, keys, spoil):
    return answered(paths, lambda **spec: transport(server_keys(keys), **spec), spoil, keys=client_keys(keys, 1), asked=(1,))


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
        (replace("contribution", b'{"avg_loss": 1.0, "num_samples": 2}'), "has not signed it, and keys are configured"),
        (replace("update", adapter(7.0, 7.0, 7.0).to_bytes()), "is not the file that its contribution speaks of"),
    ],
)
def test_with_keys_nothing_counts_that_the_client_has_not_signed(paths, transport, keys, spoil, reason):
    found, rejections = signed_answer(paths, transport, keys, spoil)
    assert isinstance(found[1], ClientFailure)
    assert reason in rejections[0].reason


def test_another_clients_signature_is_refused(paths, transport, keys):
    found, rejections = answered(
        paths, lambda **spec: transport(server_keys(keys), **spec), lambda paths, opened: None, keys=client_keys(keys, 2), asked=(1,)
    )
    assert "the signature is not client 1's" in found[1].reason
    assert len(rejections) == 1


def test_a_replayed_answer_of_another_round_is_refused(paths, transport, keys):
    """The files of round 0, signed and all, under the names of round 1."""
    signed = server_keys(keys)
    with transport(signed, timeout_s=1.5, keep_rounds=5) as exchange, client_threads(paths.root, {1: ToyLearner()}, keys):
        fit(exchange, (1,))
        exchange.finish("run", 1, adapter())
    with transport(signed, timeout_s=0.5, keep_rounds=5) as exchange:
        board = exchange._board("run")
        board.open(1, "sft", task(1).adapter, exchange._work(board, task(1), (1,)))
        for old, new in zip(reversed(paths.answer(1, 0)), reversed(paths.answer(1, 1)), strict=True):
            new.write_bytes(old.read_bytes())
        found = fit(exchange, (1,), number=1)
    assert "the answer is of round 0, asked was 1" in found[1].reason


@pytest.mark.parametrize("signer", [None, 2])
def test_a_client_with_keys_believes_only_its_server(paths, transport, keys, signer):
    told, learner = [], ToyLearner()
    client = ExchangeClient(paths, 1, learner, shard, client_keys(keys, 1), grace_s=0.0, tell=told.append)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    with transport(None if signer is None else client_keys(keys, signer), timeout_s=0.4) as exchange:
        assert isinstance(fit(exchange, (1,))[1], ClientFailure)
        finish(exchange)
    until(lambda: len(told) == 2)
    assert thread.is_alive(), "not even the end is believed"
    assert learner.calls == []
    assert told == [f"round {number} is not believed: the server has not signed it" for number in (1, 100)]
    with transport(server_keys(keys)) as exchange:
        finish(exchange)
    thread.join(10)
    assert not thread.is_alive()


def test_a_task_that_was_changed_is_not_believed(paths, transport, keys):
    told = []

    def newest():
        nonlocal client
        client = ExchangeClient(paths, 1, ToyLearner(), shard, client_keys(keys, 1), tell=told.append)
        return client._newest()

    client = None
    with transport(server_keys(keys)) as exchange:
        board = exchange._board("run")
        board.open(0, "sft", task().adapter, exchange._work(board, task(), (1,)))
        assert newest().round == 0
        for changes in ({"adapter_sha256": "0" * 64}, {"run_id": "another"}, {"phase": "done", "work": None}):
            text = paths.task(0).read_text()
            paths.task(0).write_text(json.dumps(json.loads(text) | changes))
            assert newest() is None
            paths.task(0).write_text(text)
        paths.phase(0).write_text("done")
        assert newest() is None
        paths.phase(0).write_text("sft")
        adapter(8.0, 8.0, 8.0).save(paths.global_adapter(0))
        opened = newest()
        client._answer(opened, opened.work, None)
    assert told[-1] == "round 1 cannot be begun: global_round_0.pt is not the file that the task speaks of"
    assert not paths.flag(1, 0).exists()


def test_a_run_that_was_left_does_not_come_back(paths, transport):
    client = ExchangeClient(paths, 0, ToyLearner(), shard)
    with transport() as exchange:
        for run_id in ("first", "second"):
            exchange._board(run_id).open(0, "sft", task().adapter, exchange._work(exchange._board(run_id), task(), (0,)))
            client._remember(client._newest().run_id)
        exchange.finish("first", 9, adapter())
        assert client._newest() is None


# --- the disk


def test_a_full_disk_is_one_error_and_the_round_comes_out_the_same_afterwards(paths, transport, monkeypatch, tmp_path):
    """The disk refuses the n-th write of the server, for every n; then it has room again and the run goes on."""
    from fccl.exchange import board as board_module

    fed = federation(2, rounds=1)
    expected = [result.record.adapter_sha256 for result in fed.run(START, InProcessTransport(ToyLearner(), shard))]
    real = board_module.write_bytes
    for n in range(5):
        for path in paths.root.glob("*") if paths.root.exists() else ():
            path.is_file() and path.unlink()
        left = [n]

        def failing(path, content, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise StorageError(f"cannot write {path}: the disk is full")
            real(path, content)

        with clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
            monkeypatch.setattr(board_module, "write_bytes", failing)
            state = START
            try:
                with transport(timeout_s=20.0) as exchange:
                    for result in fed.run(state, exchange):
                        state = result.state
            except StorageError:
                pass
            monkeypatch.setattr(board_module, "write_bytes", real)
            with transport(timeout_s=20.0) as exchange:
                for result in fed.run(state, exchange):
                    state = result.state
                assert state.adapter.sha256 == expected[-1]
                exchange.finish("run", 2, state.adapter)


def test_a_client_whose_disk_is_full_ends_with_that_error(paths, transport, monkeypatch):
    with transport() as exchange:
        board = exchange._board("run")
        board.open(0, "sft", task().adapter, exchange._work(board, task(), (0,)))
        (paths.root / "status_0.json").mkdir()
        with pytest.raises(StorageError, match=r"status_0\.json"):
            ExchangeClient(paths, 0, ToyLearner(), shard).run()
        (paths.root / "status_0.json").rmdir()

        def full(path, text):
            raise StorageError("the disk is full")

        class Fills(ToyLearner):
            def fit(self, task, shard, on_status):
                monkeypatch.setattr(heart_module, "write_text", full)
                time.sleep(0.3)  # the beating thread finds out
                return super().fit(task, shard, on_status)

        with pytest.raises(StorageError, match="disk is full"):
            ExchangeClient(paths, 0, Fills(), shard, heartbeat_s=0.1).run()
        assert not paths.flag(0, 0).exists()


# --- waiting


def test_a_lost_notification_hangs_nothing(paths, transport, monkeypatch):
    """No change is ever notified; whoever waits looks for itself now and then."""
    monkeypatch.setattr(watch_module.Notified, "_look", lambda self, every_ms, timeout_s: time.sleep(min(timeout_s, 0.02)))
    fed = federation(2, rounds=1)
    with transport(watch="notify", timeout_s=20.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}, watch="notify"):
        results = list(fed.run(START, exchange))
        exchange.finish("run", 2, results[-1].state.adapter)
    assert [result.record.excluded for result in results] == [(), ()]
