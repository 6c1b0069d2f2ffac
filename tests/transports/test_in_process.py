import pytest

from fccl.errors import StorageError
from fccl.messages import attempt, declined
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


class Together:
    """A learner that is asked for several clients at once. `batches` are those that it was asked for together."""

    def __init__(self, learner=None):
        self.fit, self.batches = (learner or ToyLearner()).fit, []

    def fit_together(self, task, client_ids, load_shard, on_status):
        self.batches.append(tuple(client_ids))
        return [attempt(self.fit, task, client_id, load_shard, on_status) for client_id in client_ids]


class TestSeveralAtOnce(TransportContract):
    @pytest.fixture
    def make(self):
        return lambda broken=(), errors=None: InProcessTransport(
            Together(toy_learner(broken, errors)), shard, toy_services(broken), at_once=2
        )


def test_consecutive_clients_train_together_and_answer_in_their_order():
    learner = Together()
    answers = InProcessTransport(learner, shard, at_once=2).ask(task(), (0, 2, 3, 5, 7))
    assert [answer.client_id for answer in answers] == [0, 2, 3, 5, 7]
    assert learner.batches == [(0, 2), (3, 5), (7,)]


@pytest.mark.parametrize(("learner", "at_once"), [(Together(), 1), (ToyLearner(), 3)])
def test_one_at_a_time_where_nobody_asks_for_more_or_the_learner_takes_no_more(learner, at_once):
    found = list(InProcessTransport(learner, shard, at_once=at_once).ask(task(), (0, 1, 2)))
    alone = list(InProcessTransport(ToyLearner(), shard).ask(task(), (0, 1, 2)))
    assert [answer.adapter.sha256 for answer in found] == [answer.adapter.sha256 for answer in alone]
    assert getattr(learner, "batches", []) == []


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


def test_the_heartbeat_of_a_client_that_declines_says_so():
    heard = []
    learner = ToyLearner(broken=frozenset({0}), errors={1: declined("sft")})
    list(listened_to(InProcessTransport(learner, shard), heard.append).ask(task(), (0, 1)))
    assert [(status.client_id, status.state) for status in heard] == [(0, "failed"), (1, "declined")]
