import errno
import fcntl
import signal
import time

import pytest

from fccl.errors import FederationError, StorageError
from fccl.exchange.locks import exclusive
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
