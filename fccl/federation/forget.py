"""Taking a client out of a finished run: from which round on, how long that takes, its files, and what is left of it.

Its updates are in every global adapter from its first round on, and other clients have trained from those. So all of
that is trained anew without it, and the result is held against a run that never had it. Retraining is the only way that
is exact (Bourtoule et al. 2021, "Machine Unlearning").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fccl.errors import FederationError
from fccl.federation.what_if import records_by_round, rounds_with
from fccl.paths import ADAPTER, LogPaths, of_earlier_versions
from fccl.records.run import RoundRecord
from fccl.specs import PHASES
from fccl.storage.files import storage_errors

EXACT = "All rounds from its first update on were trained anew without it: no number in this adapter follows from it."
SAME = "It was there from the first round, so this is the run that never had it."
BESIDE = "The run that never had it was trained beside, from its first round."


def first_update(logs: LogPaths, client_id: int) -> int:
    """The first round in which an update of a client arrived. Raises `FederationError` when none ever did, or where no
    single one is known.
    """
    numbers = list(rounds_with(logs, client_id))
    if summed := [number for number, record in records_by_round(logs).items() if _is_in_sum(record, client_id)]:
        raise FederationError(
            f"client {client_id}'s updates are known by secure sums alone, from round {min(summed) + 1} on, and "
            "cannot be taken out of them",
            hint="train a new run without it",
        )
    if not numbers:
        raise FederationError(f"no update of client {client_id} is in this run", hint="there is nothing to take out")
    return numbers[0]


def _is_in_sum(record: RoundRecord, client_id: int) -> bool:
    return record.secure is not None and client_id in record.secure.clients


def predicted_seconds(logs: LogPaths, client_id: int, first: int) -> float:
    """The time that training rounds anew without a client takes, by what they took: one client after another, those
    from `first` on, and all of them once more where `first` is not 0.
    """
    records = records_by_round(logs)
    beside = sum(_without(record, client_id) for record in records.values()) if first else 0.0
    return beside + sum(_without(record, client_id) for number, record in records.items() if number >= first)


def _without(record: RoundRecord, client_id: int) -> float:
    """Seconds of a round with one client less, the others one after another. The server's part is what is left of the
    round when its clients are done, who may have trained side by side.
    """
    if not record.contributions:  # withheld
        return record.seconds
    seconds = dict(zip(record.clients, (each.seconds for each in record.contributions), strict=True))
    alone, longest = record.seconds - sum(seconds.values()), max(seconds.values())
    server = alone if alone > 0 else max(0.0, record.seconds - longest)
    return server + sum(took for client, took in seconds.items() if client != client_id)


def files_of(logs: LogPaths, client_id: int) -> list[Path]:
    """All files that are a client's own: its updates, its control variates, its heartbeat. In order of their names."""
    kept = (path for kind in ("update", "control") for path in logs.kept.glob(f"round_*/{kind}_{client_id}_*{ADAPTER}"))
    last = [logs.client_adapter(client_id, phase) for phase in PHASES]
    here = [*last, *map(of_earlier_versions, last), logs.status(client_id)]
    controls = logs.controls.glob(f"control_{client_id}_*{ADAPTER}")
    received = logs.received.glob(f"*client_{client_id}_*")
    left_out = logs.residuals_of(client_id).root.glob("residual_*")
    return sorted(path for path in {*kept, *here, *controls, *received, *left_out} if path.is_file())


def require_own(logs: LogPaths, client_id: int) -> None:
    """Raises `FederationError` where a file of the client lies behind a link: it may be another run's."""
    root = logs.root.resolve()
    for path in files_of(logs, client_id):
        if not path.parent.resolve().is_relative_to(root):
            raise FederationError(
                f"{path} lies behind a link, outside of {logs.root}/: it would be removed there",
                hint="put the folder itself in the place of the link",
            )


def made_with(logs: LogPaths, first: int) -> list[Path]:
    """Files and folders that are still there and were made of a client's updates, which began with round `first`."""
    results = [logs.global_sft, logs.global_final, logs.adapter, logs.global_adapter(0).parent]
    later = [logs.kept_round(number).root for number in records_by_round(logs) if number > first]
    others = [logs.client_adapter(0, "sft").parent, logs.progress, logs.client_metrics, logs.evaluation_json]
    return [path for path in (*results, *later, *others, logs.state, logs.state_sft) if path.exists()]


def names_of(logs: LogPaths, paths: Iterable[Path]) -> tuple[str, ...]:
    """Their names below the run's folder; of a folder with a slash at the end."""
    return tuple(f"{path.relative_to(logs.root).as_posix()}{'/' * path.is_dir()}" for path in paths)


def remove(paths: Sequence[Path]) -> None:
    """Remove these files. Raises `StorageError`."""
    for path in paths:
        with storage_errors(path):
            path.unlink(missing_ok=True)
