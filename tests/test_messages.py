import dataclasses

import pytest

from fccl.errors import UpdateRejected
from fccl.messages import FitTask
from fccl.specs import named_seed
from fccl.transports.in_process import InProcessTransport
from tests.toy import MODEL, TRAIN, ToyLearner, adapter, shard

TASK = FitTask("run", 2, "va", adapter(), adapter(), MODEL, TRAIN, 11)


def test_an_update_answers_its_own_task_and_no_other():
    update = next(InProcessTransport(ToyLearner(), shard).fit(TASK, [3]))
    update.require_answers(TASK)
    for changes in ({"run_id": "x"}, {"round": 3}, {"phase": "sft", "reference": None}, {"adapter": adapter(1.0), "reference": adapter(1.0)}):
        with pytest.raises(UpdateRejected):
            update.require_answers(dataclasses.replace(TASK, **changes))


def test_seeds_differ_by_phase_round_and_client():
    seeds = {named_seed(1, phase, round_number, client) for phase in ("sft", "va") for round_number in range(20) for client in range(20)}
    assert len(seeds) == 2 * 20 * 20
    assert TASK.client_seed(3) == named_seed(11, "va", 2, 3)


def test_named_seeds_are_what_they_were():
    """Recorded by calling it: a change of this number changes the bytes of every run."""
    assert named_seed(42, "sft", 0, 1) == 7_060_234_512_161_027_162
