"""Memory that can still be had, and that processes have held, as the system tells it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MACHINE, _CONTAINER, _PROCESSES = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc")


def free_bytes(machine: Path = _MACHINE, container: Path = _CONTAINER) -> int | None:
    """Bytes that the machine can give, or the container around this process if it has a lower limit.

    None where the system says neither.
    """
    found = [each for each in (_of_machine(machine), _of_container(container)) if each is not None]
    return min(found, default=None)


def peak_bytes(process: int | str = "self", table: Path = _PROCESSES) -> int | None:
    """The most memory that a process has held so far, pages that it shares included; None where the system does not
    say it, or the process is gone.
    """
    said = _numbers(table / str(process) / "status").get("VmHWM:")
    return None if said is None else said * 1024


def peaks_below(process: int, table: Path = _PROCESSES) -> tuple[int, ...]:
    """The peaks of all processes that this one has begun, directly or not, and that are still there."""
    parents = {int(each.name): _parent(each) for each in table.glob("[0-9]*")}
    below, found = {process}, set[int]()
    while below := {child for child, parent in parents.items() if parent in below} - found:
        found |= below
    peaks = (peak_bytes(child, table) for child in sorted(found))
    return tuple(peak for peak in peaks if peak is not None)


def _parent(folder: Path) -> int | None:
    return _numbers(folder / "status").get("PPid:")


def _of_machine(path: Path) -> int | None:
    said = _numbers(path).get("MemAvailable:")
    return None if said is None else said * 1024


def _of_container(folder: Path) -> int | None:
    """Its limit (cgroup v2), less what is in use and is no copy of a file."""
    with suppress(OSError, ValueError):  # without a limit the file says `max`
        used = int((folder / "memory.current").read_text()) - _numbers(folder / "memory.stat")["inactive_file"]
        return max(0, int((folder / "memory.max").read_text()) - used)
    return None


def _numbers(path: Path) -> dict[str, int]:
    """The first number of each line, by the line's first word."""
    found = {}
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                name, number = line.split()[:2]
                found[name] = int(number)
    return found
