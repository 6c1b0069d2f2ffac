"""The answers that lie beside a run, as a reader finds them now. Nothing that lies there, or is missing, raises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fccl.paths import AfterPaths, LogPaths
from fccl.records.after import ClientMatrix, Forgotten, Influence, Replay, RunCheck
from fccl.storage.reading import Kind, parsed, read_small

_LARGEST = 2**24  # bytes
MOST_ANSWERS = 50  # replays of one run, and clients that were taken out, that are looked at


@dataclass(frozen=True)
class RunAnswers:
    """All that was asked about one run: replays by their names, the others once."""

    influence: Influence | None = None
    matrix: ClientMatrix | None = None
    check: RunCheck | None = None
    replays: tuple[Replay, ...] = ()
    forgotten: tuple[Forgotten, ...] = ()

    @property
    def any(self) -> bool:
        """Whether anything was asked."""
        return bool(self.influence or self.matrix or self.check or self.replays or self.forgotten)


def read_answers(logs: LogPaths, run_id: str) -> RunAnswers:
    """The answers beside a run: in its own log folder, or in the one above where it has moved to `runs/`."""
    if not run_id or "/" in run_id:
        return RunAnswers()
    places = [logs.after(run_id), LogPaths(logs.root.parent.parent).after(run_id)]
    return RunAnswers(
        influence=next(_values([place.influence for place in places], Influence, run_id), None),
        matrix=next(_values([place.matrix for place in places], ClientMatrix, run_id), None),
        check=next(_values([place.check for place in places], RunCheck, run_id), None),
        replays=tuple(_values(_records(places, "replay-*"), Replay, run_id)),
        forgotten=tuple(_values(_records(places, "forget-*"), Forgotten, run_id)),
    )


def _records(places: list[AfterPaths], pattern: str) -> list[Path]:
    found = (place.record(folder) for place in places for folder in place.root.glob(pattern))
    return sorted(found, key=lambda path: path.parent.name)[:MOST_ANSWERS]


def _values(paths: list[Path], kind: type[Kind], run_id: str) -> Iterator[Kind]:
    """Those of these files that hold such a value, of this very run."""
    for path in paths:
        content = read_small(path, _LARGEST)
        value = None if content is None else parsed(content, kind, strict=False)
        if value is not None and getattr(value, "run_id", None) == run_id:
            yield value
