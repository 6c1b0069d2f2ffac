"""Memory that can still be had, as the system tells it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MACHINE, _CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free_bytes(machine: Path = _MACHINE, container: Path = _CONTAINER) -> int | None:
    """Bytes that the machine can give, or the container around this process if it has a lower limit.

    None where the system says neither.
    """
    found = [each for each in (_of_machine(machine), _of_container(container)) if each is not None]
    return min(found, default=None)


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
