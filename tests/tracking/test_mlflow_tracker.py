"""A real MLflow store, the one below LOG_DIR or one that the environment names."""

import shutil

import pytest

from fccl.tracking.figures import base_figures, evaluation_figures, round_figures, step_of
from fccl.tracking.tracker import GuardedTracker, tracker_for
from tests.view.logs import BASE


def store_at(uri):
    """MLflow's own client. It is imported here: collecting the tests need not wait for it."""
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture(scope="module")
def new_store(tmp_path_factory):
    """A store that has just been made: its dozens of migrations take seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    store_at(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stored(told, new_store):
    """A folder of logs whose MLflow store is there, and empty."""
    told.paths.mlflow.mkdir(parents=True)
    shutil.copy(new_store, told.paths.mlflow / "mlflow.db")
    return told


def client(told):
    return store_at(f"sqlite:///{(told.paths.mlflow / 'mlflow.db').resolve()}")


def runs(told, experiment="fccl"):
    store = client(told)
    return store.search_runs([store.get_experiment_by_name(experiment).experiment_id])


def figures(told, run):
    store = client(told)
    return {
        (name, each.step): each.value
        for name in run.data.metrics
        for each in store.get_metric_history(run.info.run_id, name)
    }


def expected(told, until=4):
    found = {(name, 0): value for name, value in base_figures(BASE).items()}
    for record, metrics in told.rounds(until):
        found |= {(name, step_of(record)): value for name, value in round_figures(record, metrics).items()}
    return found


def points(told, run):
    """How many values of every metric there are, steps that are there twice counted twice."""
    store = client(told)
    return sum(len(store.get_metric_history(run.info.run_id, name)) for name in run.data.metrics)


def test_the_store_holds_every_figure_and_what_the_run_is(told):
    tracker = tracker_for("mlflow", told.paths)
    told.tell(tracker)
    tracker.evaluated(told.report)
    tracker.ended("finished")
    (run,) = runs(told)
    assert figures(told, run) == pytest.approx(
        expected(told) | {(name, 4): value for name, value in evaluation_figures(told.report).items()}
    )
    assert run.data.params == told.info.settings
    assert run.data.tags["fccl.run_id"] == run.info.run_name == told.info.run_id
    assert run.data.tags["data_sha256"] == told.info.data_sha256
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1_000_000
    assert sorted(each.path for each in client(told).list_artifacts(run.info.run_id)) == [
        "evaluation.json",
        "evaluation.md",
    ]
    assert list(told.paths.mlflow.glob("artifacts/*/artifacts/evaluation.md"))


@pytest.mark.parametrize(("end", "status"), [("failed", "FAILED"), ("interrupted", "KILLED"), (None, "RUNNING")])
def test_a_resumed_run_goes_on_in_the_same_run(stored, end, status):
    first = tracker_for("mlflow", stored.paths)
    stored.tell(first, until=2)
    if end:
        first.ended(end)
    assert [run.info.status for run in runs(stored)] == [status]
    second = tracker_for("mlflow", stored.paths)
    second.started(stored.info, BASE)
    assert [run.info.status for run in runs(stored)] == ["RUNNING"]
    for record, metrics in stored.rounds():
        second.round(record, metrics)
    second.ended("finished")
    (run,) = runs(stored)
    assert run.info.status == "FINISHED"
    assert figures(stored, run) == pytest.approx(expected(stored))
    assert points(stored, run) == len(expected(stored))


def test_a_round_that_was_cut_off_is_written_once(stored):
    from mlflow.entities import Metric

    first = tracker_for("mlflow", stored.paths)
    stored.tell(first, until=2)
    (run,) = runs(stored)
    record, metrics = stored.rounds()[2]
    some = list(round_figures(record, metrics).items())[:5]
    client(stored).log_batch(
        run.info.run_id,
        [Metric(name, value, round(1000 * record.time), 3) for name, value in some if name != "round/seconds"],
    )
    second = tracker_for("mlflow", stored.paths)
    stored.tell(second)
    second.ended("finished")
    (run,) = runs(stored)
    assert points(stored, run) == len(expected(stored))


def test_many_clients_are_written_in_pieces_that_a_server_takes(stored):
    stored.logs.clients = 19
    tracker = tracker_for("mlflow", stored.paths)
    stored.tell(tracker)
    tracker.ended("finished")
    (run,) = runs(stored)
    assert len(round_figures(*stored.rounds()[0])) > 100
    assert figures(stored, run) == pytest.approx(expected(stored))


def test_two_runs_share_a_store_and_an_experiment(stored):
    stored.tell(tracker_for("mlflow", stored.paths), until=1)
    stored.logs.run_id = "another"
    stored.tell(tracker_for("mlflow", stored.paths), until=2)
    assert sorted(run.data.tags["fccl.run_id"] for run in runs(stored)) == ["20260101-101010-abcd", "another"]


def test_the_environment_names_store_and_experiment(stored, new_store, tmp_path, monkeypatch):
    shutil.copy(new_store, tmp_path / "elsewhere.db")
    uri = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.chdir(tmp_path)
    stored.tell(tracker_for("mlflow", stored.paths), until=1)
    assert store_at(uri).get_experiment_by_name("mine")
    assert not stored.paths.mlflow.joinpath("artifacts").exists()


def test_a_store_that_fails_in_mid_run_is_one_line(stored):
    said = []
    with GuardedTracker(tracker_for("mlflow", stored.paths), said.append) as follower:
        follower.started(stored.info, BASE)
        follower.round(*stored.rounds()[0])
        (run,) = runs(stored)
        client(stored).delete_run(run.info.run_id)
        for record, metrics in stored.rounds()[1:]:
            follower.round(record, metrics)
    assert len(said) == 1
    assert said[0].startswith("The tracker failed and is left alone from now on: MlflowException: ")
