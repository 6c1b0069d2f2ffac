"""Kept rounds, read: every update as it arrived, and all else that a round's result follows from.

>>> from pathlib import Path
>>> from fccl.aggregation.protocol import Parts
>>> from fccl.aggregation.rules import aggregation
>>> kept, rule = kept_round(LogPaths(Path("logs")), 1), aggregation("fedavg")
>>> parts = Parts(kept.record.weights, [update.adapter for update in kept.updates()])
>>> rule.aggregate(kept.adapter, parts, kept.server).adapter.sha256 == kept.aggregate_sha256
True
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fccl.adapters.adapter import Adapter, adapter_from_bytes, load_adapter
from fccl.adapters.ranks import leading, of_rank, rank_of
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.aggregation.scaffold import ClientControl, Controls, ServerCorrections, corrections
from fccl.aggregation.state import ServerState, server_state_from_bytes
from fccl.errors import FederationError
from fccl.federation.late import Pending, as_counted
from fccl.messages import ClientUpdate, FitTask
from fccl.paths import KeptRoundPaths, LogPaths
from fccl.records.kept_round import KeptInputs, KeptUpdate
from fccl.records.run import ArrivedUpdate, KeptControl, RoundRecord
from fccl.storage.files import read_whole, storage_errors
from fccl.storage.reading import read_records, read_value

_HINT = "KEEP_UPDATES_MB says how much is kept; the oldest rounds go first"
_ROUND = re.compile(r"round_(0|[1-9][0-9]{0,8})")


def kept_rounds(paths: LogPaths) -> tuple[int, ...]:
    """The numbers of the rounds that are kept, in order; the first round of a run is 0."""
    with storage_errors(paths.kept, "read"):
        names = [path.name for path in paths.kept.iterdir()] if paths.kept.is_dir() else []
    return tuple(sorted(int(found[1]) for name in names if (found := _ROUND.fullmatch(name))))


def kept_round(paths: LogPaths, number: int) -> KeptRound:
    """One kept round.

    Raises `FederationError` when it is not kept, with those that are, and when it is not what its record speaks of.
    """
    found = paths.kept_round(number)
    if not found.root.is_dir():
        there = kept_rounds(paths)
        which = f"kept are rounds {', '.join(str(each + 1) for each in there)}" if there else "no round is kept there"
        raise FederationError(f"the updates of round {number + 1} are not in {paths.kept}: {which}", hint=_HINT)
    inputs, record = read_value(found.inputs, KeptInputs), _record(paths, number)
    if inputs is None or record is None or not _agree(inputs, record):
        raise FederationError(f"{found.inputs} is damaged, or not of the round that {paths.progress} speaks of")
    return KeptRound(paths, record, inputs)


def _record(paths: LogPaths, number: int) -> RoundRecord | None:
    def is_it(row: Mapping[str, object]) -> bool:
        return (row.get("event"), row.get("round")) == ("round", number)

    return next(iter(read_records(paths.progress, RoundRecord, is_it)), None)


def _agree(inputs: KeptInputs, record: RoundRecord) -> bool:
    answered = [update.client_id for update in inputs.updates] == [update.client_id for update in record.arrived]
    return answered and (inputs.run_id, inputs.round) == (record.run_id, record.round)


@dataclass(frozen=True, eq=False)
class KeptRound:
    """A round as its record has it, and what was kept of it. Files are read when they are asked for, and their hashes
    checked: `AdapterError` when one is not what it was, `StorageError` when it is gone.
    """

    logs: LogPaths
    record: RoundRecord
    inputs: KeptInputs

    @property
    def paths(self) -> KeptRoundPaths:
        """The files of the round."""
        return self.logs.kept_round(self.record.round)

    @property
    def examples(self) -> tuple[int, ...]:
        """The places in the learn split of the examples that the weights were made from."""
        return self.inputs.examples

    @property
    def aggregate_sha256(self) -> str:
        """The hash of the adapter that the aggregation made. The next is another where the server learned from it, or a
        codec rounded it.
        """
        if self.record.learning:
            return self.record.learning.aggregate_sha256
        rounded = self.record.sent.aggregate_sha256 if self.record.sent else ""
        return rounded or self.record.adapter_sha256

    @cached_property
    def adapter(self) -> Adapter:
        """The global adapter that the round began with."""
        return adapter_from_bytes(_content(self.paths.adapter, self.inputs.adapter_sha256), str(self.paths.adapter))

    @cached_property
    def before(self) -> Adapter | None:
        """The adapter that the round before began with, where an update was trained for that one; else None."""
        if not self.inputs.before_sha256:
            return None
        return adapter_from_bytes(_content(self.paths.before, self.inputs.before_sha256), str(self.paths.before))

    @cached_property
    def lag(self) -> Adapter | None:
        """The part that UPDATE_CODEC had left out of the adapter; None where that was nothing."""
        path, sha256 = self.paths.lag, self.inputs.lag_sha256
        return adapter_from_bytes(_content(path, sha256), str(path)) if sha256 else None

    @cached_property
    def reference(self) -> Adapter | None:
        """The reference of a VA round; None in SFT rounds."""
        if not self.inputs.reference_sha256:
            return None
        found = load_adapter(self.logs.reference)
        if found.sha256 != self.inputs.reference_sha256:
            raise FederationError(f"{self.logs.reference} is not the reference that {self.paths.inputs} speaks of")
        return found

    @cached_property
    def server(self) -> ServerState:
        """The state of the aggregation rule that the round began with."""
        if not self.inputs.server_sha256:
            return ServerState()
        path = self.paths.server_state
        return server_state_from_bytes(_content(path, self.inputs.server_sha256), str(path))

    @cached_property
    def controls(self) -> Controls:
        """SCAFFOLD's c_i that the round began with.

        Raises `FederationError` when one came with a round that is no longer kept.
        """
        return {kept.client_id: ClientControl(kept.share, self._control(kept)) for kept in self.inputs.controls or ()}

    @cached_property
    def task(self) -> FitTask:
        """The task that the clients answered. SCAFFOLD's corrections are read when a client's is asked for."""
        kept, record = self.inputs, self.record
        return FitTask(
            *(record.run_id, record.round, record.phase, self.adapter, self.reference),
            *(kept.model, kept.train, kept.seed),
            None if kept.controls is None else KeptCorrections(self),
        )

    def updates(self) -> tuple[ClientUpdate, ...]:
        """The updates that counted, in client order and as they counted: `record.weights` are theirs. A late one is
        moved to the adapter that the round began with (`fccl.federation.late`).
        """
        counted = set(self.record.clients)
        pending = Pending(self.before, ()) if self.before else None
        return tuple(update for update in as_counted(self.task, self.arrived(), pending) if update.client_id in counted)

    def arrived(self) -> tuple[ClientUpdate, ...]:
        """All updates of the round as they came, also those that were excluded later, in client order; a late one has
        the round that it was trained for.
        """
        return tuple(map(self._update, self.inputs.updates, self.record.arrived))

    def require_updates(self, without: Collection[int] = ()) -> None:
        """Raises `FederationError` where the update of a client that is not among `without` is gone."""
        for kept, hashes in zip(self.inputs.updates, self.record.arrived, strict=True):
            if kept.client_id not in without and not self.paths.update(kept.client_id, hashes.sha256).is_file():
                raise FederationError(
                    f"round {self.record.round + 1}: the update of client {kept.client_id} is kept no more",
                    hint="a client that was taken out with `fccl forget` can only be left out: "
                    f"`fccl replay --without-client {kept.client_id}`",
                )

    def _control(self, kept: KeptControl) -> StoredAdapter:
        """In the run's own folder, or in that of the round that it came with."""
        places = [self.logs.control, *(self.logs.kept_round(number).control for number in kept_rounds(self.logs))]
        for path in (place(kept.client_id, kept.sha256) for place in places):
            if path.is_file():
                return StoredAdapter(path, kept.sha256, AdapterReader.like(self.adapter))
        told = f"client {kept.client_id}'s control variate of before round {self.record.round + 1}"
        raise FederationError(f"{told} is in no kept round of {self.logs.kept}", hint=_HINT)

    def _update(self, kept: KeptUpdate, hashes: ArrivedUpdate) -> ClientUpdate:
        form = leading(self.adapter, self.inputs.model.lora_r).form
        reader = AdapterReader(of_rank(form, kept.rank) if rank_of(form) else form)
        control, path = None, self.paths.update(kept.client_id, hashes.sha256)
        if hashes.control_sha256:
            where = self.paths.control(kept.client_id, hashes.control_sha256)
            control = StoredAdapter(where, hashes.control_sha256, AdapterReader.like(self.adapter))
        return ClientUpdate(
            run_id=self.record.run_id,
            client_id=kept.client_id,
            round=self.record.round if kept.trained_for is None else kept.trained_for,
            phase=self.record.phase,
            adapter=StoredAdapter(path, hashes.sha256, reader),
            contribution=kept.contribution,
            report=kept.report,
            control=control,
            change_norm=kept.change_norm,
            control_norm=kept.control_norm,
            signed=kept.signed,
        )


@dataclass(frozen=True, eq=False)
class KeptCorrections:
    """SCAFFOLD's corrections of a kept round: its clients would train as they did. Weighing and aggregating need none,
    so files are read when the first is asked for.
    """

    kept: KeptRound

    def of(self, client_id: int) -> Adapter:
        """c - c_i as the client was told. Raises `FederationError` when a c_i is no longer kept."""
        return self._all.of(client_id)

    @cached_property
    def _all(self) -> ServerCorrections:
        return corrections(self.kept.controls, self.kept.adapter.form)


def _content(path: Path, sha256: str) -> bytearray:
    content = read_whole(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise FederationError(f"{path} is not the file that was kept")
    return content
