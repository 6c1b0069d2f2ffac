"""FedProx and SCAFFOLD at the client: their gradients are those of the terms they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fccl.adapters.adapter import Adapter
from fccl.data.examples import SftExample
from fccl.model.encoding import encode
from fccl.model.language_model import LossAndGradient
from fccl.model.objectives import objective_for
from fccl.specs import TrainSpec
from fccl.training.drift import Drift
from fccl.training.loop import train
from fccl.training.objective import ObjectiveUnderModel
from tests.examples import few

SPEC = TrainSpec(epochs=3, learning_rate=0.05, batch_size=2, warmup=0.0, max_grad_norm=1e9, schedule="constant")
EXAMPLES = tuple(SftExample(f"What is {n}?", f"It is {n}, and so on.") for n in range(5))


class Quadratic:
    """½ sum_j curvature_j (w_j - target_ij)² for each example i, and other terms of w if there are any."""

    def __init__(self, weight, curvature, targets, more=lambda weight: 0.0):
        self.weight, self.curvature, self.targets, self.more = weight, curvature, targets, more
        self.lengths = [1] * len(targets)

    def count(self, indices):
        return len(indices)

    def at(self, indices):
        away = self.weight - self.targets[list(indices)]
        loss = (0.5 * self.curvature * away**2).sum(dim=1).mean() + self.more(self.weight)
        return LossAndGradient(loss.item(), {"w": torch.autograd.grad(loss, self.weight)[0]})


def trained(spec=SPEC, correction=None, more=lambda weight: 0.0, seed=3):
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    draw = torch.Generator().manual_seed(1)
    objective = Quadratic(weight, torch.tensor([0.5, 1.0, 3.0]), torch.randn(7, 3, generator=draw), more)
    return weight, train({"w": weight}, objective, spec, seed, correction=correction)


@given(mu=st.floats(0.01, 10), seed=st.integers(0, 999))
@settings(max_examples=few(30), deadline=None)
def test_the_pull_is_the_gradient_of_the_proximal_term(mu, seed):
    draw = torch.Generator().manual_seed(seed)
    start, now = torch.randn(4, generator=draw), torch.randn(4, generator=draw)
    parameter = nn.Parameter(start.clone())
    drift = Drift({"w": parameter}, prox_mu=mu)
    parameter.data.copy_(now)
    pull = drift.corrected({"w": torch.zeros(4)})["w"]
    wanted = now.clone().requires_grad_()
    (mu / 2 * (wanted - start).square().sum()).backward()
    torch.testing.assert_close(pull, wanted.grad)


def test_training_with_the_pull_is_training_on_the_loss_with_the_term():
    anchor = torch.tensor([1.0, -2.0, 0.5])
    pulled, _ = trained(SPEC.model_copy(update={"prox_mu": 0.7}))
    term, _ = trained(more=lambda weight: 0.35 * (weight - anchor).square().sum())
    torch.testing.assert_close(pulled, term)


def test_pulled_hard_enough_it_ends_at_the_closed_form():
    """argmin ½ a (w - t)² + μ/2 (w - w0)² = (a t + μ w0) / (a + μ), t the mean target."""
    spec = SPEC.model_copy(update={"epochs": 200, "batch_size": 7, "prox_mu": 2.0, "schedule": "linear"})
    weight, _ = trained(spec)
    curvature, start = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([1.0, -2.0, 0.5])
    mean = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)).mean(dim=0)
    torch.testing.assert_close(weight.detach(), (curvature * mean + 2.0 * start) / (curvature + 2.0), atol=1e-3, rtol=0)


def test_the_loss_that_is_told_is_the_objectives_alone():
    _, plain = trained(SPEC.model_copy(update={"learning_rate": 1e-12}))
    _, pulled = trained(SPEC.model_copy(update={"learning_rate": 1e-12, "prox_mu": 5.0}))
    assert pulled.first_loss == plain.first_loss
    assert pulled.avg_loss == pytest.approx(plain.avg_loss)


def test_without_any_of_it_not_a_bit_changes():
    """The same bits as with the term of a zero correction, whose only effect would be to add zeros."""
    plain, result = trained()
    zero, corrected = trained(correction={"w": torch.zeros(3)})
    assert torch.equal(plain, zero)
    assert result.control is None
    assert corrected.control is not None


@given(seed=st.integers(0, 999))
@settings(max_examples=few(20), deadline=None)
def test_a_correction_is_a_linear_term_of_the_loss(seed):
    change = torch.randn(3, generator=torch.Generator().manual_seed(seed))
    corrected, _ = trained(correction={"w": change})
    term, _ = trained(more=lambda weight: weight @ change)
    torch.testing.assert_close(corrected, term)


def test_the_control_is_the_mean_of_the_gradients_without_correction_pull_and_clipping():
    seen = []
    spec = SPEC.model_copy(update={"max_grad_norm": 0.01, "prox_mu": 0.5})
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    objective = Quadratic(
        weight, torch.tensor([0.5, 1.0, 3.0]), torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    )
    real = objective.at

    def at(indices):
        seen.append((objective.curvature * (weight.detach() - objective.targets[list(indices)])).mean(dim=0))
        return real(indices)

    objective.at = at
    result = train({"w": weight}, objective, spec, 3, correction={"w": torch.tensor([0.1, 0.2, -0.3])})
    torch.testing.assert_close(result.control, {"w": torch.stack(seen).mean(dim=0)})


def federated(rounds, corrected):
    """Five clients of different curvature and optimum, AdamW at each, equal weights: how far the end is from the
    optimum of the mean loss.
    """
    draw = np.random.default_rng(0)
    curvatures = torch.from_numpy(draw.uniform(0.2, 3.0, (5, 3))).float()
    targets = torch.from_numpy(draw.normal(scale=3.0, size=(5, 1, 3))).float().repeat(1, 8, 1)
    spec = SPEC.model_copy(update={"schedule": "linear", "epochs": 2})
    now, own = torch.zeros(3), torch.zeros(5, 3)
    for _ in range(rounds):
        moved, common = [], own.mean(dim=0)
        for client in range(5):
            weight = nn.Parameter(now.clone())
            change = {"w": common - own[client]} if corrected else None
            result = train(
                {"w": weight}, Quadratic(weight, curvatures[client], targets[client]), spec, 0, correction=change
            )
            moved.append(weight.detach())
            if corrected:
                own[client] = result.control["w"]
        now = torch.stack(moved).mean(dim=0)
    best = (curvatures[:, None] * targets).mean(dim=(0, 1)) / curvatures.mean(dim=0)
    return float((now - best).abs().max())


def test_with_adamw_too_scaffold_goes_where_fedavg_does_not():
    """To within the length of two of AdamW's steps, 0.05 each; FedAvg ends more than thirty steps away."""
    drifted, corrected = federated(40, corrected=False), federated(40, corrected=True)
    assert drifted > 1.5
    assert corrected < 0.1


def test_the_pull_on_a_real_model_is_the_difference_of_its_gradients(tiny_model):
    """Gradients with and without the proximal term, at factors that are not where they began."""
    draw = torch.Generator().manual_seed(2)
    start, now = (
        Adapter({name: 0.2 * torch.randn(p.shape, generator=draw) for name, p in tiny_model.factors.items()})
        for _ in range(2)
    )
    rows, found = encode(tiny_model.tokenizer, "sft", EXAMPLES, 128), []
    loss = ObjectiveUnderModel(tiny_model, objective_for("sft", rows))
    for mu in (0.0, 0.3):
        tiny_model.load(start)
        drift = Drift(tiny_model.factors, prox_mu=mu)
        tiny_model.load(now)
        found.append(drift.corrected(loss.at(range(5)).gradient))
    plain, pulled = found
    for name in tiny_model.factors:
        expected = 0.3 * (now.tensors[name] - start.tensors[name])
        torch.testing.assert_close(pulled[name] - plain[name], expected, atol=1e-5, rtol=1e-4)
