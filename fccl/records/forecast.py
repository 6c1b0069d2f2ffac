"""A forecast of a run, as values: `logs/plan.json`, and `logs/usage.json` of what the run then took.

Sizes are in bytes, times in seconds. A figure of None is one that nobody could measure.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fccl.records.run import RoundSeconds
from fccl.specs import Phase, Value, exactly


class RoundForecast(Value):
    """One round before it is run: who trains, how many steps all its clients take, and the seconds."""

    round: int = Field(ge=0)
    phase: Phase
    clients: tuple[int, ...]
    steps: int = Field(ge=0)  # exact: of all clients together
    tokens: int = Field(ge=0)  # exact: that they read, padding not counted
    seconds: RoundSeconds | None = None


class TrafficForecast(Value):
    """The bytes that one client receives and sends in a round of one phase: all adapters, exact."""

    phase: Phase
    down: int = Field(ge=0)
    up: int = Field(ge=0)
    once: int = Field(default=0, ge=0)  # received with its first round of the phase: the reference, or factors


class ProcessForecast(Value):
    """The peak of memory in one process, and how many there are of its kind."""

    name: str
    count: int = Field(ge=1)
    peak: int | None = Field(default=None, ge=0)


class SpaceForecast(Value):
    """Files of one kind: `exact` where their bytes follow from the settings alone; records of a run are estimated."""

    name: str
    size: int = Field(ge=0)
    exact: bool


class Obstacle(Value):
    """Something that does not fit, and the setting to change."""

    what: str
    hint: str


class OtherFigure(Value):
    """A figure that belongs to the plan and is neither time nor space, such as a privacy budget."""

    name: str
    predicted: str
    note: str = ""


class Probe(Value):
    """The steps that the figures were measured in, and how long that took."""

    clients: int = Field(ge=1)
    steps: int = Field(ge=0)
    seconds: float = Field(ge=0)


class Forecast(Value):
    """A run before it is run: rounds, seconds, memory, disk, traffic, and what will not fit."""

    version: Annotated[int, exactly(1)] = 1
    created: float
    settings: dict[str, str]
    rounds: tuple[RoundForecast, ...]
    start: float | None = None  # before round 1: the base model on the validation split
    finish: float | None = None  # after the last round: final adapter and export
    evaluation: float | None = None
    processes: tuple[ProcessForecast, ...] = ()
    space: tuple[SpaceForecast, ...] = ()
    traffic: tuple[TrafficForecast, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    others: tuple[OtherFigure, ...] = ()
    probe: Probe | None = None  # None: it was not tried

    @property
    def steps(self) -> int:
        """Of all clients in all rounds."""
        return sum(each.steps for each in self.rounds)

    @property
    def seconds(self) -> float | None:
        """Of the whole run, its evaluation included."""
        times = [each.seconds.total if each.seconds else None for each in self.rounds]
        return total([self.start, *times, self.finish, self.evaluation])

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(each.size for each in self.space)

    @property
    def memory(self) -> int | None:
        """The peaks of all processes together. Pages that they share count in each."""
        found = total([None if each.peak is None else each.count * each.peak for each in self.processes])
        return None if found is None else int(found)


class Usage(Value):
    """`usage.json`: what a run took that no record of a round says."""

    version: Annotated[int, exactly(1)] = 1
    run_id: str
    evaluation: float | None = Field(default=None, ge=0)
    server: int | None = Field(default=None, ge=0)  # peak of memory of the process that aggregates
    workers: tuple[int, ...] = ()  # of each process that trains beside it


def total(parts: list[float | None] | list[int | None]) -> float | None:
    """The sum; None where a part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
