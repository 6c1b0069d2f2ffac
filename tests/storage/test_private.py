"""`fccl.storage.private`: folders that only their owner may enter."""

import os
import stat

import pytest

from fccl.errors import StorageError
from fccl.storage.private import private_folder


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_it_is_made_for_its_owner_alone_whatever_the_umask(tmp_path, usual_umask, umask):
    os.umask(umask)
    folder = tmp_path / "state" / "client_0"
    assert private_folder(folder) == ""
    assert mode(folder) == 0o700
    assert os.listdir(folder) == []


@pytest.mark.parametrize("was", [0o755, 0o777, 0o750, 0o711, 0o1777, 0o2770])
def test_one_that_others_could_enter_is_closed_and_keeps_its_files(tmp_path, was):
    (tmp_path / "kept").write_text("x")
    tmp_path.chmod(was)
    assert private_folder(tmp_path) == ""
    assert mode(tmp_path) & 0o777 == 0o700
    assert (tmp_path / "kept").read_text() == "x"


def test_one_that_is_private_already_is_not_touched(tmp_path):
    private_folder(tmp_path / "state")
    before = (tmp_path / "state").stat()
    assert private_folder(tmp_path / "state") == ""
    assert (tmp_path / "state").stat().st_ctime_ns == before.st_ctime_ns


def test_a_file_system_that_keeps_no_modes_is_said(tmp_path, monkeypatch):
    def refused(descriptor, mode):
        raise PermissionError(1, "not here")

    monkeypatch.setattr(os, "fchmod", refused)
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path) == f"{tmp_path} is not private: its file system lets others in"


@pytest.mark.parametrize("put", ["file", "link", "dangling", "pipe", "link_to_file"])
def test_what_is_no_folder_of_its_own_is_refused_and_stays(tmp_path, put):
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "state"
    elsewhere.mkdir(mode=0o755)
    {
        "file": lambda: path.write_text("x"),
        "link": lambda: path.symlink_to(elsewhere),
        "dangling": lambda: path.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(path),
        "link_to_file": lambda: path.symlink_to(__file__),
    }[put]()
    before = path.lstat()
    with pytest.raises(StorageError, match=r"cannot keep .*state private: it is a link or a file") as error:
        private_folder(path)
    assert "move it away" in error.value.hint
    assert path.lstat() == before
    assert mode(elsewhere) == 0o755, "what a link leads to is nobody's business here"


def test_one_of_somebody_else_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(
        StorageError, match=f"it belongs to user {folder.stat().st_uid}, and this is user {folder.stat().st_uid + 1}"
    ):
        private_folder(folder)


def test_where_none_can_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder") as error:
        private_folder(tmp_path / "file" / "state" / "client_0")
    assert "--state-dir" in error.value.hint
