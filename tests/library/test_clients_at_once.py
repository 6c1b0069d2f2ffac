"""A whole run whose clients train in one batch."""

import json
import shutil

import pytest

import fccl
from fccl.errors import SettingsError
from fccl.testing.toy import ToyLearner

SMALL = {"max_sft_examples": 36, "max_va_examples": 24, "fed_rounds": 1, "num_clients": 3, "validation_examples": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_path):
    """Makes a run of three clients, or resumes one without any settings."""
    folder = tmp_path_factory.mktemp("at-once")
    model = {"model_name": str(tiny_model_path), "max_length": 128, "threads": 1}

    def make(name, resume=False, **changes):
        settings = changes if resume else SMALL | model | changes
        return fccl.FederatedRun(resume=resume, data_dir=folder / "data", log_dir=folder / name, **settings)

    return make


@pytest.fixture(scope="module")
def together(run):
    """The final adapter of a run that was not left."""
    whole = run("together", clients_at_once="3")
    assert whole.settings.clients_at_once == "3"
    return whole.train()


def test_a_run_that_was_left_and_resumed_has_the_bytes_of_one_that_was_not(run, together):
    for _ in run("left", clients_at_once="3"):
        break
    resumed = run("left", resume=True)
    assert resumed.settings.clients_at_once == "3"
    assert resumed.train().sha256 == together.sha256


def test_the_adapter_is_that_of_clients_that_train_alone_but_for_float_noise(run, together):
    alone = run("alone")
    assert alone.settings.clients_at_once == "1"
    start = next(iter(alone)).state.adapter
    assert 0 < alone.train().distance(together) < 1e-2 * start.distance(together)


def test_a_resumed_run_refuses_another_number(run, together):
    with pytest.raises(SettingsError, match="CLIENTS_AT_ONCE=2: the run to resume has 3"):
        run("together", resume=True, clients_at_once="2")


def test_other_processes_and_learners_of_ones_own_train_alone(tmp_path):
    places = {"data_dir": tmp_path / "data", "log_dir": tmp_path / "logs"}
    with pytest.raises(SettingsError, match="CLIENTS_AT_ONCE=2: the clients are other processes"):
        fccl.Orchestrator(clients_at_once="2", exchange_dir=tmp_path / "exchange", **places)
    with pytest.raises(SettingsError, match="CLIENTS_AT_ONCE=2: ToyLearner"):
        fccl.FederatedRun(learner=ToyLearner(), clients_at_once="2", **places)
    assert fccl.FederatedRun(learner=ToyLearner(), **places).settings.at_once == 1


def test_a_model_that_the_generic_engine_computes_is_asked_for_one_client_at_a_time(tmp_path, tiny_model_path):
    """Which engine computes a model is known once it is loaded; nothing of the run is written before."""
    other = shutil.copytree(tiny_model_path, tmp_path / "relu")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    places = {"data_dir": tmp_path / "data", "log_dir": tmp_path / "logs"}
    run = fccl.FederatedRun(model_name=str(other), max_length=128, clients_at_once="3", **SMALL, **places)
    with pytest.raises(SettingsError, match=r"CLIENTS_AT_ONCE=3: the engine generic, which computes .*relu"):
        run.train()
    assert not (tmp_path / "logs").exists()
