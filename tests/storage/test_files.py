import errno
import fcntl
import os
import subprocess
import sys
import textwrap

import pytest

from fccl.errors import StorageError
from fccl.storage import files
from fccl.storage.files import require_writable


def test_write_replaces_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    files.write_text(path, "one")
    files.write_text(path, "two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_path_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        files.write_text(tmp_path / "file" / "a.txt", "x")


def test_a_killed_writer_leaves_old_or_new(tmp_path):
    """A process is killed (SIGKILL) at many moments while it rewrites a file; a reader always sees a whole one."""
    path = tmp_path / "a.txt"
    files.write_text(path, "0" * 100_000)
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from fccl.storage.files import write_text
        print("ready", flush=True)
        n = 0
        while True:
            n += 1
            write_text(Path(sys.argv[1]), str(n % 10) * 100_000)
    """)
    for delay in (0.01, 0.013, 0.02, 0.031):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=os.getcwd())
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        text = path.read_text()
        assert len(text) == 100_000
        assert len(set(text)) == 1


def test_a_line_after_a_cut_line_stands_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    files.append_line(path, '{"a": 1}')
    with path.open("a") as file:
        file.write('{"b": ')
    files.append_line(path, '{"c": 3}')
    assert path.read_text().splitlines() == ['{"a": 1}', '{"b": ', '{"c": 3}']


def test_a_replaced_folder_keeps_nothing_of_the_old(tmp_path):
    for name, entry in (("old", "only_old"), ("new", "only_new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / entry).write_text("x")
    files.replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["only_new"]


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_folder_whose_replacing_was_killed_is_complete(tmp_path, monkeypatch, moment):
    """Old or new, never neither, whichever of the two renames was the last."""

    class Killed(BaseException):
        pass

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "which").write_text("old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "which").write_text("new")
    left, real = ["before", "between", "after"].index(moment), os.replace

    def replace(source, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        real(source, target)

    def no_more(*arguments, **options):
        raise Killed

    monkeypatch.setattr(files.os, "replace", replace)
    if moment == "after":
        monkeypatch.setattr(
            files.shutil,
            "rmtree",
            lambda path, **options: no_more() if path.name == ".folder.old" and path.exists() else None,
        )
    with pytest.raises(Killed):
        files.replace_folder(tmp_path / "new", tmp_path / "folder")
    monkeypatch.undo()
    files.recover_folder(tmp_path / "folder")
    assert (tmp_path / "folder" / "which").read_text() == ("new" if moment == "after" else "old")
    assert not (tmp_path / ".folder.old").exists()


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "which").write_text("old")
    with pytest.raises(StorageError, match="it does not exist"):
        files.replace_folder(tmp_path / "nothing", tmp_path / "folder")
    assert (tmp_path / "folder" / "which").read_text() == "old"
    assert os.listdir(tmp_path) == ["folder"]


# --- file systems that refuse what is not needed

REFUSALS = [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP]


def refuse(monkeypatch, number):
    """Every call that only says something about a file, or makes sure of it, fails."""

    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    for name in ("fchmod", "chmod", "fsync", "utime", "fchown", "chown"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.parametrize("number", REFUSALS)
def test_files_are_written_where_modes_flushing_and_locks_are_refused(tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    files.write_text(tmp_path / "deep" / "a.txt", "one")
    files.append_line(tmp_path / "a.jsonl", "{}")
    with files.new_folder(tmp_path / "folder") as new:
        files.write_text(new / "a", "x")
        files.give_usual_modes(new)
        files.replace_folder(new, tmp_path / "folder")
    assert (tmp_path / "deep" / "a.txt").read_text() == "one"
    assert (tmp_path / "a.jsonl").read_text() == "{}\n"
    assert (tmp_path / "folder" / "a").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "deep", "folder"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_could_not_flush_is_an_error_all_the_same(tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    with pytest.raises(StorageError):
        files.write_text(tmp_path / "a.txt", "one")
    with pytest.raises(StorageError):
        files.append_line(tmp_path / "a.jsonl", "{}")
    assert not (tmp_path / "a.txt").exists()


UMASK = """
    import os, sys
    from pathlib import Path
    from fccl.storage.files import append_line, give_usual_modes, new_folder, replace_folder, write_bytes, write_text
    from fccl.storage.locks import exclusive, one_at_a_time
    os.umask(int(sys.argv[1], 8))
    root = Path(sys.argv[2])
    write_text(root / "deep" / "written", "x")
    append_line(root / "appended", "x")
    with new_folder(root / "folder") as new:
        write_bytes(new / "usual", b"x")
        os.close(os.open(new / "for its owner alone", os.O_CREAT, 0o600))
        give_usual_modes(new)
        replace_folder(new, root / "folder")
    write_bytes(root / "secret", b"x", mode=0o600)
    with exclusive(root / "it.lock", "it"):
        pass
    """


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002, 0o007, 0o000])
def test_files_honour_the_umask_and_secrets_are_their_owners(tmp_path, umask):
    code = textwrap.dedent(UMASK)
    subprocess.run([sys.executable, "-c", code, f"{umask:o}", str(tmp_path)], check=True, cwd=os.getcwd())
    for name in ("deep/written", "appended", "folder/usual", "folder/for its owner alone", "it.lock"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask, name
    for name in ("deep", "folder"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o777 & ~umask, name
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    require_writable(tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("old")
    require_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"


def test_a_place_that_cannot_be_written_is_an_error_before_the_work(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(StorageError, match="it is a folder"):
        require_writable(tmp_path)
    with pytest.raises(StorageError, match="a part of the path is a file"):
        require_writable(tmp_path / "file" / "below")
