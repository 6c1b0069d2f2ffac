import errno
import fcntl
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.storage import files, temporary
from fccl.storage.files import new_folder, write_bytes, write_text
from fccl.storage.temporary import OLD_S, is_old, is_temporary, make_file, make_folder, sweep
from fccl.testing.processes import CONTEXT
from tests.examples import few


def no_locks(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def half_write(folder, told):
    """What a process has open when it is killed: a file, and a folder with a file in it."""
    os.close(os.open(folder / "finished", os.O_CREAT))
    kept = [make_file(folder / "state.json"), make_folder(folder / "adapter")]
    Path(kept[1][1], "model").write_text("half")
    told.set()
    time.sleep(60)


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_goes(tmp_path):
    told = CONTEXT.Event()
    writer = CONTEXT.Process(target=half_write, args=(tmp_path, told), daemon=True)
    writer.start()
    assert told.wait(30)
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["finished"]


@pytest.mark.parametrize("entry", ["file", "folder", "link", "dangling", "fifo"])
def test_others_names_and_what_is_no_file_go_when_they_are_old(tmp_path, entry):
    path, kept = tmp_path / ".somebodys.tmp", tmp_path / "kept"
    kept.write_text("x")
    make = {
        "file": path.touch,
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(kept),
        "dangling": lambda: path.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(path),
    }
    make[entry]()
    sweep(tmp_path)
    assert os.path.lexists(path)
    age(path, OLD_S + 10)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
    assert kept.read_text() == "x"


def test_without_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    os.close(make_file(tmp_path / "a")[0])
    os.close(make_folder(tmp_path / "b")[0])
    sweep(tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    for path in tmp_path.iterdir():
        age(path, OLD_S + 10)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_only_what_is_asked_for_is_swept(tmp_path):
    for name in ("client_1_round_0.pt", "client_2_round_0.pt"):
        os.close(make_file(tmp_path / name)[0])
    sweep(tmp_path, lambda name: name.startswith(".client_1_"))
    assert [name[:10] for name in os.listdir(tmp_path)] == [".client_2_"]


@settings(max_examples=few(30), deadline=None)
@given(
    st.text(min_size=1, max_size=255).filter(
        lambda name: "/" not in name and "\0" not in name and name not in (".", "..")
    )
)
def test_a_temporary_name_fits_whatever_it_is_for(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    try:
        encoded = len(name.encode())
    except UnicodeEncodeError:
        return
    if encoded <= 255:
        write_bytes(folder / name, b"x")
        assert os.listdir(folder) == [name]


@pytest.mark.parametrize("name", ["state.json", "a.tmp", ".a", ".adapter.old", "tmp", ".tmp_", "global_round_1.pt"])
def test_names_of_what_is_finished_are_never_swept(tmp_path, name):
    (tmp_path / name).touch()
    age(tmp_path / name, 10 * OLD_S)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert not is_temporary(name)


def test_writers_and_sweepers_side_by_side_lose_nothing(tmp_path):
    stop = Event()

    def sweeping():
        while not stop.is_set():
            sweep(tmp_path)
            time.sleep(0)

    def writing(number):
        for count in range(25):
            write_text(tmp_path / f"{number}", str(count))
            with new_folder(tmp_path / f"folder {number}") as new:
                (new / "file").write_text(str(count))
                files.replace_folder(new, tmp_path / f"folder {number}")

    with ThreadPoolExecutor(3) as pool:
        sweeper = pool.submit(sweeping)
        writers = [pool.submit(writing, number) for number in range(2)]
        wait(writers)
        stop.set()
        for each in (*writers, sweeper):
            each.result()
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "folder 0", "folder 1"]
    assert [(tmp_path / str(number)).read_text() for number in range(2)] == ["24", "24"]


def test_a_file_that_was_swept_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    swept, real = [], temporary._claimed

    def quicker(descriptor, name):
        if not swept:
            swept.append(name)
            os.unlink(name)
        return real(descriptor, name)

    monkeypatch.setattr(temporary, "_claimed", quicker)
    write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_file_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    seen, real = [], os.replace

    def after_a_sweep(name, path):
        sweep(tmp_path)
        seen.append(os.path.lexists(name))
        real(name, path)

    monkeypatch.setattr(files.os, "replace", after_a_sweep)
    write_bytes(tmp_path / "a", b"x")
    assert (os.listdir(tmp_path), seen) == (["a"], [True])


def test_a_file_that_somebody_takes_away_before_it_has_its_name_is_written_again(tmp_path, monkeypatch):
    swept, real = [], os.replace

    def quicker(name, path):
        if not swept:
            swept.append(name)
            os.unlink(name)
        real(name, path)

    monkeypatch.setattr(files.os, "replace", quicker)
    write_bytes(tmp_path / "a", b"x")
    assert (os.listdir(tmp_path), len(swept)) == (["a"], 1)


def test_what_is_gone_is_not_old(tmp_path):
    assert not is_old(tmp_path / "gone")
    sweep(tmp_path / "gone")
