import importlib
import sys
import time

import pytest

from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.transports.exchange import collect, liveness, watch
from fccl.transports.exchange.server import ExchangeTransport


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path / "exchange")


@pytest.fixture
def transport(paths, tmp_path):
    """Not entered; the tests give it a spec."""

    def made(keys=None, **spec):
        return ExchangeTransport(paths, exchange_spec(4, **({"timeout_s": 60.0} | spec)), tmp_path / "received", keys)

    return made


class Clock:
    """The clock by which a server judges its clients: the real one, and as far ahead as a test puts it.

    So limits are minutes, which no busy machine exceeds, and pass at the event that a test names.
    """

    def __init__(self):
        self.ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (collect, liveness):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(watch, "RESCAN_S", 0.02)  # a server that waits by the real clock sees the other one change
    return clock


@pytest.fixture(scope="session", autouse=True)
def moves_are_told_at_once():
    """watchdog keeps a file's leaving the folder back for half a second, in case it comes to another place that it
    watches. Each refused answer leaves, and closing the watcher waits for the rest of the half second.
    """
    grouper = (
        importlib.import_module("watchdog.observers.inotify_move_event_grouper") if sys.platform == "linux" else None
    )
    with pytest.MonkeyPatch.context() as patch:
        if grouper is not None:
            patch.setattr(grouper.InotifyMoveEventGrouper, "delay", 0.01)
        yield
