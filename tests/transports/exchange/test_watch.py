import logging
import signal
import threading
from pathlib import Path

import pytest

from fccl.storage.files import write_bytes
from fccl.storage.mounts import is_remote
from fccl.transports.exchange import watch
from fccl.transports.exchange.watch import Notified, Polling, ring, watcher


def after(seconds, action):
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


@pytest.fixture
def no_rescan(monkeypatch):
    """Whoever waits is woken, or waits far too long."""
    monkeypatch.setattr(watch, "RESCAN_S", 60.0)


@pytest.mark.usefixtures("no_rescan")
def test_a_change_ends_the_waiting(tmp_path):
    with watcher(tmp_path, "notify") as waiting:
        assert isinstance(waiting, Notified)
        after(0.2, (tmp_path / "file").touch)
        assert waiting.wait(60)


@pytest.mark.usefixtures("no_rescan")
def test_a_change_before_the_waiting_ends_it_at_once(tmp_path):
    with watcher(tmp_path, "notify") as waiting:
        (tmp_path / "file").touch()
        assert waiting.wait(60)


@pytest.mark.usefixtures("no_rescan")
def test_only_names_that_are_heeded_end_the_waiting(tmp_path):
    with watcher(tmp_path, "auto", ("done_",)) as waiting:
        assert isinstance(waiting, Notified) != is_remote(tmp_path), "its own probe is heeded"
        (tmp_path / "status_0.json").write_text("x")
        write_bytes(tmp_path / "status_0.json", b"y")
        assert not waiting.wait(0.2)
        write_bytes(tmp_path / "done_0_0.flag", b"")
        assert waiting.wait(60)
        (tmp_path / "done_1_0.flag").touch()
        assert waiting.wait(60)


@pytest.mark.parametrize("how", ["notify", "poll"])
def test_without_a_change_it_ends_soon_anyway(tmp_path, monkeypatch, how):
    monkeypatch.setattr(watch, "RESCAN_S", 0.2)
    with watcher(tmp_path, how) as waiting:
        assert not waiting.wait(3600)
    monkeypatch.setattr(watch, "RESCAN_S", 3600.0)
    monkeypatch.setattr(watch, "POLL_S", 3600.0)
    with watcher(tmp_path, how) as waiting:
        assert not waiting.wait(0.05)
        assert not waiting.wait(-1)


def test_auto_takes_what_works_here(tmp_path, monkeypatch):
    with watcher(tmp_path, "auto") as waiting:
        assert isinstance(waiting, Notified) != is_remote(tmp_path)
    monkeypatch.setattr(watch, "is_remote", lambda folder: True)
    with watcher(tmp_path, "auto") as waiting:
        assert isinstance(waiting, Polling)
    with watcher(tmp_path, "notify") as waiting:
        assert isinstance(waiting, Notified)


def test_auto_polls_where_a_write_is_not_notified(tmp_path, monkeypatch):
    monkeypatch.setattr(Notified, "on_any_event", lambda self, event: None)
    with watcher(tmp_path, "auto") as waiting:
        assert isinstance(waiting, Polling)
    assert list(tmp_path.iterdir()) == [], "the probe is gone"


def test_auto_polls_where_there_are_no_notifications_at_all(tmp_path, monkeypatch):
    def none():
        raise OSError("inotify instance limit reached")

    monkeypatch.setattr(watch, "Observer", none)
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


@pytest.mark.usefixtures("no_rescan")
def test_the_bell_is_heard_and_follows_no_link(tmp_path):
    bell = tmp_path / "bell"
    with watcher(bell, "notify") as waiting:
        after(0.1, lambda: ring(bell))
        assert waiting.wait(60)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (bell / "rung").unlink()
    (bell / "rung").symlink_to(victim)
    ring(bell)
    assert victim.read_text() == "precious"


@pytest.mark.usefixtures("no_rescan")
def test_an_interrupt_while_waiting_is_not_swallowed(tmp_path):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with watcher(tmp_path, "notify") as waiting:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                waiting.wait(60)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_rescan")
def test_reading_in_the_folder_is_no_news(tmp_path):
    (tmp_path / "file").write_text("x")
    with watcher(tmp_path, "notify") as waiting:
        (tmp_path / "file").read_text()
        list(tmp_path.iterdir())
        assert not waiting.wait(0.2)


def test_a_watcher_that_is_left_leaves_no_thread_behind(tmp_path):
    before = threading.active_count()
    for _ in range(3):
        with watcher(tmp_path, "notify"):
            pass
    assert threading.active_count() <= before + 1, "one reader of notifications may serve the whole process"


def test_a_watcher_that_ends_says_nothing_on_the_terminal(tmp_path):
    """An emitter that is asked for events after its end would log an error there."""
    logging.getLogger("watchdog.observers.inotify").setLevel(logging.NOTSET)
    with watcher(tmp_path, "notify"):
        pass
    assert not logging.getLogger("watchdog.observers.inotify").isEnabledFor(logging.ERROR)
