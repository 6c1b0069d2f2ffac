"""A run that is killed at every single write, and started again: nothing is lost, nothing is there twice, nothing is
left half-written.
"""

import io
import os
import shutil
from contextlib import suppress

import pytest
from rich.console import Console

from fccl.apps import run as run_module
from fccl.apps.orchestrator import standing
from fccl.apps.run import Run, held
from fccl.config import load_settings
from fccl.data.prepare import prepare
from fccl.data.shards import read_manifest
from fccl.federation.run_folder import RunFolder
from fccl.paths import DataPaths, LogPaths
from fccl.records.journal import Journal
from fccl.records.run import Validation
from fccl.storage.files import new_folder, replace_folder, sha256_of, write_text
from fccl.storage.reading import read_rows
from fccl.storage.temporary import is_temporary
from fccl.testing.toy import START, ToyLearner, shard
from fccl.tracking.tracker import GuardedTracker, NoTracker
from fccl.transports.in_process import InProcessTransport

BASE = Validation(loss=5.0, examples=3)
CLIENTS, ROUNDS = 2, 2


class Killed(BaseException):
    """The process ends here: nothing that it would have done afterwards happens."""


class Kills:
    """Counts what changes the disk, and kills at one of it; a dead process writes no more.

    Flushing is not waited for.
    """

    CALLS = ("replace", "rename", "unlink", "mkdir", "fsync", "rmdir")

    def __init__(self, monkeypatch):
        self.seen, self.at = 0, -1
        for name in self.CALLS:
            monkeypatch.setattr(
                os, name, self._counted((lambda descriptor: None) if name == "fsync" else getattr(os, name))
            )

    def _counted(self, real):
        def call(*arguments, **options):
            if 0 <= self.at <= self.seen:
                raise Killed
            self.seen += 1
            return real(*arguments, **options)

        return call

    def begin(self, at=-1):
        self.seen, self.at = 0, at


class Cards:
    """As much of a card as is needed."""

    def __init__(self, *of):
        pass

    def adapter(self, adapter):
        return "card"


class Model:
    """As much of a model as a run asks for."""

    made_of = ()

    def initial_adapter(self, seed):
        return START.adapter


class ToyRun(Run):
    """A run of the toy federation, which writes as every run does."""

    def __post_init__(self):
        self.plan = self.settings.round_plan()
        self.aggregation = run_module.aggregation_rule(self.settings)
        self.data = DataPaths(self.settings.data_dir)
        self.data_sha256, self.run_id = sha256_of(self.data.manifest), os.urandom(4).hex()
        self.round, self.created = 0, 1.0
        self.follower = GuardedTracker(self.tracker, self.tell)
        self.validator = lambda phase, adapter, reference: BASE


def save(model, adapter, folder, card):
    with new_folder(folder) as new:
        write_text(new / "README.md", adapter.sha256)
        replace_folder(new, folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from fccl.library.narrow import data_spec

    paths = DataPaths(tmp_path_factory.mktemp("data"))
    prepare(
        data_spec(load_settings({"max_sft_examples": "300", "max_va_examples": "150", "num_clients": str(CLIENTS)})),
        paths,
    )
    return paths


@pytest.fixture
def command(data, tmp_path, monkeypatch):
    """What an orchestrator does when it is started: begin a run, go on with it, or nothing more."""
    monkeypatch.setattr(run_module, "save_peft", save)
    monkeypatch.setattr(run_module, "CardWriter", Cards)
    given = {"num_clients": CLIENTS, "fed_rounds": ROUNDS // 2, "contribution_source": "data_size", "evaluate": False}
    settings = load_settings(given | {"data_dir": str(data.root), "log_dir": str(tmp_path / "logs")})
    manifest = read_manifest(data).model_copy(
        update={
            "topics_by_client": {
                phase: tuple((len(shard(client).sft),) for client in range(CLIENTS)) for phase in ("sft", "va")
            }
        }
    )

    def start(new=False, seed=0):
        wanted = settings.model_copy(update={"seed": seed})
        paths, console = LogPaths(settings.log_dir), Console(file=io.StringIO())
        folder = RunFolder(paths, Journal(paths))
        here = "other" if new else standing(folder, wanted)
        if here == "finished":
            return
        with held(folder, folder.info()):
            run = ToyRun(wanted, console, folder, Model(), manifest, "again", NoTracker())
            state = run.conduct(InProcessTransport(ToyLearner(), shard), here == "unfinished")
            run.finish(state)

    start.settings, start.logs = settings, LogPaths(settings.log_dir)
    return start


def require_whole(logs, expected):
    """One start with the base model's loss, every round and every client's line once, the adapter, and nothing
    half-written.
    """
    rows = list(read_rows(logs.progress))
    started = [row for row in rows if row["event"] == "started"]
    assert [row["validation"]["loss"] for row in started] == [BASE.loss]
    assert [row["round"] for row in rows if row["event"] == "round"] == list(range(ROUNDS))
    assert sum(row["event"] == "finished" for row in rows) == 1
    assert len({row["run_id"] for row in rows}) == 1
    lines = [(row["round"], row["client_id"]) for row in read_rows(logs.client_metrics)]
    assert sorted(lines) == [(number, client) for number in range(ROUNDS) for client in range(CLIENTS)]
    assert (logs.global_final.read_bytes(), (logs.adapter / "README.md").read_text()) == expected
    left = [path.name for path in logs.root.rglob("*") if is_temporary(path.name) or path.name.endswith(".old")]
    assert left == []


def whole(logs):
    return logs.global_final.read_bytes(), (logs.adapter / "README.md").read_text()


def emptied(logs, before=None):
    shutil.rmtree(logs.root, ignore_errors=True)
    if before is not None:
        shutil.copytree(before, logs.root)


def test_a_run_killed_at_any_write_and_started_again_is_whole(command, monkeypatch):
    kills, logs = Kills(monkeypatch), command.logs
    command()
    points, expected = kills.seen, whole(logs)
    assert points > 50
    for at in range(points):
        kills.begin()
        emptied(logs)
        kills.begin(at)
        with suppress(Killed):
            command()
        kills.begin()
        command()
        require_whole(logs, expected)


def test_a_run_killed_while_it_goes_on_is_whole(command, monkeypatch):
    """Killed in the middle, and again at any write of the second start."""
    kills, logs = Kills(monkeypatch), command.logs
    command()
    points, expected = kills.seen, whole(logs)
    kills.begin()
    emptied(logs)
    kills.begin(points * 2 // 3)
    with suppress(Killed):
        command()
    kills.begin()
    half = logs.root.with_name("half")
    os.rename(logs.root, half)
    for at in range(0, points // 3 + 10, 2):
        kills.begin()
        emptied(logs, half)
        kills.begin(at)
        with suppress(Killed):
            command()
        kills.begin()
        command()
        require_whole(logs, expected)


def test_a_run_killed_while_an_earlier_one_is_archived_mixes_nothing(command, monkeypatch):
    """The earlier run is whole in the archive, the new one is whole, whichever write was the last."""
    kills, logs = Kills(monkeypatch), command.logs
    command(seed=1)
    earlier = whole(logs)
    before = logs.root.with_name("before")
    os.rename(logs.root, before)
    kills.begin()
    emptied(logs, before)
    command()
    points, expected = kills.seen, whole(logs)
    for at in range(min(points, 40)):
        kills.begin()
        emptied(logs, before)
        kills.begin(at)
        with suppress(Killed):
            command()
        kills.begin()
        command()
        require_whole(logs, expected)
        archived = [LogPaths(path) for path in sorted(logs.archive.iterdir()) if LogPaths(path).global_final.exists()]
        assert [whole(paths) for paths in archived] == [earlier]
        require_whole(archived[0], earlier)


def test_a_half_archived_run_is_not_resumed(command, monkeypatch):
    kills, logs = Kills(monkeypatch), command.logs
    command()
    folder = RunFolder(logs, Journal(logs))
    entries = len(logs.own_entries())
    before = logs.root.with_name("before")
    os.rename(logs.root, before)
    for at in range(1, entries):
        kills.begin()
        emptied(logs, before)
        kills.begin(at + 1)  # the first makes runs/, the second the run's folder
        with suppress(Killed):
            folder.archive()
        kills.begin()
        if not logs.state.is_file():
            assert standing(folder, command.settings) == "other"
        else:
            assert len(logs.own_entries()) == entries
    folder.archive()
    assert logs.own_entries() == []
