"""`Keeper`: keeps every update as it arrived, with all else that its round's result follows from.

A round is kept before it is committed, whole or not at all: its folder gets its name when everything is in it. What is
kept of a round that was never committed goes when the run is resumed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import rank_of
from fccl.adapters.source import AdapterSource
from fccl.adapters.stored import StoredAdapter
from fccl.display.words import plural
from fccl.errors import StorageError
from fccl.federation.arrived import file_length, file_sha256
from fccl.federation.kept_rounds import kept_rounds
from fccl.federation.late import is_late
from fccl.federation.state import RoundInputs, RoundResult
from fccl.messages import ClientUpdate, FitTask
from fccl.paths import KeptRoundPaths, LogPaths
from fccl.records.kept_round import KeptInputs, KeptUpdate
from fccl.records.run import KeptControl
from fccl.specs import RoundPlan
from fccl.storage.files import new_folder, storage_errors, sync_folder, write_bytes
from fccl.storage.private import private_folder
from fccl.storage.temporary import sweep

MB = 1_000_000  # bytes
USUAL_MB = 2000
_PRIVATE = 0o600


@dataclass(eq=False)
class Keeper:
    """Keeps at most `most_mb` megabytes of rounds below `LOG_DIR`, those of earlier runs in `runs/` among them; 0 keeps
    none. Whole rounds go for a newer one, the oldest first. `tell` gets a line when a round is not kept.
    """

    paths: LogPaths
    most_mb: int = USUAL_MB
    tell: Callable[[str], None] = lambda line: None
    _said: set[str] = field(default_factory=set)

    def promise(self, adapter: Adapter, plan: RoundPlan) -> str:
        """One sentence for the start of a run: what is kept, where, and whether there is room for the whole run."""
        if not self.most_mb:
            return "KEEP_UPDATES_MB=0: no update is kept, so no round of this run can be computed again later."
        fit = self.most_mb * MB // (file_length(adapter) * (plan.clients_per_round + 1))
        total = plural(plan.total_rounds, "round")
        room = f"room for all {total}" if fit >= plan.total_rounds else f"room for about the last {fit:,} of {total}"
        return (
            f"Updates are kept in {self.paths.kept}/, so that rounds can be computed again later "
            f"(KEEP_UPDATES_MB={self.most_mb}: {room})."
        )

    def tidy(self, next_round: int) -> None:
        """Remove what was kept of rounds from `next_round` on, and what killed processes have left half-written."""
        for run in self._runs():
            sweep(run.kept)
        for number in kept_rounds(self.paths):
            if number >= next_round:
                _remove(self.paths.kept_round(number).root)

    def keep(self, result: RoundResult) -> None:
        """Keep a round that is about to be committed. A disk that has no room for it is a line, not an error."""
        try:
            if self.most_mb:
                self._keep(result)
        except StorageError as error:
            self._once("disk", f"The updates of round {result.record.round + 1} are not kept: {error}")

    def _keep(self, result: RoundResult) -> None:
        paths, inputs = self.paths.kept_round(result.record.round), result.inputs
        server = inputs.server.to_bytes() if inputs.server.tensors else b""
        described = _described(inputs, server).model_dump_json(indent=2).encode() + b"\n"
        length = len(described) + sum(map(file_length, _adapters(inputs))) + len(server)
        if length > self.most_mb * MB:
            takes = f"they take {length / MB:,.1f} MB, KEEP_UPDATES_MB is {self.most_mb:,}"
            self._once("size", f"The updates of round {result.record.round + 1} are not kept: {takes}.")
            return
        if warning := private_folder(self.paths.kept):
            self._once("modes", warning)
        _remove(paths.root)
        self._make_room(length)
        _put(paths, result, described, server)

    def _make_room(self, length: int) -> None:
        """Remove the oldest rounds until there is room for one of this length."""
        rounds = [(folder, _length_of(folder)) for folder in self._oldest_first()]
        taken = sum(size for _, size in rounds)
        for folder, size in rounds:
            if taken + length <= self.most_mb * MB:
                return
            _remove(folder)
            taken -= size

    def _oldest_first(self) -> Iterator[Path]:
        """The kept rounds of earlier runs, by the runs' ids, which begin with the time; then this run's."""
        for run in self._runs():
            yield from (run.kept_round(number).root for number in kept_rounds(run))

    def _runs(self) -> list[LogPaths]:
        with storage_errors(self.paths.archive, "read"):
            earlier = sorted(self.paths.archive.iterdir()) if self.paths.archive.is_dir() else []
        return [*map(LogPaths, earlier), self.paths]

    def _once(self, trouble: str, line: str) -> None:
        """The same trouble may be there in every round."""
        if trouble not in self._said:
            self._said.add(trouble)
            self.tell(line)


def _described(inputs: RoundInputs, server: bytes) -> KeptInputs:
    task = inputs.task
    return KeptInputs(
        run_id=task.run_id,
        round=task.round,
        model=task.model,
        train=task.train,
        seed=task.seed,
        adapter_sha256=file_sha256(task.adapter),
        reference_sha256=task.reference.sha256 if task.reference else "",
        server_sha256=hashlib.sha256(server).hexdigest() if server else "",
        lag_sha256=file_sha256(inputs.lag) if inputs.lag else "",
        controls=_controls(inputs),
        norms=inputs.norms,
        memory=dict(inputs.memory),
        examples=inputs.examples,
        learn=inputs.learn,
        updates=tuple(_kept(update, task) for update in inputs.arrived),
        before_sha256=file_sha256(inputs.before) if inputs.before else "",
    )


def _controls(inputs: RoundInputs) -> tuple[KeptControl, ...] | None:
    """By hash: each file is among the updates of the round that it came with."""
    if inputs.task.corrections is None:
        return None
    return tuple(
        KeptControl(client_id=client_id, sha256=file_sha256(control.adapter), share=control.share)
        for client_id, control in inputs.controls.items()
    )


def _kept(update: ClientUpdate, task: FitTask) -> KeptUpdate:
    return KeptUpdate(
        client_id=update.client_id,
        rank=rank_of(update.adapter.form),
        contribution=update.contribution,
        report=update.report,
        change_norm=update.change_norm,
        control_norm=update.control_norm,
        signed=update.signed,
        trained_for=update.round if is_late(update, task) else None,
    )


def _put(paths: KeptRoundPaths, result: RoundResult, described: bytes, server: bytes) -> None:
    """The round in its place, whole."""
    with new_folder(paths.root) as new, storage_errors(paths.root):
        new.chmod(0o700)
        _write(KeptRoundPaths(new), result, described, server)
        os.rename(new, paths.root)
    sync_folder(paths.root.parent)


def _write(paths: KeptRoundPaths, result: RoundResult, described: bytes, server: bytes) -> None:
    """All files of a round; the round's record has the hashes of the updates already."""
    inputs = result.inputs
    for update, hashes in zip(inputs.arrived, result.record.arrived, strict=True):
        _save(update.adapter, paths.update(update.client_id, hashes.sha256))
        if update.control is not None:
            _save(update.control, paths.control(update.client_id, hashes.control_sha256))
    _save(inputs.task.adapter, paths.adapter)
    if inputs.before is not None:
        _save(inputs.before, paths.before)
    if inputs.lag is not None:
        _save(inputs.lag, paths.lag)
    if server:
        write_bytes(paths.server_state, server, _PRIVATE)
    write_bytes(paths.inputs, described, _PRIVATE)


def _save(adapter: AdapterSource, path: Path) -> None:
    """An update over the exchange directory is in a file already, and nothing writes to that file again."""
    if isinstance(adapter, StoredAdapter):
        adapter.share(path, _PRIVATE)
    else:
        adapter.save(path)
        path.chmod(_PRIVATE)


def _adapters(inputs: RoundInputs) -> Iterator[AdapterSource]:
    yield inputs.task.adapter
    if inputs.before is not None:
        yield inputs.before
    if inputs.lag is not None:
        yield inputs.lag
    for update in inputs.arrived:
        yield update.adapter
        if update.control is not None:
            yield update.control


def _length_of(folder: Path) -> int:
    with storage_errors(folder, "read"):
        return sum(path.stat().st_size for path in folder.iterdir())


def _remove(folder: Path) -> None:
    """First under a name that is swept, so that no reader finds half a round."""
    aside = folder.with_name(f".{folder.name}.{os.urandom(8).hex()}.tmp")
    with storage_errors(folder):
        try:
            os.rename(folder, aside)
        except FileNotFoundError:
            return
    shutil.rmtree(aside, ignore_errors=True)
