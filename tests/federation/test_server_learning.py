"""Server learning: after the aggregation the server trains the aggregate; nothing else of the round knows of it."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.ranks import leading
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.aggregation.vectors import flat
from fccl.errors import AdapterError, FederationError, TrainingError
from fccl.federation.kept_rounds import kept_round
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.server_learning import ServerLearner
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.run import Validation
from fccl.specs import named_seed
from fccl.testing import lora_toy
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import START, TRAIN, ToyLearner, federation, shard
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport
from tests.examples import few

EXAMPLES = replace(shard(4), client_id=0)  # five instructions, and a pair
SPECS = {phase: TRAIN.model_copy(update={"epochs": 3}) for phase in ("sft", "va")}


class Watched(ToyLearner):
    """Remembers its tasks; raises in the place of its training where that is asked for."""

    def __init__(self, fails_at=-1, error=None):
        super().__init__()
        self.tasks, self.fails_at, self.error = [], fails_at, error

    def fit(self, task, shard, on_status):
        self.tasks.append(task)
        if len(self.tasks) - 1 == self.fails_at:
            raise self.error
        return super().fit(task, shard, on_status)


def learning(fed, learner=None, **changes):
    """The federation with a server that learns."""
    return replace(fed, learn=ServerLearner(learner or ToyLearner(), EXAMPLES, SPECS), **changes)


def rounds(fed, learner=None, state=START):
    return list(fed.run(state, InProcessTransport(learner or ToyLearner(), shard)))


def changes(result, before):
    """Each client's change of the round's adapter, float64."""
    return [flat(update.adapter.load()).double() - flat(before).double() for update in result.updates]


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**32))
@settings(deadline=None, max_examples=few(20))
def test_a_round_ends_with_what_the_learner_makes_of_the_aggregate_under_a_seed_of_its_own(clients, number, seed):
    fed = learning(federation(clients, number))
    fed = replace(fed, plan=fed.plan.model_copy(update={"seed": seed}))
    for result in rounds(fed):
        task, said = result.inputs.task, result.record.learning
        parts = Parts(result.record.weights, [update.adapter for update in result.updates])
        aggregate = fed.aggregation.aggregate(task.adapter, parts, result.inputs.server).adapter
        own = replace(task, adapter=aggregate, seed=named_seed(seed, "server learning"), train=SPECS["sft"])
        expected = ToyLearner().fit(own, EXAMPLES, lambda status: None).adapter
        assert result.state.adapter.to_bytes() == expected.to_bytes()
        assert result.record.adapter_sha256 == expected.sha256
        assert said.aggregate_sha256 == aggregate.sha256
        assert (said.examples, said.epochs) == (5 if task.phase == "sft" else 1, 3)


def test_without_it_nothing_is_recorded_and_the_aggregate_is_the_next_adapter():
    plain, learned = rounds(federation()), rounds(learning(federation()))
    assert all(result.record.learning is None for result in plain)
    assert plain[0].record.adapter_sha256 == learned[0].record.learning.aggregate_sha256
    assert plain[0].record.adapter_sha256 != learned[0].record.adapter_sha256
    assert plain[0].record.weights == learned[0].record.weights


def test_the_servers_task_is_as_a_clients_from_the_aggregate_and_in_va_rounds_against_the_last_sft_adapter():
    server, clients = Watched(), Watched()
    results = rounds(learning(federation(3, 2, aggregation=aggregation("scaffold")), server), clients)
    for number, (task, result) in enumerate(zip(server.tasks, results, strict=True)):
        of_client = clients.tasks[3 * number]
        assert (task.round, task.phase, task.model) == (number, of_client.phase, of_client.model)
        assert task.adapter.sha256 == result.record.learning.aggregate_sha256
        assert task.corrections is None
        assert of_client.corrections is not None
        seeds = {other.client_seed(client) for other in clients.tasks for client in range(3)}
        assert task.client_seed(0) not in seeds
        assert (task.reference is None) == (number < 2)
        assert task.reference is of_client.reference
    assert results[1].state.reference.sha256 == results[1].record.adapter_sha256  # what the server had learned too


def test_momentum_takes_the_clients_changes_alone_and_the_next_change_is_from_what_the_server_learned():
    """m <- 0.9 m + sum_i w_i (u_i - x), from the records and the updates: no term of the server's own training."""
    momentum = torch.zeros(3, dtype=torch.float64)
    before, results = START.adapter, rounds(learning(federation(3, 3, aggregation=aggregation("fedavgm"))))
    for result in results[:3]:
        delta = sum(w * change for w, change in zip(result.record.weights, changes(result, before), strict=True))
        momentum = 0.9 * momentum + delta
        torch.testing.assert_close(result.state.server.tensors["momentum"], momentum)
        assert result.inputs.task.adapter.sha256 == before.sha256
        before = result.state.adapter


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "scaffold"])
def test_what_a_rule_carries_out_of_a_round_is_what_it_carries_without(name):
    plain, learned = (f(federation(3, 2, aggregation=aggregation(name))) for f in (lambda fed: fed, learning))
    one, other = rounds(plain)[0].state, rounds(learned)[0].state
    assert one.server.sha256 == other.server.sha256
    assert [(c.share, c.adapter.sha256) for c in one.controls.values()] == [
        (c.share, c.adapter.sha256) for c in other.controls.values()
    ]
    assert bool(one.controls) == (name == "scaffold")
    assert one.norms == other.norms


@pytest.mark.parametrize("form", ["svd", "exact"])
def test_it_trains_the_directions_that_clients_train_and_leaves_the_others_frozen(form):
    fed, learner = lora_toy.lora_federation(form), lora_toy.LoraLearner()
    results = rounds(learning(fed, learner), learner, lora_toy.START)
    rank = lora_toy.MODEL.lora_r
    for result in results:
        parts = Parts(result.record.weights, [update.adapter for update in result.updates])
        aggregate = fed.aggregation.aggregate(result.inputs.task.adapter, parts, result.inputs.server).adapter
        after = result.state.adapter
        assert after.form == aggregate.form
        assert leading(after, rank).sha256 != leading(aggregate, rank).sha256
        for tensor_name, tensor in after.tensors.items():
            rest = (slice(rank, None),) if ".lora_A." in tensor_name else (slice(None), slice(rank, None))
            assert torch.equal(tensor[rest], aggregate.tensors[tensor_name][rest])


def test_a_round_with_too_few_updates_fails_and_the_server_does_not_learn_alone():
    server = Watched()
    with pytest.raises(FederationError, match="round 1 has 0 good updates"):
        rounds(learning(federation(2, 1), server), ToyLearner(broken=frozenset({0, 1})))
    assert server.tasks == []


def test_training_that_diverges_at_the_server_is_one_line_and_no_clients_fault():
    server = Watched(0, TrainingError("training diverged: the gradient is not finite at step 3"))
    with pytest.raises(FederationError, match=r"^round 1: the server's own training: training diverged") as caught:
        rounds(learning(federation(), server))
    assert "lower LEARN_LR" in caught.value.hint
    assert not caught.value.resumable


def test_a_loss_that_is_not_finite_after_it_is_the_servers_doing():
    aggregates, answers = set(), []

    def validate(phase, adapter, reference):
        if aggregates:
            raise AdapterError("the loss is not finite")
        aggregates.add(adapter.sha256)
        return Validation(loss=1.0, examples=1)

    fed = learning(federation(), validate=validate, on_answer=answers.append)
    with pytest.raises(FederationError, match=r"^round 1: the server's own training: the loss is not finite"):
        rounds(fed)
    assert len(answers) == 4  # nobody was excluded for it


def test_the_record_has_the_validation_before_and_after():
    def validate(phase, adapter, reference):
        return Validation(loss=float(flat(adapter).double().square().sum()), examples=7)

    for result in rounds(learning(federation(), validate=validate)):
        record = result.record
        assert record.validation == validate(record.phase, result.state.adapter, None)
        assert record.learning.before != record.validation
        assert record.learning.before.examples == 7
        assert record.update_norm == pytest.approx(result.state.adapter.distance(result.inputs.task.adapter))


def test_the_exchange_directory_gives_the_bytes_of_one_process(tmp_path):
    fed = learning(federation(3, 2, aggregation=aggregation("fedavgm")))
    expected = rounds(fed)
    transport = ExchangeTransport(ExchangePaths(tmp_path / "exchange"), exchange_spec(3), tmp_path / "received")
    with client_processes(tmp_path / "exchange", {number: ToyLearner() for number in range(3)}), transport:
        found = list(fed.run(START, transport))
        transport.finish("run", 4, found[-1].state.adapter)
    assert [result.record.adapter_sha256 for result in found] == [one.record.adapter_sha256 for one in expected]
    assert found[-1].state.server.sha256 == expected[-1].state.server.sha256


class Killed(BaseException):
    """The process ends in the middle of the server's training."""


@pytest.mark.parametrize("number", range(4))
def test_a_run_that_is_killed_while_the_server_learns_ends_in_the_same_bytes(tmp_path, number):
    fed = federation(3, 2, aggregation=aggregation("fedavgm"))

    def conduct(logs, learner, resume=False):
        run = Run(learning(fed, learner), RunFolder.at(logs), lambda: START.adapter)
        found = list(run.rounds(InProcessTransport(ToyLearner(), shard), resume))
        return found, run.finish(InProcessTransport(ToyLearner(), shard)).to_bytes()

    whole, expected = conduct(tmp_path / "whole", ToyLearner())
    with suppress(Killed):
        conduct(tmp_path / "killed", Watched(number, Killed()))
    after, found = conduct(tmp_path / "killed", ToyLearner(), resume=True)
    assert [result.record.round for result in after] == list(range(number, 4))
    assert found == expected
    kept = kept_round(LogPaths(tmp_path / "killed"), number)
    parts = Parts(kept.record.weights, [update.adapter for update in kept.updates()])
    again = fed.aggregation.aggregate(kept.adapter, parts, kept.server).adapter
    assert again.sha256 == kept.aggregate_sha256 == whole[number].record.learning.aggregate_sha256
    assert kept.inputs.learn == SPECS[kept.record.phase]
