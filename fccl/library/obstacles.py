"""Obstacles of a run: all that will not fit, in words, each with the setting to change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fccl.config import Settings
from fccl.display.words import plural, size
from fccl.federation.keeper import MB
from fccl.federation.workload import KeptSpace
from fccl.records.forecast import Obstacle, ProcessForecast


@dataclass(frozen=True)
class Room:
    """The bytes that the machine has: of memory in all (a container's limit where that is lower), of it free now, and
    of the disk.
    """

    memory: int
    free: int | None
    disk: int


def free_disk(folder: Path) -> int:
    """The free bytes where this folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def obstacles(
    settings: Settings, processes: Sequence[ProcessForecast], kept: KeptSpace, needed: int, room: Room
) -> tuple[Obstacle, ...]:
    """All of them; empty where everything fits. `needed` is the disk's."""
    return (*_memory(settings, processes, room), *_disk(settings, kept, needed, room), *_kept(settings, kept))


def _memory(settings: Settings, processes: Sequence[ProcessForecast], room: Room) -> Iterator[Obstacle]:
    peaks = {each.name: (each.count, each.peak or 0) for each in processes}
    need = sum(count * peak for count, peak in peaks.values())
    if need > room.memory:
        what = f"memory: {size(need)} are needed, this machine or its container has {size(room.memory)}"
    elif room.free is not None and need > room.free:
        what = f"memory: {size(need)} are needed, {size(room.free)} are free now"
    else:
        return
    yield Obstacle(what=what, hint=_less_memory(settings, peaks, min(room.memory, room.free or room.memory)))


def _less_memory(settings: Settings, peaks: dict[str, tuple[int, int]], room: int) -> str:
    """The setting that costs least: fewer processes, smaller steps, shorter texts."""
    count, peak = peaks.get("clients", (1, 0))
    server = next((peak for name, (_, peak) in peaks.items() if name != "clients"), 0)
    fit = (room - server) // peak if peak else 0
    if count > 1 and fit >= 1:
        return f"CLIENT_PROCESSES={min(fit, count - 1)} needs less"
    if settings.train_spec("va").at_a_time > 1:
        return f"MICRO_BATCH_SIZE={max(1, settings.train_spec('va').at_a_time // 2)} needs less and gives the same sums"
    return "a smaller MAX_LENGTH or model needs less"


def _disk(settings: Settings, kept: KeptSpace, needed: int, room: Room) -> Iterator[Obstacle]:
    if needed <= room.disk:
        return
    less = kept.size - (needed - room.disk)
    hint = f"KEEP_UPDATES_MB={max(0, less // MB)} needs less" if less >= 0 else "free some space, or another LOG_DIR"
    yield Obstacle(what=f"disk: {size(needed)} are needed, {size(room.disk)} are free", hint=hint)


def _kept(settings: Settings, kept: KeptSpace) -> Iterator[Obstacle]:
    if settings.keep_updates_mb and kept.size < kept.whole:
        what = f"kept updates: there is room for the last {plural(kept.rounds, 'round')}"
        yield Obstacle(what=what, hint=f"KEEP_UPDATES_MB={-(-kept.whole // MB)} keeps all of them")
