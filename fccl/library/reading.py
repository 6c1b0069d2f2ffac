"""A run on the disk, read from Python: finished, stopped or still at work, here or on another machine's folder."""

from __future__ import annotations

import os
from pathlib import Path

from fccl.errors import FederationError
from fccl.view import runs
from fccl.view.runs import RunReader
from fccl.view.values import RunEntry, RunView


def read_run(log_dir: str | os.PathLike[str] = "logs", run_id: str = "") -> RunView:
    """The run in `log_dir`, or with `run_id` an earlier one that is kept in `log_dir/runs/`, as its files tell it now.

    Reads and never writes; loads no torch. The view's tables are pandas frames, a row a round (`rounds`), a row for
    each client in each round (`shares`, `exclusions`, `declines`, `metrics`); `fccl.view.values` lists their columns
    with units. Rounds count from 0. `evaluation` is None until the run is evaluated.

    Raises `FederationError` when there is no such run.

    >>> run = read_run("logs")
    >>> run.rounds[["round", "phase", "clients"]].values.tolist()
    [[0, 'sft', 3], [1, 'va', 3]]
    >>> run.shares.groupby("round")["weight"].sum().round(6).tolist()
    [1.0, 1.0]
    >>> run.info.settings["num_clients"]
    '3'
    """
    entry = next((each for each in list_runs(log_dir) if each.run_id == run_id or (each.current and not run_id)), None)
    if entry is None:
        missing = f"holds no run {run_id}" if run_id else "holds no run"
        raise FederationError(f"{log_dir} {missing}", hint="fccl.list_runs(log_dir) lists those that there are")
    return RunReader(entry.paths).refresh()


def list_runs(log_dir: str | os.PathLike[str] = "logs") -> tuple[RunEntry, ...]:
    """The run in `log_dir` and the earlier ones that are kept in `log_dir/runs/`, newest first; empty without any.

    >>> [run.current for run in list_runs("logs")]
    [True]
    >>> list_runs("no such folder")
    ()
    """
    return runs.list_runs(Path(log_dir))
