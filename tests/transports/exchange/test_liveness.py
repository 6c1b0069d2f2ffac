import json

import pytest

from fccl.paths import ExchangePaths
from fccl.storage.files import write_text
from fccl.transports.exchange.liveness import Liveness


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path)


def test_pulses_know_who_lives(paths, clock):
    heard = []
    liveness = Liveness(paths, 90.0, heard.append)
    status = {"client_id": 1, "state": "training", "run_id": "run", "round": 2, "phase": "sft", "step": 3, "steps": 5}
    liveness.look(1)
    clock.ahead += 91.0
    assert not liveness.is_dead(1), "who was never heard cannot be judged"
    assert liveness.last_word(1) == "it was never seen"
    write_text(paths.status(1), json.dumps(status))
    liveness.look(1)
    liveness.look(1)
    assert [one.step for one in heard] == [3]
    assert not liveness.is_dead(1)
    clock.ahead += 91.0
    liveness.look(1)
    assert liveness.is_dead(1)
    assert liveness.last_word(1) == "it was last seen training round 2 step 3 of 5"
    liveness.forgive()
    assert not liveness.is_dead(1)
    clock.ahead += 91.0
    write_text(paths.status(1), json.dumps(status | {"state": "idle"}))
    liveness.look(1)
    assert not liveness.is_dead(1)


@pytest.mark.parametrize(
    "text", ["", "{", '{"client": 1, "state": "training", "ts": 1}', '{"client_id": 2}', "[" * 10_000]
)
def test_a_status_of_another_kind_judges_nobody(paths, clock, text):
    liveness = Liveness(paths, 90.0, lambda status: None)
    paths.status(1).write_text(text)
    liveness.look(1)
    clock.ahead += 91.0
    assert not liveness.is_dead(1)
