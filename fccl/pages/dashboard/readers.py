"""The readers of a folder, kept between reruns and shared by all viewers: each line of a log is read once."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar, cast

from fccl.paths import ExchangePaths, LogPaths
from fccl.view.exchange import ExchangeReader
from fccl.view.runs import RunReader, list_runs
from fccl.view.tail import ComparisonReader
from fccl.view.values import Compared, ExchangeView, RunEntry, RunView

FRESH_S = 0.5  # what was read so recently is not read again
MOST_READERS = 8  # archived runs that stay in memory
MOST_PICTURES = 200
Made = TypeVar("Made")


@dataclass
class Shared(Generic[Made]):
    """A value that is made anew at most once in `every` times `FRESH_S`, by one viewer for all."""

    make: Callable[[], Made]
    every: int = 1  # in units of `FRESH_S`
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: Made | None = None
    _at: float = -math.inf

    def get(self) -> Made:
        with self._lock:
            if time.monotonic() - self._at >= self.every * FRESH_S:
                self._made = self.make()
                self._at = time.monotonic()
            return cast(Made, self._made)


class Hub:
    """All that the page reads, of one `LOG_DIR` and one `EXCHANGE_DIR`."""

    def __init__(self, log_dir: Path, exchange_dir: Path) -> None:
        self.logs, self.exchange_paths = LogPaths(log_dir), ExchangePaths(exchange_dir)
        self._lock = threading.Lock()
        self._runs = Shared(lambda: list_runs(log_dir), every=4)  # a look into the folder of every earlier run
        self._exchange = Shared(ExchangeReader(self.exchange_paths).refresh)
        self._compared = Shared(ComparisonReader(self.logs.compare.results).refresh)
        self._readers: OrderedDict[Path, Shared[RunView]] = OrderedDict()
        self._pictures: OrderedDict[Hashable, object] = OrderedDict()

    def runs(self) -> tuple[RunEntry, ...]:
        """The runs that can be chosen, the current one first."""
        return self._runs.get()

    def exchange(self) -> ExchangeView:
        """The exchange directory now."""
        return self._exchange.get()

    def compared(self) -> Compared | None:
        """The results of `fccl compare`, once there are some."""
        return self._compared.get()

    def run(self, paths: LogPaths | None = None) -> RunView:
        """One run now; without `paths` the one in `LOG_DIR`, whichever that is."""
        paths = paths or self.logs
        with self._lock:
            reader = self._readers.get(paths.root)
            if reader is None:
                exchange = self.exchange_paths if paths.root == self.logs.root else None
                reader = self._readers[paths.root] = Shared(RunReader(paths, exchange).refresh)
            self._readers.move_to_end(paths.root)
            while len(self._readers) > MOST_READERS:
                self._readers.popitem(last=False)
        return reader.get()

    def picture(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The value of `make`, kept under `key`: a chart is drawn once for all viewers, and again when its key says
        that there is something new.
        """
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return cast(Made, self._pictures[key])
        made = make()
        with self._lock:
            self._pictures[key] = made
            while len(self._pictures) > MOST_PICTURES:
                self._pictures.popitem(last=False)
        return made


def edition(view: RunView) -> Hashable:
    """A value that changes when the records of a run do; charts and tables are kept under it."""
    lengths = tuple(len(part) for part in (view.rounds, view.shares, view.exclusions, view.metrics, view.events))
    return view.run_id, lengths, view.unreadable, id(view.evaluation), id(view.manifest)


@lru_cache(maxsize=4)
def hub_of(log_dir: Path, exchange_dir: Path) -> Hub:
    """One hub for every pair of folders in this process, so for all viewers."""
    return Hub(log_dir.absolute(), exchange_dir.absolute())
