"""A tracker is opened before the run, told everything once, and never ends the run."""

import sys

import pytest

from fccl.errors import SettingsError
from fccl.tracking.tracker import GuardedTracker, NoTracker, tracker_for
from tests.view.logs import BASE


class Recorder(NoTracker):
    """Remembers what it was told; `broken` calls fail."""

    def __init__(self, *broken):
        self.broken, self.heard = broken, []

    def hear(self, call, what):
        self.heard.append((call, what))
        if call in self.broken:
            raise ConnectionError("no route to the server\nand a second line")

    def started(self, info, base):
        self.hear("started", info.run_id)

    def round(self, record, metrics):
        self.hear("round", record.round)

    def evaluated(self, report):
        self.hear("evaluated", report.model)

    def ended(self, status):
        self.hear("ended", status)


def follow(told, tracker, said, error=None):
    with GuardedTracker(tracker, said.append) as follower:
        follower.started(told.info, BASE)
        for record, metrics in told.rounds():
            follower.round(record, metrics)
        if error is not None:
            raise error
        follower.evaluated(told.report)


def test_a_tracker_hears_everything_in_order(told):
    tracker, said = Recorder(), []
    follow(told, tracker, said)
    assert [call for call, _ in tracker.heard] == ["started", *["round"] * 4, "evaluated", "ended"]
    assert tracker.heard[-1] == ("ended", "finished")
    assert not said


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "interrupted"), (SettingsError("no"), "failed"), (MemoryError(), "failed")],
)
def test_it_hears_how_the_run_ended(told, error, status):
    tracker = Recorder()
    with pytest.raises(type(error)):
        follow(told, tracker, [], error)
    assert tracker.heard[-1] == ("ended", status)


@pytest.mark.parametrize("call", ["round", "evaluated", "ended"])
def test_one_that_fails_is_left_alone_with_one_line(told, call):
    tracker, said = Recorder(call), []
    follow(told, tracker, said)
    assert len(said) == 1
    assert "ConnectionError: no route to the server. The run goes on" in said[0]
    assert [heard for heard, _ in tracker.heard].count(call) == 1


def test_one_that_does_not_open_ends_the_command_before_the_run(told):
    tracker = Recorder("started")
    with pytest.raises(SettingsError, match="does not open: ConnectionError: no route") as error:
        follow(told, tracker, [])
    assert "--track" in error.value.hint
    assert len(tracker.heard) == 1, "what never opened is not closed"


def test_a_run_that_goes_on_does_so_without_it(told):
    tracker, said = Recorder("started"), []
    with GuardedTracker(tracker, said.append) as follower:
        follower.resumed(told.info, BASE, list(told.rounds(2)), 2)
        follower.round(*told.rounds()[2])
    assert len(tracker.heard) == len(said) == 1


def test_a_resumed_run_tells_all_rounds(told):
    tracker = Recorder()
    with GuardedTracker(tracker, print) as follower:
        follower.resumed(told.info, BASE, list(told.rounds(2)), 2)
        follower.round(*told.rounds()[2])
    assert [what for call, what in tracker.heard if call == "round"] == [0, 1, 2]


def test_before_a_run_begins_there_is_nothing_to_end(told):
    tracker = Recorder()
    with GuardedTracker(tracker, print):
        pass
    assert not tracker.heard


@pytest.mark.parametrize(("kind", "package"), [("tensorboard",) * 2, ("mlflow", "mlflow-skinny"), ("wandb",) * 2])
def test_what_is_not_installed_is_said_with_what_installs_it(told, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, kind, None)  # as `find_spec` sees a package that is not there
    with pytest.raises(SettingsError, match=f"TRACK={kind} needs {package}") as error:
        tracker_for(kind, told.paths)
    assert error.value.hint == f'pip install "fccl[{kind}]"'
    assert not told.paths.root.exists()


def test_without_a_tracker_nothing_is_written(told):
    follow(told, tracker_for("none", told.paths), [])
    assert not told.paths.root.exists()
