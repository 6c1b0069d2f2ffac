import pytest

from fccl.data.shards import ClientShard
from fccl.errors import DataError
from fccl.evaluation.on_clients import ClientEvaluator
from fccl.evaluation.validation import Validator
from fccl.messages import ClientFailure, EvaluateTask
from fccl.model.encoding import encode_sft
from fccl.model.loading import Models
from fccl.specs import PreferenceSpec
from fccl.testing.toy import ToyLearner
from fccl.transports.in_process import InProcessTransport

BETA = 0.3
PREFERENCE = PreferenceSpec(beta=BETA)


@pytest.fixture
def evaluator(tiny_model):
    return ClientEvaluator(Models.holding(tiny_model))


def task(model, adapter, phase="sft", reference=None, **changes):
    return EvaluateTask("run", 0, phase, adapter, reference, model.spec, 4, PREFERENCE, **changes)


def heard(status):
    assert (status.state, status.client_id) == ("evaluating", 3)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_is_the_validator_s_loss_on_the_client_s_own_shard(tiny_model, an_adapter, split, evaluator, phase):
    reference = an_adapter(9) if phase == "va" else None
    shard = ClientShard(3, tuple(split.sft), tuple(split.va))
    found = evaluator.answer(task(tiny_model, an_adapter(1), phase, reference), shard, heard)
    validator = Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4)
    expected = validator(phase, an_adapter(1), reference)
    assert (found.client_id, found.loss, found.examples) == (3, expected.loss, expected.examples)


def test_the_mean_is_over_response_tokens_or_pairs(tiny_model, an_adapter, split, evaluator):
    shard = ClientShard(3, tuple(split.sft), tuple(split.va))
    rows = encode_sft(tiny_model.tokenizer, split.sft, 128)
    sft = evaluator.answer(task(tiny_model, an_adapter(1)), shard, heard)
    va = evaluator.answer(task(tiny_model, an_adapter(1), "va", an_adapter(2)), shard, heard)
    assert sft.units == sum(len(row.ids) - row.prompt_length for row in rows) > sft.examples
    assert va.units == va.examples == len(split.va)


def test_a_shard_without_examples_of_the_phase_is_one_line(tiny_model, an_adapter, split, evaluator):
    shard = ClientShard(3, tuple(split.sft), ())
    with pytest.raises(DataError, match="client 3 has no preference pair"):
        evaluator.answer(task(tiny_model, an_adapter(1), "va", an_adapter(2)), shard, heard)


def test_over_a_transport_each_client_answers_for_itself(tiny_model, an_adapter, split, evaluator):
    shards = {number: ClientShard(number, tuple(split.sft[: number + 2]), ()) for number in range(2)}
    transport = InProcessTransport(ToyLearner(), shards.__getitem__, services=[evaluator])
    found = {answer.client_id: answer for answer in transport.ask(task(tiny_model, an_adapter(1)), [0, 1, 2])}
    assert [found[number].examples for number in range(2)] == [2, 3]
    assert found[0].loss != found[1].loss
    assert isinstance(found[2], ClientFailure)
