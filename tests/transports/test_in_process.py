import pytest

from fccl.errors import StorageError
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.toy_requests import toy_services
from fccl.testing.transport import TransportContract, task, toy_learner
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import Listener, RunIdentity


class TestInProcess(TransportContract):
    @pytest.fixture
    def make(self):
        return lambda broken=(), errors=None: InProcessTransport(
            toy_learner(broken, errors), shard, toy_services(broken)
        )


def listened_to(transport, hear):
    transport.begin(RunIdentity("run"), Listener(heartbeat=hear))
    return transport


def test_each_shard_is_loaded_when_its_client_s_turn_comes():
    loaded = []
    transport = InProcessTransport(ToyLearner(), lambda client: loaded.append(client) or shard(client))
    answers = transport.ask(task(), (0, 1, 2))
    next(answers)
    assert loaded == [0]


def test_the_servers_own_disk_is_no_clients_failure():
    def full(status):
        raise StorageError("the disk is full")

    with pytest.raises(StorageError):
        list(listened_to(InProcessTransport(ToyLearner(), shard), full).ask(task(), (0,)))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("out of memory\nmore"), ValueError("bad"), FloatingPointError("nan")]
)
def test_whatever_training_raises_is_that_clients_failure(error):
    class Broken(ToyLearner):
        def fit(self, task, shard, on_status):
            if shard.client_id == 1:
                raise error
            return super().fit(task, shard, on_status)

    heard = []
    answers = listened_to(InProcessTransport(Broken(), shard), heard.append).ask(task(), (0, 1, 2))
    found = [next(answers), next(answers)]
    said = heard[-1]  # before the round is complete
    assert (said.client_id, said.state, said.run_id, said.round) == (1, "failed", task().run_id, task().round)
    assert said.time > 0
    found += answers
    assert [status.client_id for status in heard if status.state == "failed"] == [1]
    assert [type(answer).__name__ for answer in found] == ["ClientUpdate", "ClientFailure", "ClientUpdate"]
    assert found[1].reason.startswith(type(error).__name__)
    assert "\n" not in found[1].reason
