"""`LORA_TARGETS` as the modules of one model: linear layers, whose own shape the factors have; a line for any other
name.

Mixture-of-experts models keep all experts of a layer in one 3-D tensor. PEFT reaches it under the names that the
experts' layers once had, with factors of another rank. A router may be a linear layer that answers more than a product.
Neither is a target here.
"""

from __future__ import annotations

from collections.abc import Mapping

from fccl.model import peft_alone  # noqa: F401 - before PEFT

# isort: split
import torch
from peft import LoraConfig
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOICES
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fccl.errors import ModelError
from fccl.specs import ModelSpec

ALL, AUTO = "all-linear", "auto"
TopLayers = tuple[list[int], str]  # their numbers, and the name of the list that holds all layers
_FUSED = "belongs to experts that are fused into one tensor"
_OTHER = "is not a plain linear layer everywhere"


def targets(spec: ModelSpec, base: PreTrainedModel) -> list[str]:
    """The target modules, as PEFT takes them. Raises `ModelError` for a name that is no target, with those that are."""
    reasons = linear_names(base)
    usable = [name for name, reason in reasons.items() if not reason]
    way = f"these work: {', '.join(usable)}; or use {AUTO} or {ALL}" if usable else "use another model"
    chosen = (
        [name for name in CHOICES.get(base.config.model_type, ()) if name in usable]
        if spec.lora_targets == AUTO
        else []
    )
    if chosen:
        return chosen
    if spec.lora_targets in (AUTO, ALL):
        every = [*usable, *(path for path, name in _linear_paths(base) if reasons[name] == _OTHER)]
        if not every:
            raise ModelError(
                f"LORA_TARGETS={spec.lora_targets}: {spec.name} has no linear layer that a LoRA can be put on", hint=way
            )
        return every
    wanted = [name.strip() for name in spec.lora_targets.split(",") if name.strip()]
    for name in wanted:
        if name not in reasons:
            raise ModelError(f"LORA_TARGETS={spec.lora_targets}: {spec.name} has no module {name!r}", hint=way)
        if reasons[name]:
            raise ModelError(f"LORA_TARGETS={spec.lora_targets}: {name!r} of {spec.name} {reasons[name]}", hint=way)
    return wanted


def top_layers(spec: ModelSpec, base: PreTrainedModel) -> TopLayers | None:
    """`LORA_LAYERS`: the layers that carry LoRA; None for all. Raises `ModelError` for more than the model has."""
    if spec.lora_layers is None:
        return None
    count = base.config.get_text_config().num_hidden_layers
    lists = ((path, module) for path, module in base.named_modules() if isinstance(module, nn.ModuleList))
    path = next((path for path, module in lists if len(module) == count), None)  # the outermost
    if path is None:
        line = f"LORA_LAYERS={spec.lora_layers}: {spec.name} does not keep its layers in one list"
        raise ModelError(line, hint="use LORA_LAYERS=all")
    if spec.lora_layers > count:
        line = f"LORA_LAYERS={spec.lora_layers}: {spec.name} has {count} layers"
        raise ModelError(line, hint=f"use 1 to {count}, or all")
    return list(range(count - spec.lora_layers, count)), path.rpartition(".")[2]


def linear_names(base: PreTrainedModel) -> Mapping[str, str]:
    """The last names of the linear layers but the head, in order, each with the reason why it is no target; empty for a
    target.

    A name that other modules have too is no target as it stands: PEFT goes by names.
    """
    linear = dict(_linear_paths(base))
    others = {name for path, name in _paths(base) if path not in linear}
    odd = {name for path, name in _paths(base) if isinstance(base.get_submodule(path), nn.Linear | Conv1D)} - set(
        linear.values()
    )
    found = {
        name: _FUSED if _is_fused(name, base) else _OTHER if name in others else "" for name in set(linear.values())
    }
    return dict(sorted((found | dict.fromkeys(odd, _OTHER)).items()))


def _paths(base: PreTrainedModel) -> list[tuple[str, str]]:
    """The path and the last name of every module but the head."""
    head = base.get_output_embeddings()
    return [(path, path.rpartition(".")[2]) for path, module in base.named_modules() if path and module is not head]


def _linear_paths(base: PreTrainedModel) -> list[tuple[str, str]]:
    return [(path, name) for path, name in _paths(base) if _is_linear(base.get_submodule(path))]


@torch.no_grad()
def _is_linear(module: nn.Module) -> bool:
    """Whether a layer's answer is its weight's product, of which a LoRA can be a part.

    A subclass may answer something else, as routers do.
    """
    if not isinstance(module, nn.Linear | Conv1D):
        return False
    if type(module) in (nn.Linear, Conv1D):
        return True
    row = torch.ones(1, module.weight.shape[isinstance(module, nn.Linear)])
    try:
        said = module(row)
    except Exception:  # it wants another input, or more of them
        return False
    product = nn.functional.linear(
        row, module.weight if isinstance(module, nn.Linear) else module.weight.T, module.bias
    )
    return (
        isinstance(said, Tensor) and said.shape == product.shape and torch.allclose(said, product, rtol=1e-4, atol=1e-5)
    )


def _is_fused(name: str, base: PreTrainedModel) -> bool:
    """Whether PEFT takes this name for a part of the fused experts."""
    config = LoraConfig(target_modules=[name], task_type="CAUSAL_LM")
    try:
        convert_peft_config_for_transformers(config, base, None)
    except ValueError:  # a part that cannot be had without the others
        return True
    return name not in (config.target_modules or ())
