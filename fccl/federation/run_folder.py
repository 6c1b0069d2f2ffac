"""A run on the disk: started, committed round by round, resumed, archived.

A round is complete when `state.json` says so; that file is written after everything else of the round. A kill at any
moment leaves the state before or after a round, never one in between.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.aggregation.scaffold import ClientControl, Controls
from fccl.aggregation.state import ServerState, server_state_from_bytes
from fccl.errors import AdapterError, FederationError, StorageError, no_run
from fccl.federation.arrived import file_sha256
from fccl.federation.down import Down
from fccl.federation.late import Pending
from fccl.federation.members import Members
from fccl.federation.state import FederationState, RoundResult
from fccl.federation.watch import Best, Watch
from fccl.messages import ClientUpdate
from fccl.paths import LogPaths, of_earlier_versions
from fccl.records.journal import Journal
from fccl.records.late import KeptPending
from fccl.records.members import KeptMembers
from fccl.records.run import KeptControl, KeptDown, KeptWatch, RunEvent, RunInfo, RunState
from fccl.specs import RoundPlan
from fccl.storage.files import read_whole, recover_folder, storage_errors, write_bytes, write_text
from fccl.storage.locks import exclusive
from fccl.storage.reading import is_there, read_value
from fccl.storage.temporary import sweep

KEPT_ROUNDS = 2
PUT_BACK = "put a copy of the right one back"


@dataclass(frozen=True)
class RunFolder:
    """`LOG_DIR` of one run: `RunFolder.at(Path("logs"))`."""

    paths: LogPaths
    journal: Journal

    @classmethod
    def at(cls, root: Path) -> Self:
        """The folder with a journal of its own."""
        paths = LogPaths(root)
        return cls(paths, Journal(paths))

    @contextmanager
    def held(self, seen: RunInfo | None) -> Iterator[None]:
        """This process's alone while the block runs. `seen` is the run that was found here, and decided by.

        Raises `FederationError` when another process is at work here, or was since.
        """
        with exclusive(self.paths.lock, "another run", needed=False):
            if self.info() != seen:
                raise FederationError(
                    f"another command has changed the run in {self.paths.root} meanwhile", hint="start this one again"
                )
            self.tidy()
            yield

    def info(self) -> RunInfo | None:
        """The run that is here, if any."""
        return read_value(self.paths.run, RunInfo)

    def state(self) -> RunState | None:
        """The state of the run, if one is here."""
        return read_value(self.paths.state, RunState)

    def state_here(self) -> RunState:
        """The state of the run. Raises `FederationError` when the folder has none."""
        state = self.state()
        if state is None:
            raise self._without(self.paths.state, "resume")
        return state

    def recorded(self, to: str) -> RunInfo:
        """The run that is here, to be resumed, evaluated or exported.

        Raises `FederationError` when there is none, or its record is damaged.
        """
        info = self.info()
        if info is None:
            raise self._without(self.paths.run, to)
        return info

    def _without(self, record: Path, to: str) -> FederationError:
        """The error of a run whose record was not found: there is none, or something else in its place."""
        if is_there(record):
            return FederationError(
                f"{record} is damaged: it is not the record that a run writes",
                hint=f"put a copy of it back; `fccl run` begins another run and keeps this one in {self.paths.archive}",
            )
        return no_run(self.paths.root, to)

    def archive(self) -> str | None:
        """Move the run that is here, finished or not, to `runs/<run id>`. Returns its id; None when there is none.

        A run whose `run.json` cannot be read is kept too, under the time.
        """
        info, entries = self.info(), self.paths.own_entries()
        if not entries:
            return None
        name = info.run_id if info else time.strftime("unknown-%Y%m%d-%H%M%S")
        folder = self.paths.archive / name
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(entries, key=self._archived_when):
                os.replace(path, folder / path.name)
        self.journal.begin_anew()
        return name

    def tidy(self) -> None:
        """Clear away what killed processes have left half-written. Only the holder of the folder may."""
        with storage_errors(self.paths.root):
            recover_folder(self.paths.adapter)
        inner = (
            self.paths.global_adapter(0).parent,
            self.paths.client_adapter(0, "sft").parent,
            self.paths.controls,
            self.paths.received,
            self.paths.archive,
        )
        for folder in (self.paths.root, *inner):
            sweep(folder)

    def require_here(self, run_id: str) -> None:
        """Raises `StorageError` unless the folder still holds this run."""
        info = self.info()
        if info is None or info.run_id != run_id or not self.paths.state.is_file():
            gone = "somebody removed or replaced it while the run was at work"
            raise StorageError(
                f"{self.paths.root} no longer holds run {run_id}: {gone}",
                hint="begin the run again; what has been written there since is not complete",
            )

    def _archived_when(self, path: Path) -> int:
        """state.json first: what is half moved cannot be resumed. run.json last: until then the run is still here."""
        return {self.paths.state: 0, self.paths.run: 2}.get(path, 1)

    def start(self, info: RunInfo, plan: RoundPlan, adapter: Adapter, event: RunEvent | None = None) -> FederationState:
        """Write the run's identity, its first event and the adapter that it starts from; `state.json` last.

        Returns the state before round 0.
        """
        write_text(self.paths.run, info.model_dump_json(indent=2) + "\n")
        if event is not None:
            self.journal.write(event)
        state = FederationState(0, adapter)
        if info.start_sha256:
            adapter.save(self.paths.start)
        self._save_state(info.run_id, plan, state)
        return state

    def commit(self, result: RoundResult, plan: RoundPlan) -> None:
        """Write a complete round: the clients' last updates, the new global adapter, the record, and last the state.

        Raises `StorageError`, also when the run is no longer here.
        """
        self.require_here(result.record.run_id)
        for update in result.updates:
            update.adapter.save(self.paths.client_adapter(update.client_id, update.phase))
        self.journal.write(result.record)
        self._save_state(result.record.run_id, plan, result.state)
        self._prune()

    def keep_control(self, update: ClientUpdate) -> StoredAdapter | None:
        """Put SCAFFOLD's c_i of an update on the disk, as it arrived: its kept round names it by the same hash.

        It counts once a round is committed whose state names it.
        """
        if update.control is None:
            return None
        sha256 = file_sha256(update.control)
        path = self.paths.control(update.client_id, sha256)
        update.control.save(path)
        return StoredAdapter(path, sha256, AdapterReader(update.control.form))

    def resume(self) -> FederationState:
        """The state after the last complete round. Raises `FederationError` when the folder does not hold it."""
        state = self.state_here()
        adapter = self._adapter(self.paths.global_adapter(state.next_round), state.adapter_sha256)
        named = state.reference_sha256
        found = FederationState(
            next_round=state.next_round,
            adapter=adapter,
            reference=self._adapter(self.paths.reference, named) if named else None,
            server=self._server_state(state),
            controls=self._controls(state, adapter),
            norms=state.norms,
            declared={said.client_id: said for said in state.declared},
            watch=self._watch(state.watch),
            early=state.early,
            releases=state.releases,
            va_releases=state.va_releases,
            clip=state.clip,
            members=Members(state.members.clients, state.members.heard) if state.members else None,
            pending=self._pending(state),
            down=self._down(state),
            memory=state.memory,
        )
        self.journal.keep_rounds_before(state.next_round)
        return found

    def _pending(self, state: RunState) -> Pending | None:
        if state.pending is None:
            return None
        began = state.next_round - 1
        path = self.paths.reference if began == state.first_va else self.paths.global_adapter(began)
        return Pending(self._adapter(path, state.pending.adapter_sha256), state.pending.clients)

    def _watch(self, kept: KeptWatch | None) -> Watch:
        if kept is None:
            return Watch()
        best = None
        if kept.best_round is not None:
            adapter = self._adapter(self.paths.global_adapter(kept.best_round + 1), kept.best_sha256)
            best = Best(kept.best_round, kept.best_loss, adapter)
        return Watch(kept.anchor, kept.waited, best)

    def _down(self, state: RunState) -> Down | None:
        if state.down is None:
            return None
        path, lag = self.paths.coded(state.next_round), self.paths.lag(state.next_round)
        content = bytes(read_whole(path)) if state.down.sha256 else None
        if content is not None and hashlib.sha256(content).hexdigest() != state.down.sha256:
            raise FederationError(f"{path} is not the file that {self.paths.state} speaks of", hint=PUT_BACK)
        return Down(content, self._adapter(lag, state.down.lag_sha256) if state.down.lag_sha256 else None)

    def _keep_down(self, state: FederationState) -> KeptDown | None:
        if (down := state.down) is None:
            return None
        content, lag = down.content, down.lag
        if content is not None:
            write_bytes(self.paths.coded(state.next_round), content)
        if lag is not None:
            lag.save(self.paths.lag(state.next_round))
        known = "" if content is None else hashlib.sha256(content).hexdigest()
        return KeptDown(sha256=known, lag_sha256=lag.sha256 if lag else "")

    def _adapter(self, path: Path, sha256: str) -> Adapter:
        adapter = load_adapter(path)
        if adapter.sha256 != sha256:
            raise FederationError(f"{path} is not the adapter that {self.paths.state} speaks of", hint=PUT_BACK)
        return adapter

    def _save_state(self, run_id: str, plan: RoundPlan, state: FederationState) -> None:
        went = plan.as_it_went(state.early)
        state.adapter.save(self.paths.global_adapter(state.next_round))
        carries = bool(state.server.tensors)
        if carries:
            write_bytes(self.paths.server_state(state.next_round), state.server.to_bytes())
        record = RunState(
            run_id=run_id,
            next_round=state.next_round,
            total_rounds=went.total_rounds,
            sft_rounds=went.rounds_of("sft"),
            adapter_sha256=state.adapter.sha256,
            reference_sha256=state.reference.sha256 if state.reference else "",
            server_sha256=state.server.sha256 if carries else "",
            controls=tuple(_kept(client_id, control) for client_id, control in state.controls.items()),
            norms=state.norms,
            declared=tuple(state.declared[client] for client in sorted(state.declared)),
            watch=_kept_watch(state.watch),
            early=dict(state.early),
            releases=dict(sorted(state.releases.items())),
            va_releases=dict(sorted(state.va_releases.items())),
            clip=state.clip,
            members=_kept_members(state.members),
            pending=_kept_pending(state.pending),
            down=self._keep_down(state),
            memory=dict(state.memory),
        )
        if state.next_round == went.first_round("va"):  # from here more SFT rounds could be done later
            (state.reference or state.adapter).save(self.paths.global_sft if state.next_round else self.paths.start)
            write_text(self.paths.state_sft, record.model_dump_json() + "\n")
        write_text(self.paths.state, record.model_dump_json() + "\n")

    def _server_state(self, state: RunState) -> ServerState:
        if not state.server_sha256:
            return ServerState()
        path = self.paths.server_state(state.next_round)
        if of_earlier_versions(path).is_file():
            raise FederationError(
                f"{of_earlier_versions(path)} was written by an earlier version of fccl",
                hint="--new begins another run",
            )
        server = server_state_from_bytes(read_whole(path), str(path))
        if server.sha256 != state.server_sha256:
            raise FederationError(f"{path} is not the state that {self.paths.state} speaks of", hint=PUT_BACK)
        return server

    def _controls(self, state: RunState, adapter: Adapter) -> Controls:
        found = {}
        reader = AdapterReader.like(adapter)
        for kept in state.controls:
            stored = StoredAdapter(self.paths.control(kept.client_id, kept.sha256), kept.sha256, reader)
            try:
                stored.load()
            except (AdapterError, StorageError) as error:
                missing = f"client {kept.client_id}'s control variate, of which {self.paths.state} speaks, is not there"
                raise FederationError(f"{missing}: {error}") from error
            found[kept.client_id] = ClientControl(kept.share, stored)
        return found

    def _prune(self) -> None:
        """Remove what neither the run's state nor that after its last SFT round names."""
        found = [self.state(), read_value(self.paths.state_sft, RunState)]
        states = [state for state in found if state is not None]
        controls = {self.paths.control(kept.client_id, kept.sha256) for state in states for kept in state.controls}
        for path in self.paths.controls.glob("control_*"):
            if path not in controls:
                path.unlink(missing_ok=True)
        named = {number for state in states for number in _named_rounds(state)}
        for number in set(range(max(named) - KEPT_ROUNDS + 1)) - named:
            also = (self.paths.server_state(number), self.paths.coded(number), self.paths.lag(number))
            for path in (self.paths.global_adapter(number), *also):
                path.unlink(missing_ok=True)
                of_earlier_versions(path).unlink(missing_ok=True)


def _named_rounds(state: RunState) -> Iterator[int]:
    """The numbers of the adapters in `rounds/` that a state names."""
    yield state.next_round
    if state.watch is not None and state.watch.best_round is not None:
        yield state.watch.best_round + 1


def _kept_watch(watch: Watch) -> KeptWatch | None:
    """None where nothing is watched."""
    kept = KeptWatch(anchor=watch.anchor, waited=watch.waited)
    if best := watch.best:
        said = {"best_round": best.round, "best_loss": best.loss, "best_sha256": best.adapter.sha256}
        kept = kept.model_copy(update=said)
    return None if kept == KeptWatch() else kept


def _kept_members(members: Members | None) -> KeptMembers | None:
    return KeptMembers(clients=members.clients, heard=dict(members.heard)) if members else None


def _kept_pending(pending: Pending | None) -> KeptPending | None:
    return KeptPending(clients=pending.clients, adapter_sha256=pending.adapter.sha256) if pending else None


def _kept(client_id: int, control: ClientControl) -> KeptControl:
    if not isinstance(control.adapter, StoredAdapter):
        raise ValueError(
            f"client {client_id}'s control variate is in memory: the federation's keep_control must be this folder's"
        )
    return KeptControl(client_id=client_id, sha256=control.adapter.file_sha256, share=control.share)
