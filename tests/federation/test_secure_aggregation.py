"""Secure aggregation in process: the sum is exact, dropouts are made up for, and a kill changes no byte."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.contribution.reported import ContributionRule
from fccl.errors import FederationError
from fccl.federation.privacy import ClientNoise
from fccl.messages import ClientUpdate, FitTask
from fccl.privacy.secrets import secret_of
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import Spent
from fccl.testing.lora_toy import START as LORA_START
from fccl.testing.lora_toy import LoraLearner, lora_federation
from fccl.testing.secure import (
    CLIP,
    FIT,
    KEYS,
    MOST,
    SHARES,
    UNMASK,
    Folders,
    Losing,
    masking_learner,
    masking_transport,
    secured,
)
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.training.masking import Masking
from fccl.transports.in_process import InProcessTransport
from fccl.transports.wrapped import WrappedTransport
from tests.examples import few

CLIENTS = 5


def fed_of(folder, clients=CLIENTS, rounds=1, **changes):
    plain = federation(clients=clients, rounds=rounds, rule=ContributionRule(mode="fedavg"), **changes)
    return secured(plain, folder / "server")


def run(folder, lost=None, fed=None, learner=None):
    transport = masking_transport(learner or ToyLearner(), Folders(folder / "clients"))
    return list((fed or fed_of(folder)).run(START, Losing(transport, lost or {})))


def by_hand(fed, before, number, phase, clients):
    """The round without masks, in whole numbers: Σ round(n Δ 2^bits) / Σ n, added to the adapter and rounded once."""
    state = dataclasses.replace(START, next_round=number, adapter=before)
    told = []
    spy = Spy(InProcessTransport(ToyLearner(), shard), told)
    list(dataclasses.replace(fed, secure=None).run_round(state, spy).updates)
    bits, start = fed.secure.fixed.bits, before.vector.double().numpy()
    total, counted = [0] * len(start), 0
    for update in sorted(told, key=lambda update: update.client_id):
        if update.client_id in clients:
            samples = min(update.contribution.num_samples, fed.secure.fixed.most)
            change = update.adapter.load().vector.double().numpy() - start
            total = [
                have + round(Fraction(float(each * samples)) * 2**bits)
                for have, each in zip(total, change, strict=True)
            ]
            counted += samples
    mean = np.array([float(whole) * 2.0**-bits for whole in total]) / counted
    return Adapter.of_vector(torch.from_numpy(start + mean).float(), before.form)


@dataclasses.dataclass(frozen=True, eq=False)
class Spy(WrappedTransport):
    """Remembers all updates that pass."""

    seen: list

    def ask(self, request, client_ids):
        for answer in super().ask(request, client_ids):
            if isinstance(answer, ClientUpdate):
                self.seen.append(answer)
            yield answer


@dataclasses.dataclass(frozen=True, eq=False)
class Unequal(WrappedTransport):
    """A server that has all clients but one send zeros: it tells them that no number is larger than 1e-30."""

    alone: int

    def ask(self, request, client_ids):
        if not isinstance(request, FitTask):
            yield from super().ask(request, client_ids)
            return
        small = request.secure.model_copy(update={"fixed": request.secure.fixed.model_copy(update={"bound": 1e-30})})
        others = [client for client in client_ids if client != self.alone]
        yield from super().ask(request, [self.alone])
        yield from super().ask(dataclasses.replace(request, secure=small), others)


def test_a_server_that_has_all_others_send_zeros_learns_no_update(tmp_path):
    fed, seen = fed_of(tmp_path, sft_rounds=1, va_rounds=0), []
    spy = Spy(InProcessTransport(ToyLearner(), shard), seen)
    list(dataclasses.replace(fed, secure=None).run_round(START, spy).updates)
    alone = next(update for update in seen if update.client_id == 1)
    change = alone.adapter.load().vector.double() - START.adapter.vector.double()
    transport = Unequal(masking_transport(ToyLearner(), Folders(tmp_path / "clients")), 1)
    try:
        [result] = list(fed.run(START, transport))
    except FederationError as error:
        assert "add up to nothing" in str(error)  # noqa: PT017 - the count is noise too
    else:
        found = result.state.adapter.vector.double() - START.adapter.vector.double()
        scale = torch.dot(found, change) / torch.dot(change, change)
        assert not torch.allclose(found, scale * change, rtol=1e-2, atol=1e-6 * float(found.abs().max()))


def test_the_adapter_is_the_mean_of_the_changes_by_samples_to_the_bit(tmp_path):
    fed = fed_of(tmp_path)
    results = run(tmp_path, fed=fed)
    first = by_hand(fed, START.adapter, 0, "sft", range(CLIENTS))
    assert results[0].state.adapter.sha256 == first.sha256
    plain = list(dataclasses.replace(fed, secure=None).run(START, InProcessTransport(ToyLearner(), shard)))
    assert torch.allclose(results[-1].state.adapter.vector, plain[-1].state.adapter.vector, atol=1e-5)


def test_a_client_counts_for_no_more_examples_than_the_bound(tmp_path):
    """Client 4 of five has 5 examples; at most 2 count."""
    fed = secured(federation(CLIENTS, 1, ContributionRule(mode="fedavg")), tmp_path / "server", most=2)
    found = run(tmp_path, fed=fed)[0].state.adapter
    assert found.sha256 == by_hand(fed, START.adapter, 0, "sft", range(CLIENTS)).sha256


def test_a_change_is_clipped_to_the_bound_before_it_is_masked(tmp_path):
    """Every client's change has the length of the clip, in its own direction."""
    fed = secured(federation(2, 1, ContributionRule(mode="uniform")), tmp_path / "server", clip=1e-3, most=1)
    found = run(tmp_path, fed=fed)[0].state.adapter.vector.double()
    seen = []
    list(dataclasses.replace(fed, secure=None).run(START, Spy(InProcessTransport(ToyLearner(), shard), seen)))
    changes = [update.adapter.load().vector.double() for update in seen if update.phase == "sft"]
    expected = sum(change * (1e-3 / float(change.norm())) for change in changes) / 2
    assert torch.allclose(found, expected, atol=1e-8)


@given(
    st.lists(st.sampled_from([KEYS, SHARES, FIT]), min_size=CLIENTS, max_size=CLIENTS),
    st.lists(st.integers(0, CLIENTS - 1), max_size=2, unique=True),
    st.lists(st.integers(0, CLIENTS - 1), max_size=2, unique=True),
)
@settings(max_examples=few(25))
def test_clients_that_drop_out_at_any_step_are_made_up_for(tmp_path_factory, when, gone, silent):
    folder = tmp_path_factory.mktemp("dropouts")
    lost = {step: {client for client in gone if when[client] == step} for step in (KEYS, SHARES, FIT)}
    survivors = [client for client in range(CLIENTS) if client not in gone]
    cohort = CLIENTS - len(lost[KEYS])
    answering = [client for client in survivors if client not in silent]
    fed = fed_of(folder, sft_rounds=1, va_rounds=0)
    if len(survivors) < cohort // 2 + 1 or len(answering) < cohort // 2 + 1:
        with pytest.raises(FederationError, match="clients are left, and their masked sum needs"):
            run(folder, {**lost, UNMASK: set(silent)}, fed)
        return
    [result] = run(folder, {**lost, UNMASK: set(silent)}, fed)
    assert result.state.adapter.sha256 == by_hand(fed, START.adapter, 0, "sft", survivors).sha256
    said = result.record.secure
    assert said.clients == tuple(survivors)
    assert said.dropped == tuple(sorted(lost[FIT]))
    assert (said.cohort, said.threshold) == (cohort, cohort // 2 + 1)
    assert [each.client_id for each in result.record.excluded] == sorted(gone)


def test_a_client_that_fails_to_train_drops_out_with_its_reason(tmp_path):
    [result] = run(tmp_path, fed=fed_of(tmp_path, sft_rounds=1, va_rounds=0), learner=ToyLearner(broken=frozenset({2})))
    assert result.record.secure.dropped == (2,)
    assert [(each.client_id, each.reason) for each in result.record.excluded] == [(2, "the loss is not finite")]


def test_the_record_says_that_it_was_secure_and_nothing_of_a_single_client(tmp_path):
    record = run(tmp_path)[0].record
    said = record.secure
    assert (said.cohort, said.threshold, said.dropped, said.most, said.bound) == (CLIENTS, 3, (), MOST, CLIP)
    assert record.selected == tuple(range(CLIENTS))
    bare = (record.clients, record.weights, record.scores, record.contributions, record.arrived, record.counted)
    assert bare == ((), (), (), (), (), None)
    assert record.sent.up == CLIENTS * record.sent.whole


def test_no_update_that_passes_says_anything_but_its_masked_numbers(tmp_path):
    seen = []
    transport = Spy(masking_transport(ToyLearner(), Folders(tmp_path / "clients")), seen)
    list(fed_of(tmp_path).run(START, transport))
    assert {(update.contribution.avg_loss, update.contribution.num_samples) for update in seen} == {(0.0, 1)}
    assert {update.report.tokens for update in seen} == {0}
    assert all(update.adapter.load().largest < 2 for update in seen)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ({KEYS: {1, 2, 3, 4}}, "round 1 has 1 good update, MIN_CLIENTS is 2"),
        ({SHARES: {1, 2, 3}}, "2 of 5 clients are left, and their masked sum needs 3"),
        ({FIT: {1, 2, 3}}, "2 of 5 clients are left, and their masked sum needs 3"),
        ({UNMASK: {1, 2, 3}}, "2 of 5 clients are left, and their masked sum needs 3"),
    ],
)
def test_too_few_are_one_line_with_the_reasons_and_the_run_goes_on_when_they_are_back(tmp_path, lost, says):
    fed = fed_of(tmp_path)
    with pytest.raises(FederationError, match=says) as caught:
        run(tmp_path, lost, fed)
    assert "client 1: lost" in str(caught.value)
    assert caught.value.resumable
    assert caught.value.hint
    again = run(tmp_path, fed=fed)
    assert again[-1].state.adapter.sha256 == run(tmp_path / "whole")[-1].state.adapter.sha256


@dataclasses.dataclass(frozen=True, eq=False)
class Killed(WrappedTransport):
    """Ends the server once the answers to a step are there."""

    step: tuple

    def ask(self, request, client_ids):
        answers = list(super().ask(request, client_ids))
        if (request.kind, request.step) == self.step:
            raise KeyboardInterrupt
        yield from answers


@pytest.mark.parametrize("step", [KEYS, SHARES, FIT, UNMASK])
def test_a_server_that_is_killed_at_any_step_goes_on_to_the_same_bytes(tmp_path, step):
    fed, learner = fed_of(tmp_path), ToyLearner()
    transport = masking_transport(learner, Folders(tmp_path / "clients"))
    with pytest.raises(KeyboardInterrupt):
        list(fed.run(START, Killed(transport, step)))
    trained = len(learner.calls)
    results = list(fed.run(START, transport))
    assert results[-1].state.adapter.sha256 == run(tmp_path / "whole")[-1].state.adapter.sha256
    again = len(learner.calls) - trained - CLIENTS  # all train in the VA round
    assert again == (0 if step == UNMASK else CLIENTS)


def test_after_a_kill_the_sum_that_was_asked_for_first_is_opened_and_no_other(tmp_path):
    """Client 4 was missing when the server was killed while it opened the sum. Were it taken in now, the two sums would
    differ by its update alone."""
    fed = fed_of(tmp_path, sft_rounds=1, va_rounds=0)
    transport = masking_transport(ToyLearner(), Folders(tmp_path / "clients"))
    with pytest.raises(KeyboardInterrupt):
        list(fed.run(START, Killed(Losing(transport, {FIT: {4}}), UNMASK)))
    [result] = fed.run(START, transport)
    assert result.record.secure.clients == (0, 1, 2, 3)
    assert [(each.client_id, each.reason) for each in result.record.excluded] == [(4, "lost")]
    (tmp_path / "server" / "open_sum.json").unlink()  # a server that has forgotten, or pretends to
    with pytest.raises(FederationError, match="another sum of this round: two would tell its clients apart"):
        list(fed.run(START, transport))


@pytest.mark.slow
def test_noise_at_the_client_is_added_before_the_masks(tmp_path):
    """The sum is that of the noised changes: those that the same clients, with the same secrets, send without masks."""
    spec = PrivacySpec(where="client", clip=0.5, noise=2.0, epsilon=50.0, delta=1e-5)
    plain = federation(3, 1, ContributionRule(mode="uniform"), sft_rounds=1, va_rounds=0)
    plain = dataclasses.replace(plain, privacy=ClientNoise(spec, plain.plan))
    folders = Folders(tmp_path / "clients")
    for client in range(3):
        secret_of(folders(client))
    seen = []
    list(plain.run(START, Spy(InProcessTransport(masking_learner(ToyLearner(), folders), shard), seen)))
    masked = secured(plain, tmp_path / "server", clip=20.0, most=1, clipped=True)
    [result] = masked.run(START, masking_transport(ToyLearner(), folders))
    expected = torch.stack([update.adapter.load().vector.double() for update in seen]).mean(0)
    assert torch.allclose(result.state.adapter.vector.double(), expected, atol=1e-6)
    assert float(expected.norm()) > 0.2  # there is noise
    assert result.record.privacy.releases == 1
    assert len(Spent(folders(0)).releases) == 1  # the same release, once more under masks


class FrozenA(LoraLearner):
    """Keeps A as the task has it."""

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        tensors = {
            name: task.adapter.tensors[name] if ".lora_A." in name else tensor
            for name, tensor in update.adapter.load().tensors.items()
        }
        return dataclasses.replace(update, adapter=Adapter(tensors))


def test_frozen_factors_stay_to_the_bit_and_the_others_are_the_mean(tmp_path):
    fed = lora_federation("freeze_a", clients=3, sft_rounds=1, va_rounds=0, rule="fedavg")
    frozen = {phase: train.model_copy(update={"freeze_a": True}) for phase, train in fed.train.items()}
    fed = dataclasses.replace(fed, train=frozen, rule=ContributionRule(mode="uniform"))
    folders, seen = Folders(tmp_path / "clients"), []
    transport = InProcessTransport(masking_learner(FrozenA(), folders), shard, Masking(folders).services())
    [result] = secured(fed, tmp_path / "server", most=1).run(LORA_START, transport)
    list(fed.run(LORA_START, Spy(InProcessTransport(FrozenA(), shard), seen)))
    for name, tensor in result.state.adapter.tensors.items():
        mean = torch.stack([update.adapter.load().tensors[name].double() for update in seen]).mean(0)
        assert torch.allclose(tensor.double(), mean, atol=1e-5)
        assert ".lora_A." not in name or torch.equal(tensor, LORA_START.adapter.tensors[name])
