"""Peers that know only the original files: who they may be, what they are given, and what is read of them."""

import io
import json
import os
import pickle
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from fccl.adapters.stored import StoredAdapter
from fccl.keys import create_keys, server_keys
from fccl.messages import ClientFailure, ClientUpdate
from fccl.paths import KeyPaths
from fccl.records.run import ClientStatus
from fccl.storage.reading import identity
from fccl.testing.toy import START, ToyLearner, adapter, federation
from fccl.testing.transport import task
from fccl.transports.exchange import quarantine
from fccl.transports.exchange.original import in_memory
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange_tools import clients, finish, fit, until
from tests.transports.obstacles import OBSTACLES, put

SAVED_NAMES = {"w.default": "w"}
ORIGINALS = (1,)


def saved(what):
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


GOOD = saved({"w.default": torch.zeros(3)})


def answer(paths, client_id, number, update, **contribution):
    """Writes the files straight into their places, the flag last; no update when that is None."""
    if update is not None:
        paths.original_update(client_id, number).write_bytes(update)
    said = {"client": client_id, "avg_loss": 2.5, "num_samples": client_id + 1, "ts": time.time()} | contribution
    paths.contribution(client_id, number).write_text(json.dumps(said))
    paths.flag(client_id, number).touch()


def peer(paths, client_id, number, names, contribution):
    """One round of a peer: adds 1 to every number of the global adapter that it finds.

    `names` maps those it writes otherwise.
    """
    while not paths.phase(number).exists():
        time.sleep(0.01)
    state = torch.load(paths.original_global(number), weights_only=True)
    assert list(state) == [in_memory("w")]
    answer(
        paths,
        client_id,
        number,
        saved({names.get(name, name): tensor + 1 for name, tensor in state.items()}),
        **contribution,
    )


@contextmanager
def a_peer(paths, client_id=1, number=0, names=(), **contribution):
    thread = threading.Thread(target=peer, args=(paths, client_id, number, dict(names), contribution), daemon=True)
    thread.start()
    yield
    thread.join()


def judged(paths, transport, update=GOOD, keys=None, originals=ORIGINALS, put=None, **contribution):
    """The answer to a round that is open, when client 1 has committed these files; `put` does something with them
    before the server looks.
    """
    with transport(keys, timeout_s=0.01, originals=originals) as exchange:
        exchange.open(task(0), (1,))
        answer(paths, 1, 0, update, **contribution)
        if put:
            put()
        return fit(exchange, (1,))[1]


@pytest.mark.parametrize("names", [{}, SAVED_NAMES], ids=["in memory", "as saved"])
def test_a_peer_takes_part_in_either_dialect_and_its_update_is_kept_in_our_container(paths, transport, tmp_path, names):
    with transport(timeout_s=60.0, originals=ORIGINALS) as exchange, clients(paths, {0: ToyLearner()}):
        with a_peer(paths, names=names, training_time=1.5):
            update = fit(exchange)[1]
        assert isinstance(update.adapter, StoredAdapter)
        assert update.adapter.load().sha256 == adapter(2.0, 3.0, 4.0).sha256
        update.adapter.share(tmp_path / "kept", 0o600)
        assert (tmp_path / "kept").read_bytes() == adapter(2.0, 3.0, 4.0).to_bytes()
        finish(exchange)
    assert (update.contribution.avg_loss, update.contribution.num_samples, update.contribution.seconds) == (2.5, 2, 1.5)


def test_its_training_time_is_taken_from_its_files_when_it_does_not_say(paths, transport):
    with transport(timeout_s=60.0, originals=ORIGINALS) as exchange, a_peer(paths):
        seconds = fit(exchange, (1,))[1].contribution.seconds
    assert 0 <= seconds < 20


def test_four_clients_two_of_them_such_peers_all_count_in_every_round(paths, transport):
    fed = federation(clients=4, rounds=2)
    peers = [
        threading.Thread(target=peer, args=(paths, client, number, {}, {}), daemon=True)
        for client in (2, 3)
        for number in range(4)
    ]
    with (
        transport(timeout_s=60.0, originals=(2, 3), keep_rounds=9) as exchange,
        clients(paths, {0: ToyLearner(), 1: ToyLearner()}),
    ):
        for thread in peers:
            thread.start()
        records = [result.record for result in fed.run(START, exchange)]
        finish(exchange)
    assert [(record.phase, record.clients) for record in records] == [
        (phase, (0, 1, 2, 3)) for phase in ("sft", "sft", "va", "va")
    ]
    assert all(weight > 0 for record in records for weight in record.weights)
    assert not list(paths.rejected.glob("*"))


def test_what_it_reads_is_written_before_the_phase_file_and_only_where_it_is_wanted(paths, transport, monkeypatch):
    written = []
    write = quarantine.write_bytes
    monkeypatch.setattr(
        quarantine, "write_bytes", lambda path, content: (written.append(path.name), write(path, content))
    )
    for number, originals in enumerate([(), ORIGINALS]):
        with transport(timeout_s=0.01, originals=originals) as exchange:
            list(exchange.ask(task(number), (0, 1)))
    assert [name for name in written if "_0." in name] == [
        "global_round_0.safetensors",
        "task_round_0.json",
        "phase_0.txt",
    ]
    later = [name for name in written if "_1." in name]
    assert set(later[:-1]) == {"global_round_1.safetensors", "global_round_1.pt", "task_round_1.json"}
    assert later[-1] == "phase_1.txt"


@pytest.mark.parametrize("kind", OBSTACLES)
@pytest.mark.parametrize("when", ["before", "while it is open"])
def test_what_lies_where_its_file_belongs_is_moved_and_it_takes_part(paths, transport, kind, when):
    def spoil_and_answer():
        until(paths.phase(0).exists)
        if when != "before":
            put(paths.original_global(0), kind)
        until(lambda: identity(paths.original_global(0)) is not None and paths.phase(0).exists())
        peer(paths, 1, 0, {}, {})

    paths.root.mkdir(exist_ok=True)
    if when == "before":
        put(paths.original_global(0), kind)
    with transport(timeout_s=60.0, originals=ORIGINALS) as exchange:
        thread = threading.Thread(target=spoil_and_answer, daemon=True)
        thread.start()
        found = fit(exchange, (1,))[1]
        thread.join()
    assert isinstance(found, ClientUpdate)
    assert found.adapter.load().sha256 == adapter(2.0, 3.0, 4.0).sha256


def test_a_round_that_is_open_is_not_opened_again(paths, transport):
    seen = []
    for _ in range(2):
        with transport(timeout_s=0.01, originals=ORIGINALS) as exchange:
            list(exchange.ask(task(0), (1,)))
            seen.append([os.stat(path).st_mtime_ns for path in (paths.phase(0), paths.original_global(0))])
    assert seen[0] == seen[1]


def test_the_final_adapter_is_left_for_it_and_old_ones_go(paths, transport):
    with transport(timeout_s=0.01, originals=ORIGINALS, keep_rounds=1) as exchange:
        for number in range(3):
            list(exchange.ask(task(number), (1,)))
        exchange.finish("run", 3, adapter(5.0, 6.0, 7.0))
    assert torch.load(paths.original_global(3), weights_only=True)["w.default"].tolist() == [5.0, 6.0, 7.0]
    assert sorted(path.name for path in paths.root.glob("*.pt")) == ["global_round_2.pt", "global_round_3.pt"]


# --- who it may be


def test_whom_the_setting_does_not_name_is_told_so(paths, transport):
    found = judged(paths, transport, originals=(2,))
    assert isinstance(found, ClientFailure)
    assert (
        found.reason == "refused: the answer has only the original fields, and ORIGINAL_CLIENTS does not name client 1"
    )
    assert sorted(path.name.split("_", 1)[1] for path in paths.rejected.glob("*_client_1_round_0.pt")) == [
        "client_1_round_0.pt"
    ]


def test_with_keys_its_answer_is_nobodys(paths, transport, tmp_path):
    create_keys(KeyPaths(tmp_path / "keys"), 2)
    assert (
        "client 1 has not signed it" in judged(paths, transport, keys=server_keys(KeyPaths(tmp_path / "keys"))).reason
    )


def test_a_client_of_ours_may_have_its_number(paths, transport):
    with transport(timeout_s=60.0, originals=ORIGINALS) as exchange, clients(paths, {1: ToyLearner()}):
        assert isinstance(fit(exchange, (1,))[1], ClientUpdate)
        finish(exchange)


def test_it_is_not_dead_for_want_of_a_heartbeat(paths, transport, clock):
    """The one that is there is of a client of ours that had the number before."""

    def pass_by(seconds):
        clock.ahead += seconds

    with transport(timeout_s=600.0, stale_s=90.0, originals=ORIGINALS) as exchange:
        # 91 seconds after each heartbeat; when client 0 is given up, all the time that there is
        listener = Listener(heartbeat=lambda status: pass_by(91.0), line=lambda line: pass_by(600.0))
        exchange.begin(RunIdentity("run"), listener)
        beat = ClientStatus(client_id=1, state="idle", run_id="run", round=0, phase="sft", time=time.time())
        paths.status(1).write_text(beat.model_dump_json())
        paths.status(0).write_text(beat.model_copy(update={"client_id": 0}).model_dump_json())
        found = fit(exchange, (1, 0))
    assert found[0].reason.startswith("no heartbeat for 90 s")
    assert found[1].reason.startswith("no answer within 600 s")


# --- what is read of it


def test_its_files_from_before_the_round_count_for_nothing(paths, transport):
    files = (paths.original_update(1, 0), paths.contribution(1, 0), paths.flag(1, 0))
    long_ago = time.time() - 3600
    for old in (files, *([file] for file in files)):
        found = judged(paths, transport, put=lambda old=old: [os.utime(path, (long_ago, long_ago)) for path in old])
        assert found.reason.endswith("refused: the answer is older than the round")


@pytest.mark.parametrize(
    "contribution", [{"client": 0}, {"client": 70}, {"round": 3}, {"phase": "va"}, {"phase": "\x1b"}]
)
def test_it_may_not_contradict_its_file_names(paths, transport, contribution):
    reason = judged(paths, transport, **contribution).reason
    assert f"refused: the answer is of {next(iter(contribution))} " in reason
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("contribution", "reason"),
    [
        ({"avg_loss": "1.0"}, "avg_loss: Input should be a valid number"),
        ({"avg_loss": float("nan")}, "avg_loss: Input should be a finite number"),
        ({"avg_loss": -1.0}, "avg_loss"),
        ({"avg_loss": None}, "avg_loss"),
        ({"num_samples": True}, "num_samples: Input should be a valid integer"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 1.5}, "num_samples"),
        ({"training_time": -1}, "training_time"),
        ({"client": "1"}, "client"),
    ],
)
def test_a_contribution_with_a_wrong_field_is_refused(paths, transport, contribution, reason):
    assert reason in judged(paths, transport, **contribution).reason


class Bomb:
    def __reduce__(self):
        return bytearray, (6 * 2**30,)


UPDATES = {
    "a bomb": (saved(Bomb()), "names '__builtin__ bytearray', which no adapter needs"),
    "a bomb beside the numbers": (saved({"w.default": torch.zeros(3), "x": Bomb()}), "names '__builtin__ bytearray'"),
    "a bare pickle": (pickle.dumps({"w": 1}), "is not a file of torch.save"),
    "our own container": (adapter().to_bytes(), "is not a file of torch.save"),
    "no tensors": (saved({"w.default": 1}), "does not hold named tensors"),
    "other names": (saved({"v.default": torch.zeros(3)}), "missing: w; unexpected: v.default"),
    "another shape": (saved({"w.default": torch.zeros(4)}), "w has shape (4,), expected (3,)"),
    "not finite": (saved({"w.default": torch.tensor([0.0, torch.inf, 0.0])}), "w has values that are not finite"),
    "halves": (saved({"w.default": torch.zeros(3).half()}), "expected 'FloatStorage' (float32)"),
    "a huge shape": (saved({"w.default": torch.zeros(1).expand(10**6, 10**9)}), "claim more numbers"),
    "too long": (bytes(200_000), "has 200,000 bytes, at most 69,644 are possible"),
    "nothing": (None, "client_1_round_0.pt is missing"),
}


@pytest.mark.parametrize(("update", "reason"), UPDATES.values(), ids=UPDATES.keys())
def test_an_update_that_is_no_such_adapter_is_refused_with_its_reason_and_moved(paths, transport, update, reason):
    found = judged(paths, transport, update)
    assert isinstance(found, ClientFailure)
    assert reason in found.reason
    assert not paths.original_update(1, 0).exists()
    assert not paths.flag(1, 0).exists()
    assert len(list(paths.rejected.glob("*_client_1_round_0.pt"))) == (update is not None)


def test_the_others_count_all_the_same(paths, transport):
    with (
        transport(timeout_s=60.0, originals=ORIGINALS) as exchange,
        clients(paths, {0: ToyLearner()}),
        a_peer(paths, names={"w.default": "v"}),
    ):
        found = fit(exchange)
        finish(exchange)
    assert isinstance(found[0], ClientUpdate)
    assert "missing: w; unexpected: v" in found[1].reason


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (lambda path: path.symlink_to(path.parent.parent / "outside"), "is a symbolic link"),
        (os.mkfifo, "is not a regular file"),
        (os.mkdir, "is a folder"),
        (lambda path: path.symlink_to(path), "is a symbolic link"),
        (lambda path: path.symlink_to("x" * 300), "is a symbolic link"),
    ],
)
def test_links_pipes_and_folders_are_not_read(paths, transport, put, reason):
    (paths.root.parent / "outside").write_bytes(GOOD)
    found = judged(paths, transport, None, put=lambda: put(paths.original_update(1, 0)))
    assert f"client_1_round_0.pt {reason}" in found.reason
