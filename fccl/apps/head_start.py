"""The processes of `fccl run` and `fccl evaluate` begin to import while the command does, and not after it."""

from __future__ import annotations

import os
from pathlib import Path

from fccl.config import Settings
from fccl.paths import LogPaths
from fccl.processes.launch import FORKS, Launch

_MOST = 64  # as of CLIENT_PROCESSES
_GPU = Path("/dev/nvidiactl")


def head_start(command: str, settings: Settings) -> Launch | None:
    """A child for the processes that a command will probably have; None where it will have one, or has none.

    Torch alone knows the cores that it takes, and is not there yet. So this is a guess, and a command may end the
    child.
    """
    if command == "run":
        return _launch(settings.clients_per_round or settings.num_clients, settings, "fccl.library.side_by_side")
    if command == "evaluate" and LogPaths(settings.log_dir).run.is_file():
        return _launch(_MOST, settings, "fccl.evaluation.beside")  # what there is to evaluate is not known yet
    return None


def _launch(jobs: int, settings: Settings, module: str) -> Launch | None:
    cores = _cores()
    most = min(jobs, settings.client_processes or 2 * cores, _MOST)
    if not FORKS or most == 1 or (cores == 1 and not settings.client_processes) or _GPU.exists():
        return None
    return Launch(most, module)


def _cores() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else len(os.sched_getaffinity(0))
