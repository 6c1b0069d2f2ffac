"""Answers that are no good, and answers of peers that know only the original files."""

import dataclasses
import hashlib
import json
import os
import threading
import time

import pytest
import torch

from fccl.errors import AdapterError
from fccl.exchange.client import ExchangeClient
from fccl.exchange.rejected import RejectedFolder
from fccl.messages import ClientUpdate
from tests.toy import ToyLearner, adapter, shard
from tests.transports.contract import task
from tests.transports.exchange_tools import answered, clients, edit, finish, fit, folder, huge, linked, pipe, replace, with_nan


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


def spoilt_control(content):
    """Its hash is right."""

    def spoil(paths, opened):
        replace("control", content)(paths, opened)
        edit({"control_sha256": hashlib.sha256(content).hexdigest()})(paths, opened)

    return spoil


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


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (edit({"control_sha256": None}), "the answer has no control variate, which AGGREGATION=scaffold needs"),
        (edit({"control_sha256": "0" * 64}), "control_client_1_round_0.pt is not the file that its contribution speaks of"),
        (replace("control", b""), "control_client_1_round_0.pt is not the file that its contribution speaks of"),
        (lambda paths, opened: paths.control(1, 0).unlink(), "control_client_1_round_0.pt is missing"),
        (spoilt_control(with_nan()), "not finite"),
        (spoilt_control(adapter(1.0).to_bytes()), "w has shape (1,), expected (3,)"),
        (spoilt_control(b"not a zip"), "is not an adapter file"),
    ],
)
def test_a_control_variate_that_is_no_good_is_refused_with_the_update(paths, transport, spoil, reason):
    with transport(timeout_s=0.4) as exchange:
        asked = dataclasses.replace(task(), corrections=lambda client_id: adapter())
        board = exchange._board("run")
        opened = board.open(0, "sft", asked.adapter, exchange._work(board, asked, (0, 1)))
        for number in (0, 1):
            ExchangeClient(paths, number, ToyLearner(), shard)._commit(opened, ToyLearner().fit(asked, shard(number), lambda status: None))
        spoil(paths, opened)
        found = {answer.client_id: answer for answer in exchange.fit(asked, (0, 1))}
    assert found[0].control.load().sha256 == ToyLearner().fit(asked, shard(0), lambda status: None).control.sha256
    assert reason in found[1].reason
    assert not any(os.path.lexists(path) for path in paths.taken_away(1, 0))


def test_an_answer_is_taken_away_before_its_flag(paths, transport, monkeypatch):
    """A client that finds its flag gone answers anew at once: what it writes then must not meet the removal of what was there before."""
    seen, moves = [], RejectedFolder._move

    def move(folder, path, to):
        moved = moves(folder, path, to)
        seen.append([path.exists() for path in paths.taken_away(1, 0)])
        return moved

    monkeypatch.setattr(RejectedFolder, "_move", move)
    answered(paths, transport, edit({"round": 7}))
    assert seen == [[False, True, True, True], [False, False, True, True], [False, False, False, True], [False, False, False, False]]


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
