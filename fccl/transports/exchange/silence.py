"""`Silence`: a hint for a client that has heard nothing new for long while a round is open."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fccl.display.plain_text import printable
from fccl.transports.exchange.wire import TaskFile

QUIET_S = 900.0  # longer than a round of the usual settings waits for its clients


@dataclass
class Silence:
    """Since when nothing is new: no other task, and nothing to do for this client."""

    after_s: float
    _task: TaskFile | None = None
    _since: float = field(default_factory=time.monotonic)

    def broken(self) -> None:
        """Something has happened."""
        self._since = time.monotonic()

    def line(self, task: TaskFile | None) -> str:
        """The hint, with the newest task; empty while there is no reason for one."""
        if task != self._task:
            self._task = task
            self.broken()
        if task is None or task.work is None or time.monotonic() - self._since < self.after_s:
            return ""
        return (
            f"nothing new for {self.after_s / 60:.0f} minutes since round {task.round + 1} ({task.phase}) of run "
            f"{printable(task.run_id)}: the server waits for other clients or has stopped, or the run is over and this "
            "client has not heard of it. It takes part in what comes next; Ctrl-C ends it"
        )
