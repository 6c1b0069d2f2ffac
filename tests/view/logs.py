"""The folder of a run, written record by record as a run does it, without training anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fccl.paths import LogPaths
from fccl.records.manifest import Manifest
from fccl.records.run import (
    ClientMetrics,
    ClientStatus,
    Contribution,
    ExcludedClient,
    RoundRecord,
    RunEvent,
    RunInfo,
    RunState,
    Validation,
)
from fccl.specs import DataSpec, PartitionSpec, Phase, Value

BEGAN = 1000.0  # seconds since 1970
ROUND_S = 100.0
BASE = Validation(loss=6.5, examples=96)


def line(record: Value) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def a_manifest(
    sft: tuple[tuple[int, ...], ...] = ((8, 0), (8, 8)), va: tuple[tuple[int, ...], ...] = ((2, 2), (2, 2))
) -> Manifest:
    """Two topics; for every client its examples of each."""
    partition = PartitionSpec(num_clients=len(sft), alpha=0.5, seed=1)
    spec = DataSpec(sft_data="builtin", va_data="builtin", test_examples=1, validation_examples=1, partition=partition)
    return Manifest(
        spec=spec, sources=(), counts={}, topics=("a", "b"), topics_by_client={"sft": sft, "va": va}, files={}
    )


@dataclass
class Logs:
    """`clients` clients, `fed_rounds` rounds a phase; round R ends at BEGAN + (R + 1) * ROUND_S."""

    root: Path
    clients: int = 3
    fed_rounds: int = 2
    run_id: str = "run"

    @property
    def paths(self) -> LogPaths:
        return LogPaths(self.root)

    def begin(self, **settings: object) -> Logs:
        """What a run writes before its first round; `settings` beside the numbers of clients and rounds."""
        self.root.mkdir(parents=True, exist_ok=True)
        known = {"num_clients": self.clients, "clients_per_round": 0, "fed_rounds": self.fed_rounds} | settings
        text = {name: str(value) for name, value in known.items() if value is not None}
        info = RunInfo(run_id=self.run_id, created=BEGAN, settings=text, data_sha256="", versions={})
        self.paths.run.write_bytes(line(info))
        self.commit(0)
        self.event("started", BEGAN, validation=BASE)
        return self

    def event(self, name: str, time: float, round: int = 0, **fields: object) -> None:
        self.append(self.paths.progress, RunEvent(event=name, run_id=self.run_id, time=time, round=round, **fields))

    def round(
        self,
        number: int,
        excluded: tuple[int, ...] = (),
        commit: bool = True,
        training_s: float = 20.0,
        declined: tuple[int, ...] = (),
    ) -> None:
        """A complete round: what its clients did, its record, and the state."""
        record = self.record(number, excluded, declined)
        for client in record.clients:
            self.append(self.paths.client_metrics, self.metrics(number, client, training_s))
        self.append(self.paths.progress, record)
        if commit:
            self.commit(number + 1)

    def commit(self, next_round: int) -> None:
        state = RunState(
            run_id=self.run_id, next_round=next_round, total_rounds=2 * self.fed_rounds, adapter_sha256="a" * 64
        )
        self.paths.state.write_bytes(line(state))

    def beat(
        self, client: int, state: str, round: int, time: float, folder: Path | None = None, **fields: object
    ) -> None:
        known = {"run_id": self.run_id, "phase": self.phase(round)} | fields
        status = ClientStatus(client_id=client, state=state, round=round, time=time, **known)
        path = LogPaths(folder or self.root).status(client)
        with open(path, "wb", buffering=0) as file:
            file.write(line(status))
            os.utime(file.fileno(), (time, time))

    def phase(self, number: int) -> Phase:
        return "sft" if number < self.fed_rounds else "va"

    def metrics(self, number: int, client: int, training_s: float = 20.0) -> ClientMetrics:
        return ClientMetrics(
            run_id=self.run_id,
            time=BEGAN + (number + 1) * ROUND_S,
            round=number,
            phase=self.phase(number),
            client_id=client,
            avg_loss=2.0 - 0.1 * client,
            num_samples=10 * (client + 1),
            seconds=training_s,
            tokens=100,
            tokens_per_second=50.0,
            steps=8,
            truncated=0,
            first_loss=None,
            update_norm=1.5,
        )

    def record(self, number: int, excluded: tuple[int, ...] = (), declined: tuple[int, ...] = ()) -> RoundRecord:
        good = [client for client in range(self.clients) if client not in (*excluded, *declined)]
        accuracy = None if self.phase(number) == "sft" else 0.75
        return RoundRecord(
            run_id=self.run_id,
            time=BEGAN + (number + 1) * ROUND_S,
            round=number,
            phase=self.phase(number),
            selected=tuple(range(self.clients)),
            clients=tuple(good),
            weights=tuple(1 / len(good) for _ in good),
            scores=tuple(float(client) for client in good),
            contributions=tuple(
                Contribution(avg_loss=2.0 - 0.1 * client, num_samples=10 * (client + 1), seconds=20.0)
                for client in good
            ),
            excluded=tuple(ExcludedClient(client_id=client, reason="no answer") for client in excluded),
            declined=declined,
            effective_clients=float(len(good)),
            validation=Validation(loss=3.0 - 0.5 * number, preference_accuracy=accuracy, examples=96),
            adapter_sha256=f"{number:064x}",
            update_norm=2.5,
            seconds=ROUND_S,
        )

    def append(self, path: Path, record: RunEvent | RoundRecord | ClientMetrics) -> None:
        with open(path, "ab", buffering=0) as file:
            file.write(line(record))
            os.utime(file.fileno(), (record.time, record.time))
