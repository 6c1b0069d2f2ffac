import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fccl.errors import TrainingError
from fccl.model.language_model import LossAndGradient
from fccl.specs import TrainSpec
from fccl.training.batching import BUCKET, epoch_batches
from fccl.training.loop import learning_rate_factor, train

SPEC = TrainSpec(epochs=2, learning_rate=0.1, batch_size=2, warmup=0.0, max_grad_norm=100.0, schedule="constant")
lengths = st.lists(st.integers(1, 50), min_size=1, max_size=200)


@given(lengths, st.integers(1, 9), st.integers(0, 99))
def test_an_epoch_reads_every_example_once(lengths_, batch_size, seed):
    batches = epoch_batches(lengths_, batch_size, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths_)))
    assert max(map(len, batches)) <= batch_size
    assert batches == epoch_batches(lengths_, batch_size, seed)


def test_epochs_differ_and_padding_is_small():
    lengths_ = list(range(1, 1001))
    one, two = epoch_batches(lengths_, 10, 1), epoch_batches(lengths_, 10, 2)
    assert {frozenset(batch) for batch in one} != {frozenset(batch) for batch in two}
    padding = sum(max(batch) * len(batch) - sum(batch) for batch in one) / sum(lengths_)
    unsorted = [list(range(i, 1000, 100)) for i in range(100)]
    worst = sum(max(batch) * len(batch) - sum(batch) for batch in unsorted) / sum(lengths_)
    assert padding < worst / BUCKET * 2


def test_short_and_long_batches_alternate():
    """Of one bucket, whose batches are cut in the order of length."""
    batches = epoch_batches(list(range(10 * BUCKET)), 10, 0)
    assert sorted(batches) == [list(range(at, at + 10)) for at in range(0, 10 * BUCKET, 10)]
    assert batches != sorted(batches)


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(["constant", "linear", "cosine"]))
def test_the_schedule_rises_then_never_rises_again(steps, warmup, schedule):
    spec = SPEC.model_copy(update={"warmup": warmup, "schedule": schedule})
    factors = [learning_rate_factor(step, steps, spec) for step in range(steps)]
    rising = round(warmup * steps)
    assert all(0 < factor <= 1 for factor in factors)
    assert all(a < b for a, b in pairwise(factors[:rising]))
    assert all(a >= b for a, b in pairwise(factors[rising:]))
    assert max(factors) == pytest.approx(1.0)


def test_schedules_at_known_points():
    for schedule, halfway in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        spec = SPEC.model_copy(update={"warmup": 0.2, "schedule": schedule})
        assert learning_rate_factor(0, 10, spec) == 0.5
        assert learning_rate_factor(2, 10, spec) == 1.0
        assert learning_rate_factor(6, 10, spec) == pytest.approx(halfway)


class Quadratic:
    """(w - target)² for each target; count 1 an example."""

    def __init__(self, weight, targets):
        self.weight, self.targets, self.lengths, self.calls = weight, targets, [1] * len(targets), []

    def count(self, indices):
        return len(indices)

    def at(self, indices):
        self.calls.append(list(indices))
        away = self.weight.detach() - torch.tensor([self.targets[index] for index in indices])
        return LossAndGradient(float(away.square().mean()), {"w": 2 * away.mean()})


def test_minimises_and_accounts():
    weight = nn.Parameter(torch.tensor(0.0))
    objective, reports = Quadratic(weight, [3.0] * 5), []
    result = train({"w": weight}, objective, SPEC.model_copy(update={"epochs": 40}), seed=1, on_step=reports.append)
    assert weight.item() == pytest.approx(3.0, abs=0.3)
    assert result.first_loss == pytest.approx(9.0)
    assert result.steps == 40 * 3 == len(reports) == len(objective.calls)
    assert result.tokens == 40 * 5
    assert reports[-1].step == reports[-1].steps == 120


def test_tokens_are_those_of_all_examples_in_all_epochs():
    objective = Quadratic(nn.Parameter(torch.tensor(0.0)), [1.0] * 3)
    objective.lengths = [5, 7, 30]
    assert train({"w": objective.weight}, objective, SPEC, 0).tokens == 2 * (5 + 7 + 30)


def test_avg_loss_is_over_the_last_epoch_and_every_example_counts_alike():
    """With a learning rate too small to matter the loss of each batch is known: targets 1, 2, 3 give 1, 4, 9."""
    weight = nn.Parameter(torch.tensor(0.0))
    result = train(
        {"w": weight}, Quadratic(weight, [1.0, 2.0, 3.0]), SPEC.model_copy(update={"learning_rate": 1e-12}), seed=0
    )
    assert result.avg_loss == pytest.approx((1 + 4 + 9) / 3, rel=1e-5)


def test_avg_loss_forgets_the_epochs_before_the_last():
    weight, reports = nn.Parameter(torch.tensor(0.0)), []
    result = train(
        {"w": weight},
        Quadratic(weight, [3.0] * 4),
        SPEC.model_copy(update={"epochs": 3}),
        seed=0,
        on_step=reports.append,
    )
    assert result.avg_loss == pytest.approx((reports[-2].loss + reports[-1].loss) / 2)
    assert result.avg_loss < reports[0].loss


def test_weight_decay_is_decoupled():
    """Without a gradient every step shrinks the weight by the learning rate times the decay."""
    weight = nn.Parameter(torch.tensor(2.0))
    objective = Quadratic(weight, [0.0])
    objective.at = lambda indices: LossAndGradient(0.0, {"w": torch.zeros(())})
    train({"w": weight}, objective, SPEC.model_copy(update={"weight_decay": 0.5}), seed=0)
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) ** 2)


def test_gradients_are_clipped():
    """AdamW's first step is the learning rate whatever the gradient; clipped to nothing, epsilon wins and the step is
    far smaller.
    """
    weight = nn.Parameter(torch.tensor(0.0))
    train(
        {"w": weight}, Quadratic(weight, [5.0]), SPEC.model_copy(update={"epochs": 1, "max_grad_norm": 1e-10}), seed=0
    )
    assert 0 < weight.item() < 0.01


def test_same_seed_same_bits_other_seed_other_bits():
    def run(seed):
        weight = nn.Parameter(torch.tensor(0.0))
        train({"w": weight}, Quadratic(weight, [1.0, 2.0, 7.0, -3.0]), SPEC, seed)
        return weight.item()

    assert run(1) == run(1)
    assert len({run(seed) for seed in range(5)}) > 1


def test_every_epoch_has_an_order_of_its_own():
    objective = Quadratic(nn.Parameter(torch.tensor(0.0)), [1.0] * 20)
    train({"w": objective.weight}, objective, SPEC, 0)
    assert objective.calls[:10] != objective.calls[10:]


def test_a_loss_that_is_not_finite_is_a_clear_error():
    weight = nn.Parameter(torch.tensor(0.0))
    with pytest.raises(TrainingError, match="training diverged: the gradient is not finite at step 1") as caught:
        train({"w": weight}, Quadratic(weight, [math.inf]), SPEC, 0)
    assert not caught.value.resumable
    assert "--sft-lr" in caught.value.hint
    assert "resume" not in caught.value.hint
