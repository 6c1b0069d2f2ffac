"""The server's examples as a loss with slopes, on the tiny GPT-2."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import leading, of_rank, with_frozen
from fccl.aggregation.mean import weighted_mean
from fccl.contribution.leave_one_out import LeaveOneOut
from fccl.contribution.validation_loss import ValidationLoss
from fccl.contribution.verified import Verified
from fccl.data.shards import ClientShard
from fccl.evaluation.suite import EvaluationSplit
from fccl.evaluation.validation import SERVER, Validator, VerificationLoss, proportional_draw
from fccl.messages import ClientUpdate, FitTask
from fccl.model.loading import Models
from fccl.model.objectives import objective_for
from fccl.model.scoring import score_pairs, score_sft
from fccl.records.run import Contribution, TrainingReport
from fccl.specs import PreferenceSpec, TrainSpec, named_seed
from fccl.training.engines import learner_for
from fccl.training.loop import train
from fccl.training.objective import ObjectiveUnderModel, reference_log_probs

BETA = 0.3
PREFERENCE = PreferenceSpec(beta=BETA)
WEIGHTS = (0.5, 0.3, 0.2)


@pytest.fixture
def loss(tiny_model, split):
    return VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4), 0)


@pytest.fixture(scope="module")
def task(tiny_model, an_adapter):
    def build(phase, number=0, threads=1):
        train = TrainSpec(
            epochs=1, learning_rate=0.1, batch_size=4, warmup=0, max_grad_norm=1, dpo_beta=BETA, threads=threads
        )
        return FitTask(
            "run", number, phase, an_adapter(1), an_adapter(9) if phase == "va" else None, tiny_model.spec, train, 7
        )

    return build


@pytest.fixture
def clients(an_adapter):
    return [an_adapter(seed) for seed in (2, 3, 4)]


def by_hand(model, split, phase, adapter, reference):
    model.load(adapter)
    validator = Validator(model, split.sft, split.va, preference=PREFERENCE, batch_size=1)
    if phase == "sft":
        scores = score_sft(model, validator.rows, 1)
        return scores.nll.sum() / scores.tokens.sum()
    now = torch.tensor(score_pairs(model, validator.pairs, 1).margins)
    model.load(reference)
    before = torch.tensor(score_pairs(model, validator.pairs, 1).margins)
    return float(-functional.logsigmoid(BETA * (now - before)).mean())


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_loss_is_that_of_the_examples(tiny_model, split, loss, task, clients, phase):
    expected = by_hand(tiny_model, split, phase, clients[0], task("va").reference)
    assert loss.loss(task(phase), clients[0]) == pytest.approx(expected, rel=1e-5)
    assert loss.slopes(task(phase), clients[0], [])[0] == pytest.approx(expected, rel=1e-5)
    assert loss.examples(phase) == (9 if phase == "sft" else 8)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_slopes_are_the_derivatives_of_the_loss_by_the_weights(loss, task, clients, phase):
    """Central differences of L(theta(w)) along e_i - w, for every client, on the real model."""
    centre = weighted_mean(zip(WEIGHTS, clients, strict=True))
    _, slopes = loss.slopes(task(phase), centre, clients)
    mean = sum(weight * slope for weight, slope in zip(WEIGHTS, slopes, strict=True))
    for index, slope in enumerate(slopes):
        low, high = (
            loss.loss(
                task(phase),
                weighted_mean(
                    zip([(1 - e) * w + e * (i == index) for i, w in enumerate(WEIGHTS)], clients, strict=True)
                ),
            )
            for e in (0.0, 0.02)
        )
        moved = [(1.02) * w - 0.02 * (i == index) for i, w in enumerate(WEIGHTS)]
        other = Adapter(
            {
                name: sum(w * client.tensors[name] for w, client in zip(moved, clients, strict=True))
                for name in centre.tensors
            }
        )
        assert low == pytest.approx(loss.loss(task(phase), centre), rel=1e-6)
        assert (high - loss.loss(task(phase), other)) / 0.04 == pytest.approx(slope - mean, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_slopes_leave_nothing_behind_but_the_adapter_that_was_asked_for(tiny_model, loss, task, clients, phase):
    before = {
        name: parameter.detach().clone()
        for name, parameter in tiny_model.base.named_parameters()
        if not parameter.requires_grad
    }
    for parameter in tiny_model.factors.values():
        parameter.grad = None
    loss.slopes(task(phase), clients[0], clients)
    assert tiny_model.adapter().sha256 == clients[0].sha256
    assert all(parameter.grad is None for parameter in tiny_model.model.parameters())
    assert not tiny_model.model.training
    for name, parameter in tiny_model.base.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_batches_change_no_more_than_float_noise(tiny_model, split, task, clients, phase):
    found = [
        VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=size), 0).slopes(
            task(phase), clients[0], clients
        )
        for size in (1, 3, 32)
    ]
    for other in found[1:]:
        assert other[0] == pytest.approx(found[0][0], rel=1e-5)
        assert other[1] == pytest.approx(found[0][1], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_twice_is_the_same_to_the_bit_whatever_was_loaded_or_how_many_threads_there_are(
    tiny_model, loss, task, clients, phase
):
    first = loss.slopes(task(phase), clients[0], clients)
    tiny_model.load(clients[2])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert loss.slopes(task(phase), clients[0], clients) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_task_s_number_of_threads_is_used(tiny_model, loss, task, clients, monkeypatch):
    seen = []
    for name in ("response_log_probs", "loss_and_gradient"):
        method = getattr(type(tiny_model), name)
        watched = lambda self, *given, method=method: seen.append(torch.get_num_threads()) or method(self, *given)  # noqa: E731
        monkeypatch.setattr(type(tiny_model), name, watched)
    for threads in (1, 2):
        loss.loss(task("sft", threads=threads), clients[0])
        loss.slopes(task("sft", threads=threads), clients[0], clients)
        assert set(seen) == {threads}
        seen.clear()


def test_the_reference_is_scored_once_a_round_for_the_pairs_that_are_drawn(
    tiny_model, split, task, clients, monkeypatch
):
    from fccl.evaluation import validation

    scored = []
    monkeypatch.setattr(
        validation,
        "score_pairs",
        lambda model, pairs, size: scored.append(len(pairs)) or score_pairs(model, pairs, size),
    )
    loss = VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4), 4)
    rounds = {number: task("va", number) for number in (3, 4)}
    found = [(loss.slopes(asked, clients[0], clients), loss.loss(asked, clients[1])) for asked in rounds.values()]
    assert scored == [4, 4]
    alone = VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4), 4)
    again = alone.slopes(rounds[4], clients[0], clients), alone.loss(rounds[4], clients[1])
    assert again == found[1], "a run that was killed has the bits of one that was not"


def test_a_loss_that_is_not_finite_is_infinite(loss, task, an_adapter):
    huge = an_adapter(1, scale=3e37)
    assert loss.loss(task("sft"), huge) == math.inf
    assert loss.slopes(task("sft"), huge, [huge])[0] == math.inf


def test_a_va_task_needs_its_reference(loss, task, clients):
    bare = dataclasses.replace(task("va"))
    object.__setattr__(bare, "reference", None)
    with pytest.raises(ValueError, match="reference"):
        loss.loss(bare, clients[0])


# --- which examples


def test_the_examples_change_from_round_to_round_and_not_within_one(tiny_model, split, task, clients):
    loss = VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4), 4)
    losses = [loss.loss(task("sft", number), clients[0]) for number in (0, 0, 1, 2, 3)]
    assert losses[0] == losses[1]
    assert len(set(losses)) > 1
    assert loss.examples("sft") == 4


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_is_that_of_those_that_were_drawn(tiny_model, split, task, clients, phase, number):
    seed = named_seed(task(phase).seed, "verification", number)
    sft, va = (
        [held[index] for index in proportional_draw([each.topic for each in held], 4, seed)]
        for held in (split.sft, split.va)
    )
    loss = VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4), 4)
    expected = by_hand(tiny_model, EvaluationSplit(sft, va), phase, clients[0], task("va").reference)
    assert loss.loss(task(phase, number), clients[0]) == pytest.approx(expected, rel=1e-5)
    held = split.sft if phase == "sft" else split.va
    assert [held[index] for index in loss.drawn(task(phase, number))] == (sft if phase == "sft" else va)


@pytest.mark.parametrize("source", [Verified, LeaveOneOut, ValidationLoss])
def test_every_verified_source_says_which_examples_it_looked_at(tiny_model, split, task, clients, source):
    loss, asked = (
        VerificationLoss(Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4), 4),
        task("sft"),
    )
    said = Contribution(avg_loss=1.0, num_samples=5, seconds=0.0)
    report = TrainingReport(tokens=1, tokens_per_second=1.0, steps=1)
    weighing = source(loss).weigh(asked, [ClientUpdate("run", 0, 0, "sft", clients[0], said, report)])
    assert weighing.examples == loss.drawn(asked)
    assert len(weighing.examples) == weighing.verification.examples == 4


def test_more_examples_than_there_are_is_all_of_them(tiny_model, split, task, clients):
    validator = Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4)
    everything, many = VerificationLoss(validator, 0), VerificationLoss(validator, 1000)
    assert many.loss(task("va"), clients[0]) == everything.loss(task("va"), clients[0])
    assert many.examples("va") == everything.examples("va") == 8


# --- the three sources on a real model: two clients that learnt from such examples, one that moved as far in a random
# direction


@pytest.fixture(scope="module", params=["sft", "va"])
def a_round(request, tiny_model, split, task):
    """The task and three updates, the last of them noise."""
    start = tiny_model.initial_adapter(0)
    given_task = dataclasses.replace(
        task(request.param), adapter=start, reference=start if request.param == "va" else None
    )
    adapters = [learnt(tiny_model, split, given_task, seed) for seed in (1, 2)]
    draw = torch.Generator().manual_seed(3)
    noise = {name: torch.randn(tensor.shape, generator=draw) for name, tensor in start.tensors.items()}
    scale = adapters[0].distance(start) / math.sqrt(sum(float(tensor.square().sum()) for tensor in noise.values()))
    adapters.append(Adapter({name: tensor + scale * noise[name] for name, tensor in start.tensors.items()}))
    report = TrainingReport(tokens=1, tokens_per_second=1.0, steps=1)
    said = Contribution(avg_loss=1.0, num_samples=5, seconds=0.0)
    return given_task, [
        ClientUpdate("run", i, 0, request.param, adapter, said, report) for i, adapter in enumerate(adapters)
    ]


def learnt(model, split, task, seed):
    validator = Validator(model, split.sft, split.va, preference=PREFERENCE, batch_size=4)
    spec = TrainSpec(epochs=8, learning_rate=0.01, batch_size=4, warmup=0.0, max_grad_norm=1.0)
    examples = validator.examples(task.phase)
    reference = None if task.reference is None else reference_log_probs(model, task.reference, examples, 4)
    model.load(task.adapter)
    train(
        model.factors,
        ObjectiveUnderModel(model, objective_for(task.phase, examples, reference, PREFERENCE)),
        spec,
        seed,
    )
    return model.adapter()


@pytest.mark.parametrize("rule", [Verified, LeaveOneOut, ValidationLoss])
def test_a_noise_update_loses_weight_and_the_mean_gets_no_worse(loss, a_round, rule):
    weighing = rule(loss).weigh(*a_round)
    assert weighing.weights[2] < 0.9 / 3
    assert weighing.weights[2] == min(weighing.weights)
    assert weighing.scores[2] == min(weighing.scores)
    if rule is not ValidationLoss:
        assert weighing.verification.loss_weights < weighing.verification.loss_prior


def test_the_same_weighing_twice(loss, a_round):
    first, second = (Verified(loss).weigh(*a_round) for _ in range(2))
    assert (first.weights, first.scores, first.verification.path) == (
        second.weights,
        second.scores,
        second.verification.path,
    )
    assert np.argmin(first.verification.path) == first.verification.taken


@pytest.mark.parametrize("factor", [-1.0, 10.0, 1e6, 1e30])
@pytest.mark.parametrize("rule", [Verified, LeaveOneOut, ValidationLoss])
def test_weights_are_finite_whatever_is_sent(loss, a_round, rule, factor):
    task, updates = a_round
    start = task.adapter
    apart = {name: tensor - start.tensors[name] for name, tensor in updates[0].adapter.tensors.items()}
    hostile = Adapter({name: start.tensors[name] + factor * tensor for name, tensor in apart.items()})
    weighing = rule(loss).weigh(task, [dataclasses.replace(updates[0], adapter=hostile), *updates[1:]])
    assert all(map(math.isfinite, (*weighing.weights, *weighing.scores)))
    assert math.fsum(weighing.weights) == pytest.approx(1)
    if rule is Verified:
        found = weighing.verification
        mean = weighted_mean(zip(weighing.weights, [hostile, *(each.adapter for each in updates[1:])], strict=True))
        assert loss.loss(task, mean) == found.loss_weights <= found.loss_prior
        assert found.loss_weights < loss.loss(task, start), "the round still brings something"


def wider(tiny_model, rank, seed):
    form, draw = of_rank(tiny_model.adapter().form, rank), torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_what_clients_train_of_a_wider_adapter_is_judged_with_the_rest_behind_it(
    tiny_model, split, loss, task, clients, phase
):
    """The reference has a rank of its own; the slopes are those of the whole model along what is trained."""
    wide = dataclasses.replace(
        task(phase),
        adapter=wider(tiny_model, 7, 5),
        **({"reference": wider(tiny_model, 6, 6)} if phase == "va" else {}),
    )
    for client in clients:
        whole = with_frozen(client, wide.adapter)
        expected = by_hand(tiny_model, split, phase, whole, wide.reference)
        assert loss.loss(wide, client) == loss.loss(wide, whole) == pytest.approx(expected, rel=1e-5)
        assert abs(loss.loss(wide, client) - loss.loss(task(phase), client)) > 1e-3
    value, slopes = loss.slopes(wide, clients[0], clients[1:])
    assert value == pytest.approx(loss.loss(wide, clients[0]), rel=1e-6)
    for slope, direction in zip(slopes, clients[1:], strict=True):
        ahead, back = (
            loss.loss(
                wide,
                Adapter({name: tensor + step * direction.tensors[name] for name, tensor in clients[0].tensors.items()}),
            )
            for step in (0.01, -0.01)
        )
        assert (ahead - back) / 0.02 == pytest.approx(slope, rel=0.03, abs=3e-3)


@pytest.mark.parametrize("source", [Verified, LeaveOneOut, ValidationLoss])
def test_sources_weigh_updates_of_different_ranks_under_a_wider_adapter(tiny_model, loss, task, source):
    wide = dataclasses.replace(task("sft"), adapter=wider(tiny_model, 7, 5))
    said, report = (
        Contribution(avg_loss=1.0, num_samples=5, seconds=0.0),
        TrainingReport(tokens=1, tokens_per_second=1.0, steps=1),
    )
    sent = [leading(wider(tiny_model, 4, number), rank) for number, rank in enumerate((4, 1, 2))]
    updates = [
        ClientUpdate("run", number, 0, "sft", adapter, said, report).with_frozen(wide.trained)
        for number, adapter in enumerate(sent)
    ]
    weighing = source(loss).weigh(wide, updates)
    assert sum(weighing.weights) == pytest.approx(1)
    assert all(map(math.isfinite, weighing.scores))


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_what_the_server_learns_is_a_client_s_answer_of_one_epoch_over_the_whole_split(tiny_model, split, task, phase):
    def learner(model):
        return learner_for(Models.holding(model))

    validator = Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4)
    asked = task(phase)
    longer = dataclasses.replace(asked, train=asked.train.model_copy(update={"epochs": 3}))
    found = VerificationLoss(validator, 2, learner).learnt(longer)
    shard = ClientShard(SERVER, tuple(split.sft), tuple(split.va))
    expected = learner(tiny_model).fit(asked, shard, lambda status: None)
    assert found.adapter.load().sha256 == expected.adapter.load().sha256 != asked.adapter.sha256
    assert found.contribution.num_samples == len(validator.split(phase))


def test_a_loss_without_a_learner_says_that_it_can_only_judge(loss, task):
    with pytest.raises(ValueError, match="no learner"):
        loss.learnt(task("sft"))
