"""The generic engine's model as it is loaded."""

import torch
from torch import nn
from transformers.activations import ACT2FN, NewGELUActivation

from fccl.model.peft_model import fuse_activations


def test_a_loaded_model_has_one_kernel_for_gelu_new_and_the_library_keeps_its_own(tiny_model):
    assert tiny_model.base.config.activation_function == "gelu_new"
    kinds = {type(layer.mlp.act) for layer in tiny_model.base.transformer.h}
    assert kinds == {nn.GELU}
    assert isinstance(ACT2FN["gelu_new"], NewGELUActivation)


def test_the_fused_activation_is_the_same_function():
    inner = nn.Sequential(nn.Linear(4, 4), NewGELUActivation())
    model = nn.Sequential(inner, nn.GELU(), NewGELUActivation()).double()
    x = torch.linspace(-8, 8, 400, dtype=torch.float64).view(100, 4).requires_grad_()
    expected = model(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    fuse_activations(model)
    assert not any(isinstance(module, NewGELUActivation) for module in model.modules())
    assert model[1].approximate == "none"
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], slope, rtol=1e-12, atol=1e-14)
