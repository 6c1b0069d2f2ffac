"""Secure sums over worker processes and the exchange directory: the same bytes, also when processes are killed."""

import dataclasses
import os
import signal

import numpy as np
import pytest

from fccl.adapters.adapter import load_adapter
from fccl.contribution.reported import ContributionRule
from fccl.errors import FederationError
from fccl.messages import Worker
from fccl.paths import ExchangePaths
from fccl.privacy.fixed_point import as_words
from fccl.processes.pool import Pool
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.secure import Folders, masking_learner, masking_transport, secured
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.training.masking import KeysService, Masking, SharesService, UnmaskService
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.processes import ProcessesTransport
from tests.federation.test_secure_aggregation import Killed

CLIENTS = 3


@dataclasses.dataclass(frozen=True)
class Workers:
    """Makes the worker of a process."""

    folders: Folders

    def __call__(self):
        return Worker(masking_learner(ToyLearner(), self.folders), shard, Masking(self.folders).services())


@dataclasses.dataclass
class Dies(ToyLearner):
    """Is killed where it should train."""

    def fit(self, task, shard, on_status):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class DyingUnmask(UnmaskService):
    """One client is killed where it should open its shares."""

    client: int = 0

    def answer(self, request, shard, on_status):
        if shard.client_id == self.client:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(request, shard, on_status)


def fed_of(folder, **changes):
    plain = federation(CLIENTS, 1, ContributionRule(mode="fedavg"), **changes)
    return secured(plain, folder / "server")


def expected(tmp_path, **changes):
    transport = masking_transport(ToyLearner(), Folders(tmp_path / "expected"))
    return list(fed_of(tmp_path / "expected", **changes).run(START, transport))


def finished(fed, transport):
    with transport:
        found = list(fed.run(START, transport))
        transport.finish("run", len(found), found[-1].state.adapter)
    return found


def exchange(tmp_path, **changes):
    return ExchangeTransport(
        ExchangePaths(tmp_path / "exchange"), exchange_spec(CLIENTS, **changes), tmp_path / "received"
    )


def clients(tmp_path, learners=None, services=None):
    folders = Folders(tmp_path / "clients")
    known = {client: masking_learner((learners or {}).get(client, ToyLearner()), folders) for client in range(CLIENTS)}
    return client_processes(
        tmp_path / "exchange", known, heartbeat_s=0.1, services=services or Masking(folders).services()
    )


@pytest.mark.slow
def test_worker_processes_give_the_bytes_of_one_process(tmp_path):
    found = finished(fed_of(tmp_path), ProcessesTransport(Pool(Workers(Folders(tmp_path / "clients")), 2)))
    assert found[-1].state.adapter.sha256 == expected(tmp_path)[-1].state.adapter.sha256


@pytest.mark.slow
def test_the_exchange_directory_gives_the_bytes_of_one_process_and_holds_masked_updates_alone(tmp_path):
    with clients(tmp_path):
        found = finished(fed_of(tmp_path), exchange(tmp_path, keep_rounds=5))
    assert found[-1].state.adapter.sha256 == expected(tmp_path)[-1].state.adapter.sha256
    names = [path.name for path in (tmp_path / "exchange").iterdir()]
    assert {f"reply_{client}_0_secure_{step}.json" for client in range(CLIENTS) for step in range(3)} <= set(names)
    sent = [load_adapter(tmp_path / "exchange" / f"client_{client}_round_0.safetensors") for client in range(CLIENTS)]
    assert all(adapter.largest < 2 for adapter in sent)  # those of the toy are larger
    words = np.concatenate([as_words(adapter.vector.numpy()) for adapter in sent])
    assert len(set(words)) == 3 * CLIENTS


@pytest.mark.slow
def test_a_client_that_is_killed_between_shares_and_its_update_is_made_up_for(tmp_path):
    fed = fed_of(tmp_path, sft_rounds=1, va_rounds=0)
    with clients(tmp_path, {2: Dies()}):
        [result] = finished(fed, exchange(tmp_path, stale_s=1.0))
    assert result.record.secure.clients == (0, 1)
    assert result.record.secure.dropped == (2,)
    broken = masking_transport(ToyLearner(broken=frozenset({2})), Folders(tmp_path / "expected"))
    [wanted] = fed_of(tmp_path / "expected", sft_rounds=1, va_rounds=0).run(START, broken)
    assert result.state.adapter.sha256 == wanted.state.adapter.sha256


@pytest.mark.slow
def test_the_update_of_a_client_that_is_killed_before_it_opens_its_shares_counts(tmp_path):
    fed, masking = fed_of(tmp_path, sft_rounds=1, va_rounds=0), Masking(Folders(tmp_path / "clients"))
    services = KeysService(masking), SharesService(masking), DyingUnmask(masking, 1)
    with clients(tmp_path, services=services):
        [result] = finished(fed, exchange(tmp_path, stale_s=1.0))
    assert result.record.secure.clients == (0, 1, 2)
    assert result.state.adapter.sha256 == expected(tmp_path, sft_rounds=1, va_rounds=0)[-1].state.adapter.sha256


@pytest.mark.slow
@pytest.mark.parametrize("step", [("fit", 0), ("secure", 2)])
def test_an_orchestrator_that_is_killed_in_a_round_goes_on_to_the_same_bytes(tmp_path, step):
    fed = fed_of(tmp_path)
    with clients(tmp_path):
        with exchange(tmp_path) as transport, pytest.raises(KeyboardInterrupt):
            list(fed.run(START, Killed(transport, step)))
        found = finished(fed, exchange(tmp_path))
    assert found[-1].state.adapter.sha256 == expected(tmp_path)[-1].state.adapter.sha256


@pytest.mark.slow
def test_too_few_survivors_over_the_exchange_directory_are_one_line(tmp_path):
    fed = fed_of(tmp_path, sft_rounds=1, va_rounds=0)
    with (
        clients(tmp_path, {1: Dies(), 2: Dies()}),
        pytest.raises(FederationError, match=r"1 good update, MIN_CLIENTS is 2 \(client 1: no heartbeat for 1 s"),
        exchange(tmp_path, stale_s=1.0) as transport,
    ):
        list(fed.run(START, transport))
