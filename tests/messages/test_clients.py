import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.errors import BadRow, DataError, OutputError, StorageError, UpdateRejected
from fccl.messages import ClientFailure, FitTask, attempt, declined
from fccl.specs import named_seed
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
from fccl.transports.in_process import InProcessTransport

TASK = FitTask("run", 2, "va", adapter(), adapter(), MODEL, TRAIN, 11)


def test_an_update_answers_its_own_task_and_no_other():
    update = next(InProcessTransport(ToyLearner(), shard).ask(TASK, [3]))
    update.require_answers(TASK)
    for changes in (
        {"run_id": "x"},
        {"round": 3},
        {"phase": "sft", "reference": None},
        {"adapter": adapter(1.0), "reference": adapter(1.0)},
    ):
        with pytest.raises(UpdateRejected):
            update.require_answers(dataclasses.replace(TASK, **changes))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), StorageError("the disk is full"), OutputError("its reader is gone")]
)
def test_what_is_to_end_the_process_and_what_is_no_client_s_fault_is_no_answer(error):
    with pytest.raises(type(error)):
        attempt(ToyLearner(errors={1: error}).fit, TASK, 1, shard, lambda status: None)


@pytest.mark.parametrize(
    "error",
    [IndexError("list index out of range"), DataError("shard 1 is not there"), OSError("gone"), UnicodeError("x")],
)
def test_a_shard_that_cannot_be_loaded_is_the_client_s_answer_too(error):
    def load(client_id):
        raise error

    answer = attempt(ToyLearner().fit, TASK, 1, load, lambda status: None)
    assert isinstance(answer, ClientFailure)
    assert str(error) in answer.reason


@given(st.text())
def test_a_reason_is_one_line_that_can_be_shown(text):
    answer = attempt(ToyLearner(errors={1: LookupError(text)}).fit, TASK, 1, shard, lambda status: None)
    assert answer.reason.startswith("LookupError")
    assert answer.reason.isprintable()
    assert len(answer.reason) <= 500


def test_seeds_differ_by_phase_round_and_client():
    seeds = {
        named_seed(1, phase, round_number, client)
        for phase in ("sft", "va")
        for round_number in range(20)
        for client in range(20)
    }
    assert len(seeds) == 2 * 20 * 20
    assert TASK.client_seed(3) == named_seed(11, "va", 2, 3)


def test_named_seeds_are_what_they_were():
    """Recorded by calling it: a change of this number changes the bytes of every run."""
    assert named_seed(42, "sft", 0, 1) == 7_060_234_512_161_027_162


def test_a_failure_has_its_exception_in_this_process_and_travels_without_it():
    """`BadRow` is one that a pickle does not bring back."""
    error = BadRow("shard.jsonl", 3, "is not JSON")
    failure = attempt(ToyLearner(errors={1: error}).fit, TASK, 1, shard, lambda status: None)
    assert failure.error is error
    travelled = pickle.loads(pickle.dumps(failure))
    assert travelled == failure
    assert travelled.error is None


def test_a_learner_that_declines_has_an_answer_that_is_no_failure():
    learner = ToyLearner(errors={1: declined("va")})
    answer = attempt(learner.fit, TASK, 1, shard, lambda status: None)
    assert answer == ClientFailure(1, "declines FedVA", declines=True)
    assert answer != ClientFailure(1, "declines FedVA")
    assert pickle.loads(pickle.dumps(answer)).declines
