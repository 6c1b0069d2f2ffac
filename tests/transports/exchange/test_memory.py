"""What a client that is started again knows of the rounds that it has answered."""

import json
import os
import shutil
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.errors import StorageError, UpdateRejected
from fccl.testing.toy import MODEL, TRAIN
from fccl.transports.exchange.memory import Memory
from fccl.transports.exchange.wire import VERSION, AdapterFile, FitWork, TaskFile

SERVER = "the server's key"
ADAPTER = AdapterFile(sha256="0" * 64, length=1)


def task(number, run_id="run", created=100.0):
    work = FitWork(clients=(0,), model=MODEL, train=TRAIN, seed=0)
    return TaskFile(
        version=VERSION, run_id=run_id, run_created=created, round=number, phase="sft", adapter=ADAPTER, work=work
    )


def started(path, server=SERVER):
    memory = Memory(path, server)
    memory.recall()
    return memory


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answered.json"


def believes(memory, task):
    try:
        memory.require_not_older(task)
    except UpdateRejected:
        return False
    return True


RUNS = st.integers(0, 4)
ROUNDS = st.tuples(RUNS, st.integers(0, 9))


@given(noted=st.lists(ROUNDS, max_size=8), shown=ROUNDS)
def test_nothing_older_than_the_newest_answer_is_believed_by_any_later_process(tmp_path_factory, noted, shown):
    """Runs are created in the order of their numbers; a client answers what it believes, and is started again after
    each answer.
    """
    path = tmp_path_factory.mktemp("state") / "answered.json"
    newest = (-1, -1)
    for run, number in noted:
        memory = started(path)
        if believes(memory, task(number, f"run {run}", float(run))):
            memory.note(task(number, f"run {run}", float(run)))
            newest = (run, number)
        assert newest == max(newest, (run, number)), "what is older was not believed"
    run, number = shown
    assert believes(started(path), task(number, f"run {run}", float(run))) == (shown >= newest)


def test_the_same_round_may_be_asked_for_again(path):
    started(path).note(task(3))
    written = path.stat().st_mtime_ns, path.stat().st_ino
    again = started(path)
    again.require_not_older(task(3))
    again.note(task(3))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written, "nothing new, so nothing is written"


@pytest.mark.parametrize(
    ("older", "said"),
    [
        (task(2), "this client has answered round 4 of this run"),
        (task(0), "this client has answered round 4 of this run"),
        (task(9, "earlier", 99.0), "this client has answered run run, created later"),
        (task(0, "earlier", 0.0), "this client has answered run run, created later"),
        (
            TaskFile(
                version=VERSION, run_id="earlier", run_created=99.0, round=20, phase="done", adapter=ADAPTER, work=None
            ),
            "created later",
        ),
    ],
)
def test_what_is_older_is_refused_with_the_way_out(path, older, said):
    started(path).note(task(3))
    with pytest.raises(UpdateRejected) as error:
        started(path).require_not_older(older)
    assert said in str(error.value)
    assert f"if the server was set back on purpose, delete {path} and start the client again" in str(error.value)
    path.unlink()
    started(path).require_not_older(older)


def test_another_server_begins_anew(path):
    started(path).note(task(3))
    other = started(path, "another server's key")
    other.require_not_older(task(0, "earlier", 1.0))
    other.note(task(0, "earlier", 1.0))
    assert started(path, "another server's key").newest.round == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"x" * 10_000,
        json.dumps({"version": 2, "server": SERVER, "run_id": "run", "run_created": 1.0, "round": 3}).encode(),
        json.dumps({"version": True, "server": SERVER, "run_id": "run", "run_created": 1.0, "round": 3}).encode(),
        json.dumps({"version": 1.0, "server": SERVER, "run_id": "run", "run_created": 1.0, "round": 3}).encode(),
        json.dumps({"server": SERVER, "run_id": "run", "run_created": 1.0, "round": 3})
        .encode()
        .replace(b'"round": 3', b'"round": 3, "round": 3'),
        json.dumps({"version": 1, "server": SERVER, "run_id": "run", "run_created": 1.0, "round": -3}).encode(),
        json.dumps(
            {"version": 1, "server": SERVER, "run_id": "run", "run_created": 1.0, "round": 3, "more": 1}
        ).encode(),
    ],
)
def test_a_damaged_memory_is_one_line_and_not_forgotten(path, content):
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"cannot tell from .* which rounds were answered: answered\.json") as error:
        started(path)
    assert error.value.hint == f"delete {path}: then the client begins without"
    assert path.read_bytes() == content


@pytest.mark.parametrize("put", [lambda path: path.mkdir(), lambda path: path.symlink_to("nowhere"), os.mkfifo])
def test_what_is_no_file_is_no_memory_either(path, put):
    put(path)
    with pytest.raises(StorageError, match="which rounds were answered"):
        started(path)


@pytest.mark.parametrize("number", [3, 4])
def test_a_folder_that_was_deleted_is_made_anew_and_as_private(tmp_path, number):
    memory = started(tmp_path / "state" / "client_0" / "answered.json")
    memory.note(task(3))
    shutil.rmtree(tmp_path / "state")
    memory.note(task(number))
    assert stat.S_IMODE(memory.path.parent.stat().st_mode) == 0o700
    assert started(memory.path).newest.round == number


def test_a_memory_that_cannot_be_written_is_one_line(path):
    memory = started(path)
    path.parent.joinpath("file").write_text("")
    memory.path = path.parent / "file" / "answered.json"
    with pytest.raises(StorageError):
        memory.note(task(0))
    assert memory.newest is None
