"""Absurd updates: left out under every rule, whoever weighs and whatever carries them, and the run goes on."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.aggregation.rules import RULES, aggregation
from fccl.contribution.leave_one_out import LeaveOneOut
from fccl.contribution.reported import ContributionRule
from fccl.contribution.validation_loss import ValidationLoss
from fccl.contribution.verified import Verified
from fccl.errors import AdapterError, FederationError
from fccl.federation.run_folder import RunFolder
from fccl.paths import LogPaths
from fccl.records.journal import Journal
from fccl.records.run import MedianNorms, RunInfo, Validation
from fccl.testing.lora_toy import MODEL as LORA_MODEL
from fccl.testing.lora_toy import factors
from fccl.testing.quadratic import Quadratic, flat
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.transports.in_process import InProcessTransport

ABSURD = {"large": 3e38, "negative": -3e38, "just too large": 1.01e6, "far": 9e5, "farther than the others": 1e3}
SOURCES = {
    "fedavg": ContributionRule(mode="fedavg"),
    "uniform": ContributionRule(mode="uniform"),
    **{source: ContributionRule(source=source) for source in ("data_size", "loss_inverse", "data_loss_combined")},
    "verified": Verified(Quadratic()),
    "leave_one_out": LeaveOneOut(Quadratic()),
    "validation_loss": ValidationLoss(Quadratic()),
}


@dataclasses.dataclass
class Absurd(ToyLearner):
    """Client 1 answers with `number` in the place of its numbers, as update or as control variate, from round `since`
    on.
    """

    number: float = 3e38
    as_control: bool = False
    since: int = 0

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        if shard.client_id != 1 or task.round < self.since:
            return update
        absurd = Adapter({name: torch.full_like(tensor, self.number) for name, tensor in task.adapter.tensors.items()})
        return (
            dataclasses.replace(update, control=absurd)
            if self.as_control
            else dataclasses.replace(update, adapter=absurd)
        )


def rounds(fed, learner, state=START):
    return list(fed.run(state, InProcessTransport(learner, shard)))


def without_client_1(fed):
    return rounds(fed, ToyLearner(broken=frozenset({1})))


@pytest.mark.parametrize("number", ABSURD.values(), ids=ABSURD)
@pytest.mark.parametrize("name", RULES)
def test_under_every_rule_the_run_is_the_one_without_the_absurd_client(name, number):
    fed = federation(clients=6, aggregation=aggregation(name))
    found, expected = rounds(fed, Absurd(number=number)), without_client_1(fed)
    assert [each.record.adapter_sha256 for each in found] == [each.record.adapter_sha256 for each in expected]
    for each in found:
        assert [out.client_id for out in each.record.excluded] == [1]
        assert (
            "more than 1,000,000" in each.record.excluded[0].reason
            or "MAX_UPDATE_RATIO is 100" in each.record.excluded[0].reason
        )
        assert 1 not in each.record.clients


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("number", ABSURD.values(), ids=ABSURD)
def test_whoever_weighs_the_run_is_the_one_without_the_absurd_client(source, number):
    fed = federation(clients=6, rule=SOURCES[source])
    assert (
        rounds(fed, Absurd(number=number))[-1].record.adapter_sha256 == without_client_1(fed)[-1].record.adapter_sha256
    )


@pytest.mark.parametrize("name", ["svd", "exact"])
@pytest.mark.parametrize("number", ABSURD.values(), ids=ABSURD)
def test_products_of_absurd_factors_are_never_made(name, number):
    fed = dataclasses.replace(
        federation(clients=5, aggregation=aggregation("fedavg", name, lora_r=3)), model=LORA_MODEL
    )
    lora = dataclasses.replace(START, adapter=factors(0))
    found, expected = (
        fed.run_round(lora, InProcessTransport(Lora(number=number, broken=broken), shard)).record
        for broken in ((), {1})
    )
    assert found.adapter_sha256 == expected.adapter_sha256
    assert [out.client_id for out in found.excluded] == [1]


@dataclasses.dataclass
class Lora(Absurd):
    """Moves all factors a little; client 1 sends `number`s of the form that is expected of it."""

    def fit(self, task, shard, on_status):
        update = ToyLearner.fit(self, dataclasses.replace(task, adapter=adapter()), shard, on_status)
        start = task.trained.tensors
        tensors = {
            name: torch.full_like(tensor, self.number) if shard.client_id == 1 else tensor + 0.1
            for name, tensor in start.items()
        }
        return dataclasses.replace(update, adapter=Adapter(tensors))


@pytest.mark.parametrize("number", [3.4e38, -3.4e38, 1e7, 9e5, 1e4])
def test_an_absurd_control_variate_breaks_nobody_s_training(number):
    fed = federation(clients=5, aggregation=aggregation("scaffold"))
    found, expected = rounds(fed, Absurd(number=number, as_control=True)), without_client_1(fed)
    assert found[-1].record.adapter_sha256 == expected[-1].record.adapter_sha256
    assert all(each.record.excluded[0].reason.startswith("its control variate") for each in found)
    assert all(1 not in each.state.controls for each in found)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_few_clients_are_measured_by_the_last_accepted_round_after_a_kill_too(tmp_path, stop):
    fed = federation(clients=2)
    learner = Absurd(number=5e5, since=stop)
    whole = rounds(fed, learner)
    assert [[out.client_id for out in each.record.excluded] for each in whole] == [
        [1] if number >= stop else [] for number in range(4)
    ]
    folder = RunFolder(LogPaths(tmp_path), Journal(LogPaths(tmp_path)))
    folder.start(info(), fed.plan, START.adapter)
    for each in whole[:stop]:
        folder.commit(each, fed.plan)
    state = folder.resume()
    assert state.norms == whole[stop - 1].state.norms != MedianNorms()
    assert [each.record.adapter_sha256 for each in rounds(fed, learner, state)] == [
        each.record.adapter_sha256 for each in whole[stop:]
    ]


def info():
    return RunInfo(run_id="run", created=0.0, settings={}, data_sha256="", versions={})


def test_the_quorum_counts_after_the_exclusion_and_the_error_names_the_client():
    with pytest.raises(
        FederationError,
        match=r"round 1 has 3 good updates, MIN_CLIENTS is 4 \(client 1: its update has a number of size 3e\+38",
    ):
        rounds(federation(min_clients=4), Absurd())


def test_a_rule_with_too_few_updates_left_says_who_is_missing_and_why():
    with pytest.raises(
        FederationError, match=r"round 1: AGGREGATION=krum .* there are 4 \(client 1: its update has a number"
    ):
        rounds(federation(clients=5, aggregation=aggregation("krum")), Absurd())


def test_with_a_ratio_of_0_length_is_the_rules_affair_and_the_size_of_numbers_is_not():
    fed = federation(max_update_ratio=0)
    assert rounds(fed, Absurd(number=1e5))[0].record.clients == (0, 1, 2, 3)
    assert rounds(fed, Absurd(number=2e6))[0].record.clients == (0, 2, 3)


def limited(limit):
    """A server whose model computes nothing where a number is beyond `limit`."""

    def validate(phase, adapter, reference):
        if abs(flat(adapter)).max() > limit:
            raise AdapterError(
                "the model's log-probabilities are not finite under this adapter", hint="a lower learning rate"
            )
        return Validation(loss=1.0, examples=1)

    return validate


@settings(deadline=None)
@given(st.floats(60, 110))
def test_an_update_that_breaks_the_server_s_model_is_left_out_by_name(number):
    """The mean of the toy's clients stays below 5; with the absurd one it is beyond 10."""
    fed = dataclasses.replace(federation(clients=4, rule=ContributionRule(mode="uniform")), validate=limited(10.0))
    found, expected = rounds(fed, Absurd(number=number)), without_client_1(fed)
    assert found[-1].record.adapter_sha256 == expected[-1].record.adapter_sha256
    assert found[0].record.excluded[0].reason == "its loss on the server's examples is not finite"


def test_where_all_updates_break_the_server_s_model_the_error_says_so_of_each():
    fed = dataclasses.replace(federation(), validate=limited(-1.0))
    with pytest.raises(
        FederationError,
        match=r"0 good updates, .*client 0: its loss on the server's examples is not finite; client 1: ",
    ):
        rounds(fed, ToyLearner())


def test_a_result_that_is_too_large_names_who_moved_farthest():
    fed = federation(aggregation=aggregation("fedavgm", server_lr=1e9))
    with pytest.raises(
        FederationError,
        match=r"round 1: AGGREGATION=fedavgm: the aggregated adapter has a number of size .*client \d: norm",
    ):
        rounds(fed, ToyLearner())
