import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fccl.records.run import RunState
from fccl.storage.reading import read_small
from fccl.view import tail
from fccl.view.tail import LogFollower, ValueFile
from tests.examples import few


class Collected:
    """Keeps the lines it is fed."""

    def __init__(self):
        self.lines, self.cleared = [], 0

    def clear(self):
        self.lines, self.cleared = [], self.cleared + 1

    def feed(self, lines):
        assert lines
        self.lines += lines


@contextmanager
def as_nobody():
    """As a user whom permissions bind: root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def complete(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=20))
def test_any_pieces_give_every_complete_line_once(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("follow") / "log"
    collected = Collected()
    follower = LogFollower(path, collected)
    for number in range(len(pieces) + 1):
        with open(path, "ab") as file:
            file.write(b"".join(pieces[:number][-1:]))
        follower.refresh()
        assert collected.lines == complete(b"".join(pieces[:number]))
    assert collected.cleared == 0


def test_a_half_written_line_waits(tmp_path):
    path, collected = tmp_path / "log", Collected()
    follower = LogFollower(path, collected)
    for text, expected in ((b"one\ntw", [b"one"]), (b"o", [b"one"]), (b"\n", [b"one", b"two"])):
        with open(path, "ab") as file:
            file.write(text)
        follower.refresh()
        assert collected.lines == expected


class Log(RuleBasedStateMachine):
    """A file that is appended to, cut, written anew, replaced, deleted; no line is ever written twice, as no
    record is."""

    def __init__(self):
        super().__init__()
        self.folder = Path(os.environ["FCCL_TEST_FOLDER"]) / f"{time.monotonic_ns()}"
        self.folder.mkdir()
        self.path, self.collected, self.written = self.folder / "log", Collected(), 0
        self.follower = LogFollower(self.path, self.collected)

    def fresh(self, count: int, cut: int) -> bytes:
        lines = [f"{self.written + number}\n".encode() for number in range(count)]
        self.written += count
        return b"".join(lines)[: -cut or None]

    @rule(count=st.integers(1, 5), cut=st.integers(0, 2))
    def append(self, count, cut):
        if not self.path.is_dir():
            with open(self.path, "ab") as file:
                file.write(self.fresh(count, cut))

    @rule(share=st.floats(0, 1))
    def truncate(self, share):
        if self.path.is_file():
            os.truncate(self.path, int(share * self.path.stat().st_size))

    @rule(count=st.integers(0, 20), cut=st.integers(0, 2))
    def write_anew(self, count, cut):
        if not self.path.is_dir():
            self.path.write_bytes(self.fresh(count, cut))

    @rule(count=st.integers(0, 20), cut=st.integers(0, 2))
    def replace(self, count, cut):
        if not self.path.is_dir():
            (self.folder / "new").write_bytes(self.fresh(count, cut))
            os.replace(self.folder / "new", self.path)

    @rule()
    def delete(self):
        if self.path.is_dir():
            self.path.rmdir()
        else:
            self.path.unlink(missing_ok=True)

    @rule()
    def a_folder_instead(self):
        if not self.path.exists():
            self.path.mkdir()

    @rule()
    def look(self):
        self.follower.refresh()
        assert self.collected.lines == (complete(self.path.read_bytes()) if self.path.is_file() else [])

    def teardown(self):
        self.look()


@pytest.fixture
def folder_of_machines(tmp_path, monkeypatch):
    monkeypatch.setenv("FCCL_TEST_FOLDER", str(tmp_path))


@pytest.mark.usefixtures("folder_of_machines")
class TestLog(Log.TestCase):
    settings = settings(max_examples=few(60), stateful_step_count=25, deadline=None)


def test_a_log_that_is_written_anew_is_read_anew(tmp_path):
    path, collected = tmp_path / "log", Collected()
    follower = LogFollower(path, collected)
    path.write_bytes(b"a\nb\n")
    follower.refresh()
    path.write_bytes(b"a\nc\nd\n")  # the same file, and longer
    follower.refresh()
    assert (collected.lines, collected.cleared) == ([b"a", b"c", b"d"], 1)


def test_a_line_that_is_longer_than_any_record_does_not_stop_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(tail, "_BLOCK", 8)
    monkeypatch.setattr(tail, "_LONGEST", 32)
    path, collected = tmp_path / "log", Collected()
    path.write_bytes(b"before\n" + b"x" * 300 + b"\nafter\n")
    LogFollower(path, collected).refresh()
    assert (collected.lines[0], collected.lines[-1]) == (b"before", b"after")
    assert b"".join(collected.lines[1:-1]) == b"x" * 300


def test_a_log_longer_than_a_block_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tail, "_BLOCK", 64)
    path, collected = tmp_path / "log", Collected()
    lines = [b"y" * (number % 150) for number in range(500)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    LogFollower(path, collected).refresh()
    assert collected.lines == lines


@pytest.mark.parametrize("kind", ["none", "folder", "pipe", "socket", "dangling", "loop"])
def test_what_is_no_file_is_no_log(tmp_path, kind):
    path, collected = tmp_path / "log", Collected()
    follower = LogFollower(path, collected)
    path.write_bytes(b"a\n")
    follower.refresh()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, 0o140644)
    elif kind != "none":
        path.symlink_to(path if kind == "loop" else tmp_path / "nowhere")
    follower.refresh()  # a pipe is not waited for
    assert collected.lines == []
    assert read_small(path, 100) is None
    assert LogFollower(path / "below" / "log", collected).refresh() is None


def test_a_disk_that_fails_for_a_moment_takes_nothing_away(tmp_path, monkeypatch):
    path, collected = tmp_path / "log", Collected()
    follower = LogFollower(path, collected)
    path.write_bytes(b"a\n")
    follower.refresh()
    monkeypatch.setattr(tail.os, "pread", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    follower.refresh()
    assert collected.lines == [b"a"]
    assert read_small(path, 100) is None


def test_a_file_without_permission_is_none_and_takes_nothing_away(tmp_path):
    path, collected = tmp_path / "log", Collected()
    path.write_bytes(b"a\n")
    follower = LogFollower(path, collected)
    follower.refresh()
    path.chmod(0)
    with as_nobody():
        follower.refresh()
        assert collected.lines == [b"a"]
        assert read_small(path, 100) is None
        fresh = Collected()
        LogFollower(path, fresh).refresh()
        assert fresh.lines == []


def test_only_a_link_that_may_be_followed_is(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_small(tmp_path / "link", 100) == b"content"
    assert read_small(tmp_path / "link", 100, follow=False) is None
    assert read_small(tmp_path / "file", 6) is None
    assert read_small(tmp_path / "file", 7, follow=False) == b"content"


def test_a_value_is_parsed_again_only_when_it_is_another(tmp_path):
    path, file = tmp_path / "state.json", ValueFile(RunState, 1000)
    assert file.read(path) is None
    texts = [f'{{"run_id": "r", "next_round": {number}, "total_rounds": 4, "adapter_sha256": ""}}' for number in (1, 2)]
    for number, text in enumerate(texts, start=1):
        path.write_text(text)
        first = file.read(path)
        assert first.next_round == number
        assert file.read(path) is first
    path.write_text("{")
    assert file.read(path) is None
    path.write_text(texts[0])
    path.unlink()
    assert file.read(path) is None


def test_a_strict_value_takes_no_text_for_a_number(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"run_id": "r", "next_round": "1", "total_rounds": 4, "adapter_sha256": ""}')
    assert ValueFile(RunState, 1000).read(path).next_round == 1
    assert ValueFile(RunState, 1000, strict=True).read(path) is None


def test_a_reader_beside_a_writer_sees_whole_lines_in_order(tmp_path):
    path, collected, count = tmp_path / "log", Collected(), 3000
    expected = [f"{number} {'z' * (number % 97)}".encode() for number in range(count)]

    def write():
        for line in expected:
            with open(path, "ab", buffering=0) as file:  # in two pieces: half a line is often there
                file.write(line[:5])
                file.write(line[5:] + b"\n")

    writer = threading.Thread(target=write)
    follower = LogFollower(path, collected)
    writer.start()
    while writer.is_alive():
        follower.refresh()
        assert collected.lines == expected[: len(collected.lines)]
    writer.join()
    follower.refresh()
    assert (collected.lines, collected.cleared) == (expected, 0)
