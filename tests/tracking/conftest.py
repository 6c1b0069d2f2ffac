"""A run's records, to be told to trackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fccl.paths import LogPaths
from fccl.records.run import ClientMetrics, RoundRecord, RunInfo
from fccl.tracking.tracker import Tracker
from tests.view.histories import evaluation
from tests.view.logs import BASE, Logs


@dataclass
class Told:
    """What a run of two rounds a phase and three clients tells; client 2 is left out of the second round."""

    logs: Logs
    report = evaluation()

    @property
    def paths(self) -> LogPaths:
        return self.logs.paths

    @property
    def info(self) -> RunInfo:
        settings = {"seed": "7", "model_name": "micro", "sft_lr": "0.004", "evaluate": "True", "noisy_clients": ""}
        return RunInfo(
            run_id=self.logs.run_id,
            created=1000.0,
            settings=settings,
            data_sha256="ab" * 32,
            versions={"fccl": "0.1.0"},
        )

    def rounds(self, until: int = 4) -> list[tuple[RoundRecord, Sequence[ClientMetrics]]]:
        found = []
        for number in range(until):
            record = self.logs.record(number, (2,) if number == 1 else ())
            found.append((record, [self.logs.metrics(number, client) for client in record.clients]))
        return found

    def tell(self, tracker: Tracker, until: int = 4) -> None:
        tracker.started(self.info, BASE)
        for record, metrics in self.rounds(until):
            tracker.round(record, metrics)


@pytest.fixture
def told(tmp_path):
    return Told(Logs(tmp_path / "logs", run_id="20260101-101010-abcd"))
