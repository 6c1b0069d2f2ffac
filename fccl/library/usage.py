"""The memory and the time that a run takes, where no record of a round says them: `LOG_DIR/usage.json`."""

from __future__ import annotations

import os

from fccl.config import Settings
from fccl.paths import LogPaths
from fccl.processes.memory import peak_bytes, peaks_below
from fccl.records.forecast import Usage
from fccl.storage.files import write_text


def usage_so_far(run_id: str, evaluation: float | None = None) -> Usage:
    """The peaks of this process and of those that it has begun, as they are now."""
    return Usage(run_id=run_id, evaluation=evaluation, server=peak_bytes(), workers=peaks_below(os.getpid()))


def record_usage(logs: LogPaths, run_id: str, settings: Settings, evaluation: float) -> None:
    """Write it into the run's folder, while the clients' processes are still there. Raises `StorageError`.

    Under noise at the server it says no memory: peaks follow from the longest example of whoever was drawn, and have
    no noise.
    """
    withheld = settings.dp_where == "server"
    found = Usage(run_id=run_id, evaluation=evaluation) if withheld else usage_so_far(run_id, evaluation)
    write_text(logs.usage, found.model_dump_json(indent=1) + "\n")
