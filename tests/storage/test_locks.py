import errno
import fcntl
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fccl.errors import FederationError, StorageError
from fccl.paths import ExchangePaths
from fccl.storage.locks import alone, exclusive, in_sight, in_use, one_at_a_time, sweep_locks
from fccl.testing.processes import CONTEXT


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
    with (
        pytest.raises(FederationError, match=f"it is at work on .* already .process {holder.pid} on "),
        exclusive(paths.server_lock, "it"),
    ):
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


# --- shared by all who use it


def use(path, told):
    with in_use(path, "it"):
        told.set()
        time.sleep(60)


def test_many_use_what_none_may_change_until_the_last_of_them_has_died(tmp_path):
    path = tmp_path / "data.lock"
    told = [CONTEXT.Event() for _ in range(2)]
    users = [CONTEXT.Process(target=use, args=(path, each), daemon=True) for each in told]
    for user in users:
        user.start()
    assert all(each.wait(30) for each in told)
    for user in users:
        with (
            pytest.raises(FederationError, match="it is in use by another command, so it stays as it is"),
            alone(path, "it"),
        ):
            pass
        user.kill()
        user.join()
    with (
        alone(path, "it"),
        pytest.raises(FederationError, match="it is being prepared by another command"),
        in_use(path, "it"),
    ):
        pass


@pytest.mark.parametrize("trouble", ["no folder", "read-only", "unreadable", "a link", "a folder", "no locks"])
def test_who_only_reads_needs_no_lock(tmp_path, monkeypatch, trouble):
    path = tmp_path / "data.lock"
    if trouble == "no folder":
        path = tmp_path / "nowhere" / "data.lock"
    elif trouble == "a link":
        path.symlink_to("elsewhere")
    elif trouble == "a folder":
        path.mkdir()
    elif trouble == "no locks":
        monkeypatch.setattr(
            fcntl, "flock", lambda *how: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available"))
        )
    else:
        real, number = os.open, errno.EROFS if trouble == "read-only" else errno.EACCES

        def refused(name, flags, *mode, **options):
            if trouble == "unreadable" or flags & os.O_CREAT:
                raise OSError(number, os.strerror(number))
            return real(name, flags, *mode, **options)

        monkeypatch.setattr(os, "open", refused)
    before = list(tmp_path.rglob("*"))
    with in_use(path, "it"), in_use(path, "it"):
        ran = True
    assert ran
    assert trouble == "no locks" or list(tmp_path.rglob("*")) == before


def test_a_lock_file_that_may_only_be_read_is_shared_all_the_same(tmp_path, monkeypatch):
    path, real = tmp_path / "data.lock", os.open
    path.touch()

    def read_only(name, flags, *mode, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(name, flags, *mode, **options)

    monkeypatch.setattr(os, "open", read_only)
    with in_use(path, "it"):
        monkeypatch.undo()
        with pytest.raises(FederationError, match="in use"), alone(path, "it"):
            pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_turn_that_is_not_needed_is_done_without_where_nothing_can_be_written(tmp_path, monkeypatch, number):
    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", refused)
    with one_at_a_time(tmp_path / "a", needed=False):
        ran = True
    assert ran
    with pytest.raises(StorageError), one_at_a_time(tmp_path / "a"):
        pass


def test_lock_files_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path):
    (tmp_path / ".dead.lock").touch()
    with one_at_a_time(tmp_path / "living"):
        sweep_locks(tmp_path)
        assert os.listdir(tmp_path) == [".living.lock"]


# --- a folder that must stay where it is


@pytest.mark.parametrize("fate", ["removed", "moved", "replaced", "a file", "a dangling link", "another link"])
def test_a_folder_that_goes_is_noticed(tmp_path, fate):
    folder = tmp_path / "folder"
    folder.mkdir()
    with in_sight(folder) as check:
        (folder / "a").touch()
        check()
        folder.rename(tmp_path / "moved")
        if fate == "removed":
            (tmp_path / "moved" / "a").unlink()
            (tmp_path / "moved").rmdir()
        elif fate == "replaced":
            folder.mkdir()
        elif fate == "a file":
            folder.touch()
        elif fate == "a dangling link":
            folder.symlink_to("nowhere")
        elif fate == "another link":
            folder.symlink_to("/tmp")
        with pytest.raises(StorageError, match="was removed or replaced while this process was at work in it"):
            check()


def test_a_folder_that_was_moved_and_came_back_is_the_same(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with in_sight(folder) as check:
        folder.rename(tmp_path / "moved")
        (tmp_path / "moved").rename(folder)
        check()
        folder.rename(tmp_path / "moved")
        folder.symlink_to("moved")
        check()
