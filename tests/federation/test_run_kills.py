"""A run that is killed at every single write, and started again: nothing is lost, nothing is there twice, nothing is
left half-written.
"""

import os
import shutil
from contextlib import suppress

import pytest

from fccl.errors import FederationError
from fccl.federation.kept_rounds import kept_round, kept_rounds
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.messages import ResidualsInFolders
from fccl.paths import LogPaths
from fccl.records.run import RunEvent, Validation
from fccl.specs.codecs import CodecSpec
from fccl.storage.files import new_folder, replace_folder, write_text
from fccl.storage.reading import read_records, read_rows
from fccl.storage.temporary import is_temporary
from fccl.testing.coded import coding
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport
from tests.examples import some

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


def save(adapter, folder):
    with new_folder(folder) as new:
        write_text(new / "README.md", adapter.sha256)
        replace_folder(new, folder)


class Command:
    """Starts again and again, as an orchestrator is: it begins a run, goes on with it, or does nothing more."""

    def __init__(self, root):
        self.logs, self.codec = LogPaths(root), None

    def __call__(self, seed=7):
        folder = RunFolder.at(self.logs.root)
        info, state = folder.info(), folder.state()
        same = info is not None and state is not None and info.settings == {"seed": str(seed)}
        if same and state.finished and finished(self.logs):
            return
        fed = federation(CLIENTS, ROUNDS // 2)
        object.__setattr__(fed, "plan", fed.plan.model_copy(update={"seed": seed}))
        fed = fed if self.codec is None else coding(fed, self.codec)
        object.__setattr__(fed, "validate", lambda phase, adapter, reference: BASE)
        with folder.held(folder.info()):
            run = Run(fed, folder, lambda: START.adapter, settings={"seed": str(seed)}, export=save)
            residuals = ResidualsInFolders(self.logs.residuals_of)
            transport = InProcessTransport(ToyLearner(), shard, residuals=residuals)
            list(run.rounds(transport, resume=same))
            run.finish(transport)


def finished(logs):
    return bool(read_records(logs.progress, RunEvent, lambda row: row.get("event") == "finished"))


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path / "logs")


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
    assert kept_rounds(logs) == tuple(range(ROUNDS))
    for number in range(ROUNDS):
        kept = kept_round(logs, number)
        assert [update.adapter.load().form for update in kept.updates()] == [kept.adapter.form] * CLIENTS
    left = [path.name for path in logs.root.rglob("*") if is_temporary(path.name) or path.name.endswith(".old")]
    assert left == []


def whole(logs):
    return logs.global_final.read_bytes(), (logs.adapter / "README.md").read_text()


def emptied(logs, before=None):
    shutil.rmtree(logs.root, ignore_errors=True)
    if before is not None:
        shutil.copytree(before, logs.root)


def killed(kills, at, command):
    """The command, dead at one of its writes."""
    kills.begin(at)
    with suppress(Killed):
        command()
    kills.begin()


def whole_after_each(points, kills, command, expected, before=None):
    """Killed at each of these writes from the same beginning and started again, the run is whole."""
    for at in points:
        kills.begin()
        emptied(command.logs, before)
        killed(kills, at, command)
        command()
        require_whole(command.logs, expected)
        yield at


shares = pytest.mark.parametrize("share", [some, pytest.param(list, id="all", marks=pytest.mark.slow)])


@shares
def test_a_run_killed_at_any_write_and_started_again_is_whole(command, monkeypatch, share):
    kills, logs = Kills(monkeypatch), command.logs
    command()
    points, expected = kills.seen, whole(logs)
    assert points > 50
    chosen = share(range(points))
    assert list(whole_after_each(chosen, kills, command, expected)) == chosen


@shares
def test_under_a_codec_too(command, monkeypatch, share):
    """The clients' residuals, the server's, and the adapter in few bytes are of the same round as the state."""
    kills, logs, command.codec = Kills(monkeypatch), command.logs, CodecSpec(name="topk", share=0.3)
    command()
    points, expected = kills.seen, whole(logs)
    tried = share(range(points))
    assert list(whole_after_each(tried, kills, command, expected)) == tried


@shares
def test_a_run_killed_while_it_goes_on_is_whole(command, monkeypatch, share):
    """Killed in the middle, and again at any write of the second start."""
    kills, logs = Kills(monkeypatch), command.logs
    command()
    points, expected = kills.seen, whole(logs)
    kills.begin()
    emptied(logs)
    killed(kills, points * 2 // 3, command)
    half = logs.root.with_name("half")
    os.rename(logs.root, half)
    assert list(whole_after_each(share(range(points // 3 + 10)), kills, command, expected, half))


@shares
def test_a_run_killed_while_an_earlier_one_is_archived_mixes_nothing(command, monkeypatch, share):
    """The earlier run is whole in the archive, the new one is whole, whichever write was the last."""
    kills, logs = Kills(monkeypatch), command.logs
    command(seed=8)
    earlier = whole(logs)
    before = logs.root.with_name("before")
    os.rename(logs.root, before)
    kills.begin()
    emptied(logs, before)
    command()
    points, expected = kills.seen, whole(logs)
    for _ in whole_after_each(share(range(min(points, 40))), kills, command, expected, before):
        archived = [LogPaths(path) for path in sorted(logs.archive.iterdir()) if LogPaths(path).global_final.exists()]
        assert [whole(paths) for paths in archived] == [earlier]
        require_whole(archived[0], earlier)


def test_a_half_archived_run_is_not_resumed(command, monkeypatch):
    kills, logs = Kills(monkeypatch), command.logs
    command()
    folder = RunFolder.at(logs.root)
    entries = len(logs.own_entries())
    before = logs.root.with_name("before")
    os.rename(logs.root, before)
    for at in range(1, entries):
        kills.begin()
        emptied(logs, before)
        killed(kills, at + 1, folder.archive)  # the first makes runs/, the second the run's folder
        if not logs.state.is_file():
            with pytest.raises(FederationError, match="holds no run to resume"):
                folder.resume()
        else:
            assert len(logs.own_entries()) == entries
    folder.archive()
    assert logs.own_entries() == []
