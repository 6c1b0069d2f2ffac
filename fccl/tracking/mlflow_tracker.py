"""The figures of a run in MLflow: at MLFLOW_TRACKING_URI, or in a store of its own below `LOG_DIR/mlruns`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

os.environ.setdefault(
    "MLFLOW_DISABLE_TELEMETRY", "true"
)  # read at the import: a run tells nobody that it was not asked to
os.environ.setdefault(
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
)  # a server that does not answer must not hold a run up for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from fccl.paths import LogPaths
from fccl.records.evaluation import EvaluationReport
from fccl.records.run import ClientMetrics, RoundRecord, RunInfo, Validation
from fccl.tracking.figures import MARK, Figures, base_figures, evaluation_figures, round_figures, step_of
from fccl.tracking.tracker import Status
from fccl.view.evaluation_markdown import to_markdown

EXPERIMENT = "fccl"  # unless MLFLOW_EXPERIMENT_NAME says otherwise
RUN_TAG = "fccl.run_id"
LONGEST = 500  # characters of a parameter that every server takes
MOST = 100  # parameters, or metrics, that a server takes at once
STATUS: Mapping[Status, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """One MLflow run for a run, however often it is resumed: it is found by its tag."""

    def __init__(self, paths: LogPaths) -> None:
        self._store = paths.mlflow
        self._there: frozenset[int] = frozenset()  # steps that were written before
        self._step, self._time = 0, 0

    def started(self, info: RunInfo, base: Validation | None) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or self._own_store())
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{info.run_id}'")
        self._time = round(1000 * info.created)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._there = frozenset(metric.step for metric in self._client.get_metric_history(self._run, MARK))
        else:
            self._run = self._client.create_run(
                experiment, start_time=self._time, tags={RUN_TAG: info.run_id, MLFLOW_RUN_NAME: info.run_id}
            ).info.run_id
            self._describe(info)
            self._write(base_figures(base))

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        self._step, self._time = step_of(record), round(1000 * record.time)
        if self._step not in self._there:
            figures = round_figures(record, metrics)
            mark = {MARK: figures.pop(MARK)}
            self._write(figures | mark)  # the mark last: a round that was cut off is written again

    def evaluated(self, report: EvaluationReport) -> None:
        self._write(evaluation_figures(report))
        self._client.log_text(self._run, to_markdown(report), "evaluation.md")
        self._client.log_text(self._run, report.model_dump_json(indent=2) + "\n", "evaluation.json")

    def ended(self, status: Status) -> None:
        self._client.set_terminated(self._run, STATUS[status])

    def _own_store(self) -> str:
        self._store.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{(self._store / 'mlflow.db').resolve()}"

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if (there := self._client.get_experiment_by_name(name)) is not None:
            return str(there.experiment_id)
        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (self._store / "artifacts").resolve().as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another run has just made it
            if (there := self._client.get_experiment_by_name(name)) is None:
                raise
            return str(there.experiment_id)

    def _describe(self, info: RunInfo) -> None:
        parameters = [Param(name, value[:LONGEST]) for name, value in info.settings.items()]
        versions = [RunTag(f"version.{name}", value) for name, value in info.versions.items()]
        for at in range(0, len(parameters), MOST):
            self._client.log_batch(self._run, params=parameters[at : at + MOST])
        self._client.log_batch(self._run, tags=[*versions, RunTag("data_sha256", info.data_sha256)])

    def _write(self, figures: Figures) -> None:
        """With the record's own time, so that a figure that is written twice is the same figure."""
        metrics = [Metric(name, value, self._time, self._step) for name, value in figures.items()]
        for at in range(0, len(metrics), MOST):
            self._client.log_batch(self._run, metrics=metrics[at : at + MOST])
