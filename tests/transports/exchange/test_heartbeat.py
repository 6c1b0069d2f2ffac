import time

import pytest

from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.transports.exchange.heartbeat import Heartbeat
from tests.transports.exchange_tools import until


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path)


def beat(paths, client_id=0):
    return ClientStatus.model_validate_json(paths.status(client_id).read_text())


def test_the_heart_beats_by_itself_and_tells_a_change_at_once(paths):
    with Heartbeat(paths, 0, 0.1) as heartbeat:
        first = beat(paths)
        assert (first.state, first.client_id) == ("idle", 0)
        until(lambda: beat(paths).time > first.time)
        training = ClientStatus(client_id=0, state="training", run_id="run", round=1, phase="sft", step=1, steps=5)
        heartbeat.tell(training)
        assert beat(paths).state == "training"
        heartbeat.tell(training.model_copy(update={"step": 2}))
        until(lambda: beat(paths).step == 2)
        heartbeat.turn("done")
        assert (beat(paths).state, beat(paths).round) == ("done", 1)
    last = beat(paths)
    time.sleep(0.3)
    assert beat(paths) == last
