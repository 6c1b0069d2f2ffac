"""The processes of `fccl run` begin to import while this one does, and not after it."""

from __future__ import annotations

import os
from pathlib import Path

from fccl.config import Settings
from fccl.processes.launch import FORKS, Launch

_MOST = 64  # as of CLIENT_PROCESSES
_GPU = Path("/dev/nvidiactl")


def head_start(settings: Settings) -> Launch | None:
    """A child for the processes that these settings will probably have; None where they will have one.

    Torch alone knows the cores that it takes, and is not there yet. So this is a guess, and a run may end the child.
    """
    clients, cores = settings.clients_per_round or settings.num_clients, _cores()
    most = min(clients, settings.client_processes or 2 * cores, _MOST)
    if not FORKS or most == 1 or (cores == 1 and not settings.client_processes) or _GPU.exists():
        return None
    return Launch(most, "fccl.library.side_by_side")


def _cores() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else len(os.sched_getaffinity(0))
