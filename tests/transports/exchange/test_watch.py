import json
import os
import threading
import time
from pathlib import Path

import pytest

from fccl.paths import ExchangePaths
from fccl.storage.mounts import is_remote
from fccl.transports.exchange import watch
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.watch import POLL_S, RESCAN_S, Notified, Polling, ring, watcher
from fccl.transports.exchange.wire import VERSION
from tests.toy import ToyLearner, shard


def waited(waiting, timeout_s):
    started = time.monotonic()
    waiting.wait(timeout_s)
    return time.monotonic() - started


def after(seconds, action):
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_a_change_ends_the_waiting(tmp_path):
    with watcher(tmp_path, "notify") as waiting:
        assert isinstance(waiting, Notified)
        after(0.2, (tmp_path / "file").touch)
        assert waited(waiting, 60) < RESCAN_S


def test_a_change_before_the_waiting_ends_it_at_once(tmp_path):
    with watcher(tmp_path, "notify") as waiting:
        (tmp_path / "file").touch()
        time.sleep(0.1)
        assert waited(waiting, 60) < RESCAN_S / 2


@pytest.mark.parametrize(("how", "longest"), [("notify", RESCAN_S), ("poll", POLL_S)])
def test_without_a_change_it_ends_soon_anyway(tmp_path, how, longest):
    with watcher(tmp_path, how) as waiting:
        assert waited(waiting, 60) == pytest.approx(longest, abs=0.5)
        assert waited(waiting, 0.05) < longest
        assert waited(waiting, -1) < 0.1


def test_auto_takes_what_works_here(tmp_path, monkeypatch):
    with watcher(tmp_path, "auto") as waiting:
        assert isinstance(waiting, Notified) != is_remote(tmp_path)
    monkeypatch.setattr(watch, "is_remote", lambda folder: True)
    with watcher(tmp_path, "auto") as waiting:
        assert isinstance(waiting, Polling)
    with watcher(tmp_path, "notify") as waiting:
        assert isinstance(waiting, Notified)


def test_auto_polls_where_a_write_is_not_notified(tmp_path, monkeypatch):
    monkeypatch.setattr(Notified, "_look", lambda self, every_ms, timeout_s: False)
    with watcher(tmp_path, "auto") as waiting:
        assert isinstance(waiting, Polling)
    assert list(tmp_path.iterdir()) == [], "the probe is gone"


def test_auto_polls_where_there_are_no_notifications_at_all(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError("inotify watch limit reached")

    monkeypatch.setattr(watch, "RustNotify", none)
    with watcher(tmp_path, "notify") as waiting:
        assert isinstance(waiting, Polling)


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /mnt/shared rw - nfs4 server:/export rw
31 22 0:41 / /mnt/shared/local rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/with\\040space rw - fuse.sshfs host:/ rw
33 22 0:43 / /mnt/mac rw - virtiofs mac rw
"""


@pytest.mark.parametrize(
    ("folder", "remote"),
    [
        ("/mnt/shared/exchange", True),
        ("/mnt/shared/local/exchange", False),
        ("/mnt/sharedx", False),
        ("/home/exchange", False),
        ("/mnt/with space/exchange", True),
        ("/mnt/mac", True),
    ],
)
def test_file_systems_of_other_machines_are_known(tmp_path, folder, remote):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert is_remote(Path(folder), mounts) == remote
    assert not is_remote(Path(folder), tmp_path / "none")


def test_the_bell_is_heard_and_follows_no_link(tmp_path):
    bell = tmp_path / "bell"
    with watcher(bell, "notify") as waiting:
        after(0.1, lambda: ring(bell))
        assert waited(waiting, 60) < RESCAN_S
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (bell / "rung").unlink()
    (bell / "rung").symlink_to(victim)
    ring(bell)
    assert victim.read_text() == "precious"


def test_an_interrupt_while_waiting_is_not_swallowed(tmp_path, monkeypatch):
    class Interrupted:
        def watch(self, *arguments):
            return "signal"

        def close(self):
            pass

    with watcher(tmp_path, "notify") as waiting:
        monkeypatch.setattr(waiting, "_notify", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            waiting.wait(1)


def cpu_seconds():
    return sum(os.times()[:2])


@pytest.mark.parametrize("how", ["notify", "poll"])
def test_an_idle_client_costs_no_measurable_cpu(tmp_path, how):
    """Two seconds of waiting, a heartbeat each second, beside the files of many others: at most 3 % of a core (it takes about 0.3 %)."""
    paths = ExchangePaths(tmp_path)
    for number in range(300):
        paths.flag(number, 0).touch()
    client = ExchangeClient(paths, 0, ToyLearner(), shard, heartbeat_s=1.0, watch=how)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    time.sleep(0.5)
    started, before = time.monotonic(), cpu_seconds()
    time.sleep(2.0)
    share = (cpu_seconds() - before) / (time.monotonic() - started)
    over = {"version": VERSION, "run_id": "run", "run_created": 1.0, "round": 0, "phase": "done", "adapter": {"sha256": "0" * 64, "length": 1}}
    paths.task(0).write_text(json.dumps(over))
    paths.phase(0).write_text("done")
    client.grace_s = 0.0
    thread.join(10)
    assert not thread.is_alive()
    assert share < 0.03
