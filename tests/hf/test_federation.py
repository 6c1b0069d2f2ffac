"""The three lines over an exchange directory, with a server of this process."""

import threading
from contextlib import contextmanager

import pytest

from fccl.errors import FederationError, ModelError
from fccl.hf import federate
from fccl.messages import ClientFailure, ClientUpdate, Declaration, DeclareTask
from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.flower.client_app import app
from fccl.transports.flower.transport import FlowerTransport
from tests.hf import made
from tests.transports.flower.grids import super_link

pytestmark = pytest.mark.filterwarnings("ignore")
ME = made.SHARD.client_id


@pytest.fixture
def federation(tiny_model_path, tmp_path):
    """The federation of a script that has an SFT trainer and no other; and the lines that it hears."""
    told = []
    trainer = made.sft_trainer(tiny_model_path, tmp_path / "out")
    where = {"exchange_dir": tmp_path / "exchange", "state_dir": tmp_path / "state", "data_dir": tmp_path / "data"}
    return federate(sft=trainer, client_id=ME, heartbeat_s=0.5, tell=told.append, **where), told


def over_a_directory(folder):
    return ExchangeTransport(ExchangePaths(folder / "exchange"), exchange_spec(ME + 1), folder / "received")


@contextmanager
def served(folder, *tasks, over=over_a_directory):
    """A server that asks the one client these tasks, one after another, and says that the run is done."""
    found = []

    def serve():
        with over(folder) as transport:
            for task in tasks:
                found.extend(transport.ask(task, (ME,)))
            transport.finish("run", len(tasks), tasks[-1].adapter)

    server = threading.Thread(target=serve)
    server.start()
    yield found
    server.join()


def test_a_round_of_its_phase_is_given_and_one_of_the_other_is_declined(
    federation, tiny_model, tiny_model_path, tmp_path
):
    mine, told = federation
    tasks = [made.task(tiny_model_path, tiny_model.form, phase, number) for number, phase in enumerate(("sft", "va"))]
    with served(tmp_path, *tasks) as found:
        trained = [(task.round, task.phase, mine.train(task)) for task in mine]
    ((number, phase, update),) = trained
    assert (number, phase) == (0, "sft")
    assert isinstance(found[0], ClientUpdate)
    assert found[0].contribution == update.contribution
    assert found[1] == ClientFailure(ME, "declines FedVA", declines=True)
    assert told[0].startswith("waiting for rounds in ")
    assert told[-2:] == ["round 2 (va): declines FedVA", "the run is done"]


def test_over_flower_the_script_is_the_worker_of_its_site(federation, tiny_model, tiny_model_path, tmp_path):
    mine, _ = federation

    def over_flower(folder):
        own = ExchangePaths(folder / "server"), exchange_spec(ME + 1, timeout_s=60.0, stale_s=60.0)
        return FlowerTransport(nodes.grid, *own, folder / "received", None, 0.01, 60.0)

    with super_link() as nodes:
        nodes.start(ME, tmp_path / "exchange", app)
        with served(tmp_path, made.task(tiny_model_path, tiny_model.form), over=over_flower) as found:
            (update,) = [mine.train(task) for task in mine]
    assert found[0].contribution == update.contribution


def test_what_goes_wrong_is_told_to_the_server_and_raised(federation, tiny_model, tiny_model_path, tmp_path):
    mine, _ = federation
    other = made.task(tiny_model_path, tiny_model.form, lora_alpha=16.0)
    with served(tmp_path, other) as found:
        for task in mine:
            with pytest.raises(ModelError, match="is scaled by 2, the federation's by 4") as error:
                mine.train(task)
            with pytest.raises(FederationError, match="this task is not open"):
                mine.train(task)
    assert found == [ClientFailure(ME, str(error.value))]


def test_where_clients_hold_their_own_data_the_trainers_lengths_are_declared(
    federation, tiny_model, tiny_model_path, tmp_path
):
    mine, _ = federation
    with served(tmp_path, DeclareTask("run", 0, "sft"), made.task(tiny_model_path, tiny_model.form)) as found:
        for task in mine:
            mine.train(task)
    assert found[0] == Declaration(client_id=ME, sft=len(made.SHARD.sft), va=0)
