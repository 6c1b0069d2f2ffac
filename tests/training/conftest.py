"""Every test of training holds for every engine."""

import pytest

from fccl.model.language_model import GENERIC, GPT2
from fccl.model.loading import load_model
from fccl.specs import ModelSpec


@pytest.fixture(scope="module", params=[GENERIC, GPT2])
def tiny_model(request, tiny_model_path):
    """The tiny model, of each engine in turn."""
    targets = {"lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear"}
    return load_model(ModelSpec(name=str(tiny_model_path), max_length=128, engine=request.param, **targets))


@pytest.fixture(scope="module", params=[GENERIC, GPT2])
def exact_model(request, tiny_model_path):
    """The tiny model of each engine in float64, of its own: no other test file sees it."""
    targets = {"lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear"}
    model = load_model(ModelSpec(name=str(tiny_model_path), max_length=128, engine=request.param, **targets))
    model.model.double()
    return model
