import errno
import os

import pytest

from fccl.errors import StorageError
from fccl.paths import ExchangePaths
from fccl.records.rejection import Rejection
from fccl.storage import reading
from fccl.storage.files import write_bytes
from fccl.transports.exchange import quarantine
from fccl.transports.exchange.quarantine import Quarantine
from tests.transports.obstacles import INSTEAD_OF_A_FOLDER, OBSTACLES, put


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path)


def test_refused_files_move_with_their_reason(paths, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("precious")
    folder = Quarantine(paths)
    paths.flag(1, 0).write_text("")
    paths.update(1, 0).symlink_to(outside)
    first = folder.refuse([paths.flag(1, 0), paths.contribution(1, 0), paths.update(1, 0)], "because", "run", 0, 1)
    assert first.files == ("done_1_0.flag", "client_1_round_0.safetensors")
    paths.flag(1, 0).write_text("")
    folder.refuse([paths.flag(1, 0)], "again", "run", 0, 1)
    assert [rejection.reason for rejection in folder.rejections] == ["because", "again"]
    kept = sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir())
    assert kept == ["client_1_round_0.safetensors", "done_1_0.flag", "done_1_0.flag", "reason.json", "reason.json"]
    reasons = [Rejection.model_validate_json(path.read_text()) for path in sorted(paths.rejected.glob("*_reason.json"))]
    assert reasons == folder.rejections
    assert outside.read_text() == "precious"


def test_the_folder_of_refused_files_leads_nowhere_else(paths, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    paths.rejected.symlink_to(elsewhere)
    paths.flag(1, 0).write_text("")
    Quarantine(paths).refuse([paths.flag(1, 0)], "because", "run", 0, 1)
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir()) == [
        "done_1_0.flag",
        "reason.json",
        "rejected",
    ]


def test_a_name_too_long_to_be_kept_whole_is_cut(paths):
    name = "client_" + "x" * 248
    (paths.root / name).write_text("")
    Quarantine(paths).refuse([paths.root / name], "because", "run", 0)
    assert not (paths.root / name).exists()


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_in_the_way_of_a_file_is_moved_with_its_reason_and_the_file_is_written(paths, kind):
    folder, path = Quarantine(paths), paths.task(3)
    put(path, kind)
    folder.write(path, b"content", "run", 3)
    assert path.read_bytes() == b"content"
    (rejection,) = folder.rejections
    assert (rejection.files, rejection.reason, rejection.round) == (
        (path.name,),
        "something else where a file belongs",
        3,
    )
    folder.write(path, b"another", "run", 3)
    assert path.read_bytes() == b"another"
    assert len(folder.rejections) == 1, "a file is written over, as ever"


@pytest.mark.parametrize("kind", sorted({*INSTEAD_OF_A_FOLDER} - {"an empty folder", "a full folder"}))
def test_what_is_where_the_folder_of_refused_files_belongs_ends_in_it(paths, kind):
    put(paths.rejected, kind)
    paths.flag(1, 0).touch()
    Quarantine(paths).refuse([paths.flag(1, 0)], "because", "run", 0, 1)
    assert sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir()) == [
        "done_1_0.flag",
        "reason.json",
        "rejected",
    ]
    assert not list(paths.root.glob(".rejected*"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV, errno.EROFS])
def test_what_cannot_be_moved_is_one_line_and_once_it_can_the_same_call_goes_on(paths, monkeypatch, number):
    def refused(path, to):
        raise OSError(number, os.strerror(number))

    path = paths.global_adapter(0)
    put(path, "a full folder")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refused)
        with pytest.raises(StorageError, match=f"^cannot move {path}: "):
            Quarantine(paths).write(path, b"content")
    assert (path / "deep" / "file").read_text() == "x"
    Quarantine(paths).write(path, b"content")
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("times", [1, 2])
def test_the_next_thing_in_the_way_is_moved_as_well(paths, monkeypatch, times):
    """Somebody makes a folder between the looking and the writing."""
    looks, path = [], paths.task(0)

    def write(to, content):
        if len(looks) < times:
            looks.append(to)
            to.mkdir()
        write_bytes(to, content)

    monkeypatch.setattr(quarantine, "write_bytes", write)
    Quarantine(paths).write(path, b"content")
    assert path.read_bytes() == b"content"


REPLACING = sorted({*INSTEAD_OF_A_FOLDER} - {"an empty folder", "a full folder", "a link to a folder"})


@pytest.mark.parametrize("kind", ["nothing", *REPLACING])
@pytest.mark.parametrize("when", [1, 2, 3])
def test_the_folder_may_go_or_be_replaced_whenever_something_is_refused(paths, monkeypatch, kind, when):
    """Between the looking and the moving, before the second file, or before the reason is written."""
    makes, made = Quarantine._make, []

    def make(folder):
        makes(folder)
        made.append(folder)
        if len(made) == when:
            paths.rejected.rename(paths.root / "taken_away")
            if kind != "nothing":
                put(paths.rejected, kind)

    monkeypatch.setattr(Quarantine, "_make", make)
    files = [paths.contribution(1, 0), paths.flag(1, 0)]
    for path in files:
        path.write_text("x")
    rejection = Quarantine(paths).refuse(files, "because", "run", 0, 1)
    assert rejection.files == tuple(path.name for path in files)
    assert not any(path.exists() for path in files)
    assert [
        Rejection.model_validate_json(path.read_bytes()).reason for path in paths.rejected.glob("*_reason.json")
    ] == ["because"]


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("kind", ["an empty folder", "a full folder"])
def test_a_folder_that_takes_a_file_s_place_before_it_is_removed_is_moved(paths, monkeypatch, kind, times):
    path, looks = paths.task(0), []
    path.touch()

    def is_own_folder(looked_at):
        found = reading.is_own_folder(looked_at)
        if looked_at == path and len(looks) < times:
            looks.append(path)
            path.unlink() if path.is_file() else None
            put(path, kind)
        return found

    monkeypatch.setattr(quarantine, "is_own_folder", is_own_folder)
    Quarantine(paths).remove(path)
    assert not os.path.lexists(path)
    Quarantine(paths).remove(path)
