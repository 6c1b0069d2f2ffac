"""A secure sum over Flower: its four steps travel as the files of the exchange directory, with the same bytes."""

from contextlib import ExitStack, contextmanager

import pytest

from fccl.contribution.reported import ContributionRule
from fccl.testing.secure import Folders, masking_learner, masking_transport, secured
from fccl.testing.toy import START, ToyLearner, federation
from fccl.training.masking import Masking
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.flower.grids import super_link
from tests.transports.flower.sites import Sites


class MaskingSites(Sites):
    """Sites whose workers take part in secure sums. Those of `broken` fail to train, after they have given shares."""

    @contextmanager
    def workers(self, *numbers, broken=()):
        folders, toy = Folders(self.folder / "clients"), ToyLearner(broken=frozenset(broken))
        with ExitStack() as held:
            for number in numbers:
                learners, services = {number: masking_learner(toy, folders)}, Masking(folders).services()
                held.enter_context(client_threads(self.site(number), learners, services=services, grace_s=0.1))
                held.callback(self._end, number, None)
            yield


def run(folder, transport, clients=2):
    fed = secured(federation(clients, 1, ContributionRule(mode="fedavg")), folder / "sums")
    return list(fed.run(START, transport))


@pytest.mark.slow
def test_a_secure_sum_over_flower_has_the_bytes_of_one_process(tmp_path):
    with super_link() as nodes:
        sites = MaskingSites(tmp_path, nodes)
        sites.start(0), sites.start(1)
        with sites.workers(0, 1), sites.transport() as transport:
            found = run(tmp_path, transport)
    expected = run(tmp_path / "expected", masking_transport(ToyLearner(), Folders(tmp_path / "expected")))
    assert found[-1].state.adapter.sha256 == expected[-1].state.adapter.sha256
    assert [result.record.secure.clients for result in found] == [(0, 1), (0, 1)]


@pytest.mark.slow
def test_a_site_that_drops_out_after_its_shares_is_made_up_for_over_flower_too(tmp_path):
    with super_link() as nodes:
        sites = MaskingSites(tmp_path, nodes)
        for number in range(3):
            sites.start(number)
        with sites.workers(0, 1, 2, broken=[2]), sites.transport(num_clients=3) as transport:
            found = run(tmp_path, transport, clients=3)
    broken = masking_transport(ToyLearner(broken=frozenset({2})), Folders(tmp_path / "expected"))
    expected = run(tmp_path / "expected", broken, clients=3)
    assert [(each.record.secure.clients, each.record.secure.dropped) for each in found] == [((0, 1), (2,))] * 2
    assert found[-1].state.adapter.sha256 == expected[-1].state.adapter.sha256
