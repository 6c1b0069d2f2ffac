"""The figures of a run as TensorBoard events in `LOG_DIR/tensorboard`:

`tensorboard --logdir logs` shows them, and those of earlier runs beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fccl.paths import LogPaths
from fccl.records.evaluation import EvaluationReport
from fccl.records.run import ClientMetrics, RoundRecord, RunInfo, Validation
from fccl.storage.files import storage_errors
from fccl.tracking.figures import Figures, base_figures, evaluation_figures, hyper_parameters, round_figures, step_of
from fccl.tracking.tracker import Status
from fccl.view.evaluation_markdown import to_markdown

# The figures that runs are compared by, beside their settings.
HEADLINES = ("sft/validation_loss", "va/validation_loss", "va/preference_accuracy")


class TensorboardTracker:
    """Writes the whole run each time it is opened, for it is then told all of it again.

    `purge_step` makes TensorBoard discard what earlier files say.
    """

    def __init__(self, paths: LogPaths) -> None:
        self._folder = paths.tensorboard
        self._step, self._time = 0, 0.0

    def started(self, info: RunInfo, base: Validation | None) -> None:
        with storage_errors(self._folder):
            self._writer = cast(Any, SummaryWriter(str(self._folder), purge_step=0))
        self._time = info.created
        describe = cast(Any, hparams)  # neither it nor the writer has types
        for summary in describe(hyper_parameters(info), dict.fromkeys(HEADLINES, 0.0)):
            self._writer.file_writer.add_summary(summary, walltime=self._time)
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in info.settings.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", walltime=self._time)
        self._write(base_figures(base))

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        self._step, self._time = step_of(record), record.time
        self._write(round_figures(record, metrics))

    def evaluated(self, report: EvaluationReport) -> None:
        self._writer.add_text("evaluation", to_markdown(report), self._step)
        self._write(evaluation_figures(report))

    def ended(self, status: Status) -> None:
        self._writer.close()

    def _write(self, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, self._step, walltime=self._time)
        self._writer.flush()
