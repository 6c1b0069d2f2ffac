"""`fccl client`: its private folder, and what it keeps there."""

import shutil
import stat

import pytest

from fccl.apps.main import main
from fccl.config import Settings, load_settings
from fccl.errors import FederationError, StorageError
from fccl.keys import client_keys, create_keys
from fccl.library.client import cache_of, exchange_client, memory_of
from fccl.paths import KeyPaths, StatePaths
from fccl.storage.locks import exclusive
from fccl.training.learner import GenericLearner
from fccl.training.personal import PersonalLearner
from fccl.training.private import PrivateLearner
from fccl.transports.exchange.memory import Answered
from fccl.transports.protocol import Listener


@pytest.fixture
def paths(tmp_path):
    return StatePaths(tmp_path / "state")


@pytest.fixture
def keys(tmp_path):
    create_keys(KeyPaths(tmp_path / "keys"), 2)
    return client_keys(KeyPaths(tmp_path / "keys"), 1)


def test_it_has_a_private_folder_and_without_keys_nothing_to_remember(paths):
    said = []
    for _ in range(2):
        with memory_of(paths, 1, None, said.append) as memory:
            assert memory is None
    assert stat.S_IMODE(paths.client(1).stat().st_mode) == 0o700
    assert list(paths.root.rglob("*")) == [paths.client(1)]
    assert said == []


def test_with_keys_it_remembers_its_servers_rounds(paths, keys):
    with memory_of(paths, 1, keys, print) as memory:
        assert (memory.server, memory.newest, memory.path) == (keys.public.server, None, paths.answered(1))


def test_what_a_killed_process_was_writing_is_swept(paths, keys):
    paths.client(1).mkdir(parents=True)
    left = paths.client(1) / ".answered.json.0123456789abcdef.tmp"
    left.write_text("{")
    with memory_of(paths, 1, keys, print) as memory:
        assert (memory.newest, left.exists()) == (None, False)


def test_a_folder_is_one_processs_while_it_remembers(paths, keys):
    with memory_of(paths, 1, keys, print):
        with (
            pytest.raises(FederationError, match=r"client 1 is at work on .*/state/client_1 already"),
            memory_of(paths, 1, keys, print),
        ):
            pass
        with memory_of(paths, 0, keys, print), memory_of(paths, 1, None, print):
            pass
    with memory_of(paths, 1, keys, print):
        pass


def test_a_file_system_that_keeps_no_modes_is_said(paths, monkeypatch):
    paths.client(1).mkdir(parents=True)
    paths.client(1).chmod(0o755)
    monkeypatch.setattr("os.fchmod", lambda descriptor, mode: None)
    said = []
    with memory_of(paths, 1, None, said.append):
        pass
    assert said == [f"{paths.client(1)} is not private: its file system lets others in"]


def test_what_an_earlier_process_has_left_damaged_is_said(paths, keys):
    with memory_of(paths, 1, keys, print):
        paths.answered(1).write_text("{")
    with (
        pytest.raises(StorageError, match=r"which rounds were answered: answered\.json"),
        memory_of(paths, 1, keys, print),
    ):
        pass


@pytest.mark.parametrize(
    ("put", "error"),
    [
        (
            lambda path: path.write_text(""),
            "error: cannot write state/client_1: a part of the path is a file, not a folder\n  hint: ",
        ),
        (
            lambda path: path.symlink_to("nowhere"),
            "error: cannot write state/client_1: a part of the path is a file, not a folder\n  hint: ",
        ),
        (
            lambda path: (path.mkdir(), (path / "client_1").write_text("")),
            "error: cannot keep state/client_1 private: it is a link or a file\n  hint: move it away",
        ),
        (
            lambda path: (path.mkdir(), (path / "client_1").symlink_to("..")),
            "error: cannot keep state/client_1 private: it is a link or a file\n  hint: move it away",
        ),
    ],
)
def test_a_state_folder_that_cannot_be_is_one_line_before_anything_is_written(
    tmp_path, monkeypatch, capsys, put, error
):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "state")
    assert main(["client", "--client-id", "1"]) == 1
    assert capsys.readouterr().err.startswith(error)
    assert not (tmp_path / "exchange").exists()


def test_its_cache_is_in_its_private_folder_and_has_the_bound_of_the_settings(paths):
    cache = cache_of(Settings(state_dir=paths.root, client_id=1, cache_mb=3), print)
    assert (cache.folder, cache.most_bytes) == (paths.client(1) / "cache", 3_000_000)


def test_what_the_models_and_the_learner_keep_on_the_disk_is_in_one_cache(paths, tmp_path):
    settings = Settings(state_dir=paths.root, exchange_dir=tmp_path / "exchange", client_id=1, cache_mb=3)
    with exchange_client(settings, Listener()) as client:
        assert isinstance(client.learner, PrivateLearner)
        assert isinstance(client.learner.learner, PersonalLearner)
        learner = client.learner.learner.learner
        assert isinstance(learner, GenericLearner)
        assert learner.models.activations.disk is learner.references.cache
        assert learner.references.cache.folder == paths.client(1) / "cache"


def test_another_clients_lock_file_is_no_lock_of_this_one(paths, keys):
    with exclusive(paths.client(0) / "client.lock", "client 0"), memory_of(paths, 1, keys, print):
        pass


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, ()),
        ({"keys_dir": "keys"}, ("answered.json",)),
        ({"keys_dir": "keys", "dp_where": "client"}, ("answered.json", "spent.jsonl")),
        ({"secure_aggregation": True}, ("masked.jsonl",)),
    ],
)
def test_a_state_folder_that_was_deleted_is_said_where_the_client_must_remember(
    paths, keys, tmp_path, monkeypatch, asked, kept
):
    monkeypatch.chdir(tmp_path)
    settings = load_settings({**asked, "state_dir": str(paths.root), "exchange_dir": "exchange", "client_id": 1})

    def said():
        lines = []
        with exchange_client(settings, Listener(line=lines.append)):
            return [line for line in lines if "remembers nothing" in line]

    line = f"{paths.client(1)}/ has no {' and no '.join(kept)}: client 1 remembers nothing of it, as at its first start"
    assert said() == ([line] if kept else [])
    for name in kept:
        (paths.client(1) / name).write_text("")
    with (paths.client(1) / "answered.json").open("w") as file:
        file.write(Answered(server=keys.public.server, run_id="run", run_created=1.0, round=0).model_dump_json())
    assert said() == []
    shutil.rmtree(paths.root)
    assert said() == ([line] if kept else [])
