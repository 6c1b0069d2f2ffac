import errno
import os
import subprocess
import sys
import textwrap

import pytest

from fccl import files
from fccl.errors import StorageError


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
        from fccl.files import write_text
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
