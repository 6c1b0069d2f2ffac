"""The figures of a run in Weights & Biases.

Project, account, server and mode are W&B's own settings (WANDB_PROJECT, WANDB_MODE and so on).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import wandb
from pydantic import Field

from fccl.paths import LogPaths
from fccl.records.evaluation import EvaluationReport
from fccl.records.run import ClientMetrics, RoundRecord, RunInfo, Validation
from fccl.specs import Value
from fccl.storage.files import write_text
from fccl.storage.reading import read_value
from fccl.tracking.figures import base_figures, evaluation_figures, hyper_parameters, round_figures, step_of
from fccl.tracking.tracker import Status

PROJECT = "fccl"


class Written(Value):
    """The progress of writing a run. W&B itself does not know when it is offline."""

    run_id: str
    step: int = Field(ge=0)


class WandbTracker:
    """One W&B run for a run, under the same id however often it is resumed."""

    def __init__(self, paths: LogPaths) -> None:
        self._folder, self._mark = paths.root, paths.wandb_mark
        self._written = -1

    def started(self, info: RunInfo, base: Validation | None) -> None:
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=info.run_id,
            name=info.run_id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(self._folder),
            config=hyper_parameters(info)
            | {"data_sha256": info.data_sha256}
            | {f"version_{name}": value for name, value in info.versions.items()},
        )
        before = read_value(self._mark, Written)
        self._run_id = info.run_id
        self._written = before.step if before and before.run_id == info.run_id else -1
        if self._written < 0:
            self._write(base_figures(base), 0)

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        if step_of(record) > self._written:
            self._write(round_figures(record, metrics), step_of(record))

    def evaluated(self, report: EvaluationReport) -> None:
        self._run.summary.update(evaluation_figures(report))

    def ended(self, status: Status) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)

    def _write(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step, commit=True)
        write_text(self._mark, Written(run_id=self._run_id, step=step).model_dump_json() + "\n")
        self._written = step
