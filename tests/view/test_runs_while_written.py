"""A reader looks while a run is being written, goes, or is followed by another."""

import shutil
import threading
import time

import pytest

from fccl.federation.run_folder import RunFolder
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.journal import Journal
from fccl.testing.toy import ToyLearner
from fccl.view.exchange import ExchangeReader
from fccl.view.runs import RunReader, list_runs, tail
from fccl.view.status import run_status
from tests.view.logs import Logs, line
from tests.view.toy_runs import FILES, INFO, same, toy_run


def test_a_run_that_appears_changes_and_goes(logs):
    reader = RunReader(logs.paths)
    assert not reader.refresh().exists
    logs.begin()
    logs.round(0)
    logs.beat(0, "training", 1, 1150.0)
    assert (reader.refresh().run_id, len(reader.refresh().rounds)) == ("run", 1)
    RunFolder(logs.paths, Journal(logs.paths)).archive()
    gone = reader.refresh()
    assert (gone.exists, len(gone.rounds), gone.statuses, gone.state) == (False, 0, (), None)
    other = Logs(logs.root, run_id="other").begin()
    view = reader.refresh()
    assert (view.run_id, len(view.rounds), view.furthest) == ("other", 0, 0.0)
    other.round(0)
    assert reader.refresh().shares["client"].tolist() == [0, 1, 2]


def test_the_next_run_in_the_same_files_starts_over(logs):
    logs.begin()
    logs.round(0)
    logs.round(1)
    reader = RunReader(logs.paths)
    assert len(reader.refresh().rounds) == 2
    logs.paths.run.write_bytes(
        line(INFO.model_copy(update={"run_id": "second"}))
    )  # its lines follow those of the first
    second = Logs(logs.root, run_id="second")
    second.round(0)
    view = reader.refresh()
    assert (view.run_id, view.rounds["round"].tolist(), view.unreadable) == ("second", [0], 0)


def test_progress_never_goes_back_while_one_run_lasts(logs):
    logs.begin()
    logs.round(0)
    reader = RunReader(logs.paths)
    logs.beat(0, "done", 1, 1150.0)
    logs.beat(1, "training", 1, 1150.0, step=5, steps=10)
    view = reader.refresh()
    assert view.furthest == run_status(view, 1150.0).progress == pytest.approx((1 + 0.5) / 4)
    logs.beat(0, "training", 1, 1160.0, step=1, steps=10)  # started again
    logs.beat(1, "training", 1, 1160.0, step=1, steps=10)
    assert run_status(reader.refresh(), 1160.0).progress == pytest.approx((1 + 0.5) / 4)
    logs.round(1)
    assert run_status(reader.refresh(), 1200.0).progress == pytest.approx(2 / 4)


def test_a_reader_beside_a_run_and_a_vandal_never_raises(logs):
    """One thread runs rounds, another takes files away and brings others; meanwhile every look is a valid view."""
    stop, errors = threading.Event(), []

    def write():
        try:
            for number in range(40):
                logs.begin()
                for round_number in range(4):
                    logs.round(round_number)
                    logs.beat(round_number % 3, "training", round_number, float(number))
        finally:
            stop.set()

    def destroy():
        paths = [getattr(logs.paths, name) for name in FILES] + [logs.paths.status(client) for client in range(3)]
        while not stop.is_set():
            for path in paths:
                path.unlink(missing_ok=True)
            shutil.rmtree(logs.root / "runs", ignore_errors=True)

    def look():
        reader = RunReader(logs.paths, ExchangePaths(logs.root))
        other = ExchangeReader(ExchangePaths(logs.root))
        try:
            while not stop.is_set():
                view = reader.refresh()
                run_status(view, time.time())
                tail(view, "progress", 5)
                other.refresh()
                list_runs(logs.root)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for work in (write, destroy, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    logs.begin()
    logs.round(0)
    assert RunReader(logs.paths).refresh().exists


def test_a_run_read_while_it_is_written_ends_as_its_records(tmp_path):
    paths, reader = LogPaths(tmp_path), RunReader(LogPaths(tmp_path))
    run = threading.Thread(target=lambda: toy_run(paths, ToyLearner()))
    run.start()
    seen = [0]
    while run.is_alive():
        view = reader.refresh()
        seen.append(len(view.rounds))
        assert view.state is None or len(view.rounds) >= view.state.next_round
        assert view.unreadable == 0
    run.join()
    assert seen == sorted(seen)
    same(reader.refresh(), RunReader(paths).refresh())
    assert len(reader.refresh().rounds) == 4
