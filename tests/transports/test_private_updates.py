"""Noise at the client has the same bytes over every transport, with the same secrets."""

import dataclasses
import shutil

import pytest

from fccl.contribution.reported import ContributionRule
from fccl.federation.privacy import ClientNoise
from fccl.messages import Worker
from fccl.paths import ExchangePaths
from fccl.privacy.secrets import secret_of
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import Spent
from fccl.processes.pool import Pool
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.training.private import PrivateLearner
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport
from fccl.transports.processes import ProcessesTransport

SPEC = PrivacySpec(where="client", clip=0.5, noise=4.0, epsilon=50.0, delta=1e-5)
CLIENTS = 2


@dataclasses.dataclass(frozen=True)
class Folders:
    """Client i's private folder; pickled to processes."""

    root: object

    def __call__(self, client):
        return self.root / f"client_{client}"


@dataclasses.dataclass(frozen=True)
class Workers:
    """Makes the worker of a process."""

    folders: Folders

    def __call__(self):
        return Worker(PrivateLearner(ToyLearner(), self.folders), shard)


@pytest.fixture
def folders(tmp_path):
    """Private folders by name, all with the same secrets and ledgers of their own."""

    def named(name):
        made = Folders(tmp_path / name)
        for client in range(CLIENTS):
            secret_of(made(client))
            if name != "first":
                shutil.copy(tmp_path / "first" / f"client_{client}" / "secret", made(client) / "secret")
        return made

    return named


def said(transport):
    fed = federation(clients=CLIENTS, rounds=1, rule=ContributionRule(mode="uniform"))
    fed = dataclasses.replace(fed, privacy=ClientNoise(SPEC, fed.plan))
    with transport:
        found = list(fed.run(START, transport))
        transport.finish("run", len(found), found[-1].state.adapter)
    return [(result.record.adapter_sha256, result.record.arrived, result.record.privacy) for result in found]


@pytest.mark.slow
def test_every_transport_gives_the_same_bytes(folders, tmp_path):
    first = folders("first")
    expected = said(InProcessTransport(PrivateLearner(ToyLearner(), first), shard))
    assert said(ProcessesTransport(Pool(Workers(folders("second")), 2))) == expected
    third = folders("third")
    learners = {number: PrivateLearner(ToyLearner(), third) for number in range(CLIENTS)}
    exchange = ExchangeTransport(ExchangePaths(tmp_path / "exchange"), exchange_spec(CLIENTS), tmp_path / "received")
    with client_processes(tmp_path / "exchange", learners):
        assert said(exchange) == expected
    ledgers = [Spent(tmp_path / name / "client_1").releases for name in ("first", "second", "third")]
    assert ledgers[0] == ledgers[1] == ledgers[2]
    assert len(ledgers[0]) == 2


def test_the_same_folders_are_spent_once_whatever_transport_asks_again(folders):
    first = folders("first")
    for _ in range(2):
        said(InProcessTransport(PrivateLearner(ToyLearner(), first), shard))
    assert len(Spent(first(0)).releases) == 2
