"""Linear layers of any model in int8 under autograd: `fccl.model.frozen_weight`, tested on its own, is the oracle."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from fccl.model.frozen_weight import Int8
from fccl.model.int8_layers import compute_in_int8


class Small(nn.Module):
    """What `compute_in_int8` asks of a model: modules and an output head."""

    def __init__(self, head, **parts):
        super().__init__()
        self.parts, self.head = nn.ModuleDict(parts), head

    def get_output_embeddings(self):
        return self.head


class Router(nn.Linear):
    """A linear layer that answers something else than its product."""

    def forward(self, x):
        return super().forward(x).softmax(-1)


def frozen(layer):
    return layer.requires_grad_(False)


@pytest.fixture
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def learned(layer, x, slopes):
    """The layer's answer and the gradient of its input."""
    x = x.clone().requires_grad_()
    out = layer(x)
    (gradient,) = torch.autograd.grad(out, x, slopes)
    return out.detach(), gradient


@pytest.mark.int8
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(24, 40, bias=False), lambda: nn.Linear(24, 40), lambda: Conv1D(40, 24)]
)
def test_answer_and_gradient_are_the_products_of_the_frozen_map_for_any_leading_shape(seeded, make):
    layer = frozen(make())
    matrix = layer.weight.clone() if isinstance(layer, Conv1D) else layer.weight.T.clone()
    oracle = Int8(matrix, torch.zeros(40) if layer.bias is None else layer.bias.clone())
    x, slopes = torch.randn(2, 5, 24), torch.randn(2, 5, 40)
    exact = learned(layer, x, slopes)
    assert compute_in_int8(Small(nn.Linear(1, 1), layer=layer)) == 1
    out, gradient = learned(layer, x, slopes)
    assert torch.equal(out, oracle(x.view(10, 24)).view(2, 5, 40))
    assert torch.equal(gradient, oracle.back(slopes.view(10, 40)).view(2, 5, 24))
    for found, expected in zip((out, gradient), exact, strict=True):
        assert 0 < float((found - expected).norm() / expected.norm()) < 0.02


def test_head_trained_layers_and_subclasses_stay_as_they_are(seeded):
    head, trained, router = frozen(nn.Linear(8, 8)), nn.Linear(8, 8), frozen(Router(8, 8))
    x = torch.randn(4, 8)
    before = [layer(x) for layer in (head, trained, router)]
    assert compute_in_int8(Small(head, trained=trained, router=router, plain=frozen(nn.Linear(8, 8)))) == 1
    assert all(torch.equal(layer(x), old) for layer, old in zip((head, trained, router), before, strict=True))


def test_a_weight_that_is_written_to_counts_from_the_next_product_on(seeded):
    layer, other, x = frozen(nn.Linear(8, 8, bias=False)), torch.randn(8, 8), torch.randn(4, 8)
    compute_in_int8(Small(nn.Linear(1, 1), layer=layer))
    layer(x)
    layer.weight.copy_(other)
    assert torch.equal(layer(x), Int8(other.T, torch.zeros(8))(x))
