"""`replay` and `verify`: a finished run asked from Python, as `fccl replay` and `fccl verify` ask it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from fccl.adapters.adapter import Adapter
from fccl.errors import SettingsError
from fccl.library.answers import checker, replayed, write_replay
from fccl.library.export import require_new
from fccl.library.given import ReplayArguments, VerifyArguments, settings_from, spelt
from fccl.library.past_run import PastRun, at_work, changed, past_run
from fccl.paths import KeyPaths
from fccl.records.after import Replay, ReplayedRound, RunCheck

Folder = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Replayed:
    """A replay: what every round was and would have been, and the adapter that it ends with."""

    record: Replay
    adapter: Adapter
    past: PastRun

    def save(self, out: Folder = "") -> Path:
        """Write the record and the adapter to a new folder, or to `LOG_DIR/after/<run id>/`, where dashboard and report
        look. Returns the folder.

        Raises `StorageError` when `out` exists or cannot be written.
        """
        if out:
            require_new(self.past.settings, Path(out))
        return write_replay(self.past.after, self.record, self.adapter, Path(out) if out else None)


def replay(
    log_dir: Folder = "logs",
    run: str = "",
    *,
    without: Collection[int] = (),
    by_round: bool = False,
    retrain_from: int | None = None,
    data_dir: Folder | None = None,
    on_round: Callable[[ReplayedRound], None] = lambda each: None,
    **settings: Unpack[ReplayArguments],
) -> Replayed:
    """A finished run aggregated again from its kept updates, by other rules or `without` some clients. Nobody trains,
    and nothing is written.

    `run` is an earlier run's id, or a run's folder; by default the run in `log_dir`. The other arguments have the names
    of the settings that `fccl replay` takes. `by_round` begins each round with the adapter that it had in the run.
    From `retrain_from` on, a round counted from 0, the clients train anew in this process. `data_dir` is where the
    run's data lies now. The updates of later rounds were trained from the run's own adapters: `record.says` has what
    that means for the figures (Song, Tong & Wei 2019).

    Raises `SettingsError` for a client, a round or a setting that it cannot take. Raises `FederationError` where the
    rounds that it takes are not kept or the run is not finished, `DataError` where the data is not the run's.

    >>> import fccl
    >>> again = fccl.replay("logs")
    >>> [each.same for each in again.record.rounds]
    [True, True]
    >>> fccl.replay("logs", without=[1], contribution_mode="fedavg").record.rounds[0].clients
    (0, 2)
    """
    settings_from("fccl.replay", settings, ReplayArguments)
    if "client_lora_r" in settings:
        raise SettingsError("fccl.replay does not read client_lora_r", hint="leave it out: clients have trained")
    given: dict[str, Any] = spelt(settings)
    past = past_run(Path(log_dir), run, "replay", given, may_replace=True)
    asked, changes = changed(past, given)
    with at_work(past, asked, None if data_dir is None else Path(data_dir)) as work:
        record, adapter = replayed(work, changes, without, by_round, retrain_from, on_round)
    return Replayed(record, adapter, past)


def verify(
    log_dir: Folder = "logs", run: str = "", *, keys_dir: Folder = "", **settings: Unpack[VerifyArguments]
) -> RunCheck:
    """A finished run checked by its files: hashes, seal, settings, signatures, every kept round made again. Needs
    neither data nor model, and writes nothing.

    `run` as for `fccl.replay`. `keys_dir` holds the public keys that you trust: with it, a run without a seal or a
    signature fails. A rule of somebody's own must be named by `aggregation` or `contribution_source`, for to import
    a class is to run it. `sound` is true where nothing was found wrong; `findings` say what was checked and what not.

    Raises `FederationError` when there is no such run or it is not finished, `SettingsError` where the keys are none.

    >>> import fccl
    >>> check = fccl.verify("logs")
    >>> check.sound, [finding.name for finding in check.findings if finding.outcome == "not checked"]
    (True, ['signature', 'weights'])
    """
    settings_from("fccl.verify", settings, VerifyArguments)
    keys = KeyPaths(Path(keys_dir)) if keys_dir else None
    _, check = checker(Path(log_dir), run, spelt(settings), keys)
    return check.check()
