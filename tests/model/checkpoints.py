"""Checkpoints as a trainer of PEFT leaves them, and copies with something changed."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from fccl.errors import ModelError
from fccl.model.loading import load_model
from fccl.specs import ModelSpec


def spec(name, **changes):
    return ModelSpec(
        **{"name": str(name), "lora_r": 2, "lora_alpha": 4, "lora_targets": "all-linear", "max_length": 64} | changes
    )


def checkpoint(folder, base_path, config, rows=0, tokenizer=None):
    """A folder as a trainer of PEFT leaves it: the adapter of a base model, all that it trains drawn at random."""
    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    if rows:
        base.resize_token_embeddings(rows, mean_resizing=False)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = get_peft_model(base, config)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return model.eval()


LORA = {"r": 3, "lora_alpha": 6, "task_type": "CAUSAL_LM", "init_lora_weights": False}


def edited(folder, file, **changes):
    """A JSON file of a folder with other values; None takes a key away."""
    path = folder / file
    kept = {name: value for name, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(kept))


def copy_of(path, to):
    shutil.copytree(path, to)
    return to


PLAIN_LORA = LoraConfig(**LORA, target_modules=["q_proj", "v_proj"])


def refusal(name, **changes):
    """The one line and the way out that a model is refused with."""
    with pytest.raises(ModelError) as caught:
        load_model(spec(name, **changes))
    assert "\n" not in str(caught.value)
    assert str(name) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)
