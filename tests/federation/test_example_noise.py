"""A federation whose clients train by DP-SGD: ε by client, who is asked, when it ends, and how it goes on."""

import dataclasses
from itertools import islice

import pytest
import torch

from fccl.errors import FederationError
from fccl.federation.example_noise import ExampleNoise
from fccl.privacy.accountant import Steps, epsilon_of_steps
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import Spent
from fccl.records.run import DeclaredSamples, RoundRecord
from fccl.storage.reading import read_records
from fccl.testing.secure import Folders, masking_learner, masking_transport, secured
from fccl.testing.toy import START, TRAIN, ToyLearner, adapter, federation, shard
from fccl.training.private import PrivateLearner
from fccl.transports.in_process import InProcessTransport
from tests.federation.test_privacy import UNIFORM, a_run, is_round, results
from tests.federation.test_secure_aggregation import Spy

BY_EXAMPLE = PrivacySpec(where="client", unit="example", clip=0.5, noise=2.0, epsilon=50.0, delta=1e-5)
COUNTS = {"sft": {client: client + 1 for client in range(4)}, "va": dict.fromkeys(range(4), 1)}


class Stepping(ToyLearner):
    """Trains by example: its update is a draw."""

    def fit_by_example(self, task, shard, on_status, draws):
        update = self.fit(task, shard, on_status)
        return dataclasses.replace(update, adapter=adapter(*draws("noise").normals(3).tolist()))


def example_noise(spec=BY_EXAMPLE, told=None, **changes):
    fed = federation(rule=UNIFORM, **changes)
    privacy = ExampleNoise(spec, fed.plan, {"sft": TRAIN, "va": TRAIN}, COUNTS)
    heard = (lambda line: None) if told is None else told.append
    return dataclasses.replace(fed, privacy=privacy, tell=heard)


@pytest.fixture
def stepping(tmp_path):
    learner = PrivateLearner(Stepping(), lambda client: tmp_path / "state" / f"client_{client}")
    return InProcessTransport(learner, shard)


def by_hand(client, sft, va):
    """ε of a client of client + 1 instructions, one in a step, and one pair."""
    n = client + 1
    steps = [Steps(noise=2.0, rate=1 / n, count=n * sft), Steps(noise=2.0, rate=1.0, count=va)]
    return epsilon_of_steps(steps, 1e-5)


def test_each_client_has_its_own_epsilon_by_its_own_numbers_of_both_kinds(stepping):
    found = results(example_noise(), stepping)
    for number, result in enumerate(found):
        said, sft = result.record.privacy, min(2, number + 1)
        assert (said.unit, said.relation, said.accountant) == ("example", "add or remove one", "PLD")
        assert (said.sampling, said.amplified) == ("poisson", True)
        expected = {client: by_hand(client, sft, number + 1 - sft) for client in range(4)}
        assert {each.client_id: each.epsilon for each in said.clients} == pytest.approx(expected)
        assert said.epsilon == max(each.epsilon for each in said.clients)
        assert result.record.contributions == ()
    assert found[-1].state.va_releases == dict.fromkeys(range(4), 2)
    assert RoundRecord.model_validate_json(found[-1].record.model_dump_json()) == found[-1].record


def test_a_client_is_asked_until_its_own_budget_and_the_run_goes_on_with_the_others(stepping):
    """The fewer examples a client has, the likelier a step takes one of them."""
    spec = BY_EXAMPLE.model_copy(update={"epsilon": by_hand(3, 2, 0)})
    found = results(example_noise(spec, rounds=4, va_rounds=0), stepping)
    asked = [client for result in found for client in result.record.selected]
    assert asked.count(3) == 2
    assert asked.count(0) < 2
    assert all(each.epsilon <= spec.epsilon for each in found[-1].record.privacy.clients)


def test_the_run_ends_where_no_client_has_room(stepping):
    told, spec = [], BY_EXAMPLE.model_copy(update={"epsilon": by_hand(3, 1, 0)})
    (only,) = results(example_noise(spec, told, rounds=2), stepping)
    assert only.state.early == {"sft": 1, "va": 0}
    assert "allows no further round" in told[0]
    with pytest.raises(FederationError, match="round 1 would pass the privacy budget"):
        results(example_noise(spec.model_copy(update={"epsilon": 0.01}), rounds=2), stepping)


def test_a_declared_number_counts_where_the_server_knows_no_shard():
    noise = example_noise().privacy
    unknown = dataclasses.replace(noise, known={})
    declared = {2: DeclaredSamples(client_id=2, sft=3, va=1)}
    state = dataclasses.replace(START, declared=declared, releases={2: 1})
    assert (
        unknown.epsilon(state, 2) == noise.epsilon(dataclasses.replace(START, releases={2: 1}), 2) == by_hand(2, 1, 0)
    )
    assert unknown.epsilon(state, 1, 1) == 0.0, "it holds to its own budget"


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_that_was_left_goes_on_to_the_same_bytes_and_is_spent_once(tmp_path, stepping, stop):
    run = a_run(tmp_path / "left", example_noise())
    list(islice(run.rounds(stepping), stop))
    rest = a_run(tmp_path / "left", example_noise())
    list(rest.rounds(stepping, resume=True))
    whole = dataclasses.replace(a_run(tmp_path / "whole", example_noise()), identity=run.identity)
    list(whole.rounds(stepping))
    assert rest.state.adapter.to_bytes() == whole.state.adapter.to_bytes()
    records = [read_records(tmp_path / name / "progress.jsonl", RoundRecord, is_round) for name in ("left", "whole")]
    assert [record.privacy for record in records[0]] == [record.privacy for record in records[1]]
    assert len(Spent(tmp_path / "state" / "client_0").releases) == 4


def test_under_masks_the_sum_is_of_the_updates_that_dp_sgd_gives_and_each_is_spent_once(tmp_path):
    """The same clients, with the same secrets, send the same release without masks and then under them."""
    folders, seen = Folders(tmp_path / "clients"), []
    plain = example_noise(rounds=1)
    next(iter(plain.run(START, Spy(InProcessTransport(masking_learner(Stepping(), folders), shard), seen))))
    assert len(seen) == 4
    changes = torch.stack([each.adapter.load().vector.double() - START.adapter.vector.double() for each in seen])
    masked = secured(plain, tmp_path / "server", clip=100.0, most=1)
    result = next(iter(masked.run(START, masking_transport(Stepping(), folders))))
    moved = result.state.adapter.vector.double() - START.adapter.vector.double()
    assert torch.allclose(moved, changes.mean(0), atol=1e-5)
    assert float(changes.norm(dim=1).min()) > 0.1  # the draws are there
    assert [len(Spent(folders(client)).releases) for client in range(4)] == [1] * 4
    said = result.record
    assert said.secure.clients == tuple(range(4))
    assert (said.weights, said.contributions) == ((), ())
    assert {each.client_id: each.epsilon for each in said.privacy.clients} == pytest.approx(
        {client: by_hand(client, 1, 0) for client in range(4)}
    )
