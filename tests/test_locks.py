import errno
import fcntl
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fccl.errors import FederationError, StorageError
from fccl.locks import exclusive, one_at_a_time
from fccl.paths import ExchangePaths
from tests.processes import CONTEXT


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path)


def hold(path, told):
    with exclusive(path, "it"):
        told.set()
        time.sleep(60)


def test_a_lock_ends_with_the_process_that_held_it(paths):
    told = CONTEXT.Event()
    holder = CONTEXT.Process(target=hold, args=(paths.server_lock, told), daemon=True)
    holder.start()
    assert told.wait(30)
    with pytest.raises(FederationError, match=f"it is at work on .* already .process {holder.pid} on "), exclusive(paths.server_lock, "it"):
        pass
    holder.kill()
    holder.join()
    assert holder.exitcode == -signal.SIGKILL
    with exclusive(paths.server_lock, "it"):
        pass


def test_a_lock_follows_no_link_and_names_its_folder(paths):
    victim = paths.root / "victim"
    victim.write_text("precious")
    paths.server_lock.symlink_to(victim)
    with pytest.raises(StorageError), exclusive(paths.server_lock, "it"):
        pass
    assert victim.read_text() == "precious"


def test_where_there_are_no_locks_a_lock_that_is_needed_is_an_error_and_another_is_done_without(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StorageError, match="cannot lock"), exclusive(tmp_path / "it.lock", "it"):
        pass
    ran = False
    with exclusive(tmp_path / "it.lock", "it", needed=False):
        ran = True
    assert ran


def test_one_at_a_time_is_one_at_a_time_and_leaves_nothing(tmp_path):
    inside, most = [], []

    def work(number):
        for _ in range(20):
            with one_at_a_time(tmp_path / "deep" / "a.pt"):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0)
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert (max(most), len(most)) == (1, 120)
    assert list((tmp_path / "deep").iterdir()) == []


def test_one_file_does_not_wait_for_another_and_an_error_lets_go(tmp_path):
    with one_at_a_time(tmp_path / "a"), one_at_a_time(tmp_path / "b"):
        pass
    with pytest.raises(OSError, match="of the block"), one_at_a_time(tmp_path / "a"):
        raise OSError("of the block")
    with one_at_a_time(tmp_path / "a"):
        pass


def test_without_locks_nobody_waits(tmp_path, monkeypatch):
    def no_locks(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with one_at_a_time(tmp_path / "a"), one_at_a_time(tmp_path / "a"):
        pass
