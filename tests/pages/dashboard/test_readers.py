"""Readers that are shared: what several viewers ask for is read once."""

import threading
import time

import pytest

from fccl.pages.dashboard import readers
from fccl.pages.dashboard.readers import Hub, Shared, edition, hub_of
from fccl.paths import LogPaths
from tests.view.logs import Logs


def test_many_viewers_at_once_read_once_and_see_the_same(monkeypatch):
    monkeypatch.setattr(readers, "FRESH_S", 600.0)
    made, seen = [], []

    def make():
        time.sleep(0.2)
        made.append(object())
        return made[-1]

    shared = Shared(make)
    threads = [threading.Thread(target=lambda: seen.append(shared.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert seen == made * 8


def test_what_is_old_is_read_again(monkeypatch):
    monkeypatch.setattr(readers, "FRESH_S", 0.0)
    shared = Shared(iter(range(3)).__next__)
    assert [shared.get(), shared.get()] == [0, 1]


def test_a_reading_that_fails_is_tried_again_by_the_next(monkeypatch):
    monkeypatch.setattr(readers, "FRESH_S", 600.0)
    answers = iter([OSError("not now"), 7])

    def make():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    shared = Shared(make)
    with pytest.raises(OSError, match="not now"):
        shared.get()
    assert shared.get() == 7


def test_a_picture_is_made_once_for_its_key_and_the_oldest_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_PICTURES", 2)
    hub, made = Hub(tmp_path, tmp_path), []
    for key in ("a", "a", "b", "c", "c", "a"):
        hub.picture(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "a"]


def test_the_readers_of_long_lists_of_runs_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_READERS", 2)
    hub = Hub(tmp_path, tmp_path)
    for number in range(5):
        Logs(tmp_path / "runs" / str(number), run_id=str(number)).begin()
        assert hub.run(LogPaths(tmp_path / "runs" / str(number))).run_id == str(number)
    assert len(hub._readers) == 2


def test_the_edition_changes_with_the_records_and_with_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "FRESH_S", 0.0)
    logs = Logs(tmp_path).begin()
    hub = Hub(tmp_path, tmp_path / "none")
    first = edition(hub.run())
    logs.beat(0, "training", 0, time.time())
    assert edition(hub.run()) == first
    logs.round(0)
    assert edition(hub.run()) != first
    second = edition(hub.run())
    logs.event("finished", 1.0)
    assert edition(hub.run()) != second


def test_one_hub_for_the_same_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = hub_of(tmp_path / "logs", tmp_path / "exchange")
    assert hub_of(tmp_path / "logs", tmp_path / "exchange") is first
    assert first.logs.root.is_absolute()
