"""A finished run found again: which it is, what may be changed of it, and what no replay may do."""

import pytest

from fccl.data.shards import read_manifest
from fccl.errors import FederationError, SettingsError
from fccl.library.past_run import AtWork, changed, past_run
from fccl.model.loading import Models
from fccl.paths import DataPaths, LogPaths
from fccl.records.run import RunInfo, RunState
from fccl.storage.files import write_text


@pytest.fixture(scope="module")
def past(small_run):
    return past_run(small_run / "logs", "", "replay", {})


def work(past, small_run, **settings):
    data = DataPaths(small_run / "data")
    own = past.settings.model_copy(update=settings)
    other = type(past)(past.folder, past.info, past.state, past.after, own)
    return AtWork(other, own, Models(), data, read_manifest(data))


def test_only_what_differs_is_a_change(past):
    told = {"contribution_source": "data_size", "aggregation": past.settings.aggregation, "log_dir": "elsewhere"}
    settings, changes = changed(past, told)
    assert changes == {"contribution_source": "data_size"}
    assert settings.log_dir == past.settings.log_dir


def test_a_rule_that_takes_no_weights_is_weighed_uniformly(past):
    settings, _ = changed(past, {"aggregation": "median"})
    assert settings.contribution_mode == "uniform"


def test_a_rule_that_needs_more_clients_than_a_round_has_is_refused_before_any_work(past):
    with pytest.raises(FederationError, match="needs at least 5 updates"):
        changed(past, {"aggregation": "krum", "max_bad_clients": 1})


def test_a_run_that_is_not_finished_is_one_line(tmp_path):
    logs = LogPaths(tmp_path)
    info = RunInfo(run_id="run", created=1.0, settings={}, data_sha256="", versions={})
    write_text(logs.run, info.model_dump_json())
    write_text(logs.state, RunState(run_id="run", next_round=1, total_rounds=4, adapter_sha256="x").model_dump_json())
    with pytest.raises(FederationError, match="run run has 1 of 4 rounds") as error:
        past_run(tmp_path, "", "replay", {})
    assert "--resume" in error.value.hint


def test_a_name_that_is_nearly_one_is_guessed(small_run, tmp_path):
    (tmp_path / "runs" / "20260101-000000-abcd").mkdir(parents=True)
    with pytest.raises(FederationError, match="holds no run 20260101-000000-abce") as error:
        past_run(tmp_path, "20260101-000000-abce", "replay", {})
    assert error.value.hint == "did you mean 20260101-000000-abcd?"


def test_factors_of_other_directions_are_replayed_by_round(past, small_run):
    assert not work(past, small_run).by_round
    assert work(past, small_run, lora_aggregation="svd").by_round
    assert work(past, small_run, lora_aggregation="exact").by_round


def test_nobody_trains_anew_under_differential_privacy(past, small_run):
    with pytest.raises(FederationError, match="release more than the run's ledger counts"):
        work(past, small_run, dp_where="client").trainers()


def test_where_the_server_adds_the_noise_there_is_nothing_to_replay(past, small_run):
    with pytest.raises(FederationError, match="nothing of a single client is kept"):
        work(past, small_run, dp_where="server").replayed()


def test_where_updates_were_masked_there_is_nothing_to_replay_and_nobody_trains_in_the_clear(past, small_run):
    with pytest.raises(FederationError, match="no single update is known"):
        work(past, small_run, secure_aggregation=True).replayed()
    with pytest.raises(FederationError, match="would show single updates"):
        work(past, small_run, secure_aggregation=True).trainers()


def test_a_setting_that_changes_training_is_refused_with_the_way_on(past):
    with pytest.raises(SettingsError, match="AGGREGATION=fedprox: its clients train in another way") as error:
        changed(past, {"aggregation": "fedprox"})
    assert "another run" in error.value.hint
