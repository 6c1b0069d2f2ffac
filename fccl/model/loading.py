"""Loading a base model: by hub name, from a folder, or the built-in one; LoRA put into it."""

from __future__ import annotations

import torch

from fccl.model.base_model import load_base
from fccl.model.language_model import LanguageModel, _with_lora
from fccl.specs import ModelSpec


def load_model(spec: ModelSpec) -> LanguageModel:
    """Load the base model and put a fresh LoRA on it. Raises `ModelError`."""
    base = load_base(spec.name, spec.max_length)
    model = _with_lora(spec, base.model)
    factors = {
        name.replace(".default", ""): parameter.requires_grad_(True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LanguageModel(
        spec,
        model.to(device).eval(),
        base.tokenizer,
        dict(sorted(factors.items())),
        device,
        (base.name, *base.adapters),
    )
