"""Whether a trainer's base model is the federation's, as far as that can be seen from here."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor

from fccl.errors import ModelError
from fccl.hf.lora import modules_of
from fccl.messages import EvaluateTask, FitTask
from fccl.model.base_model import base_path, public_name

_NEAR = 0.02  # as a share of the largest weight: bf16 is nearer, another training is farther


def require_same_base(model: PeftModel, task: FitTask | EvaluateTask) -> None:
    """Raises `ModelError` where the base model is seen to be another.

    Two names of a hub are compared. Where the federation's model lies on this machine, as the built-in one does, the
    weights of one layer are. Else names and shapes of the LoRA must do.
    """
    name, wanted = str(getattr(model.get_base_model().config, "_name_or_path", "")), task.model.name
    hub = {public_name(each) for each in (name, wanted) if each}
    if len(hub) > 1 and None not in hub:
        raise ModelError(f"the trainer's base model is {name}, the federation's {wanted}", f"load {wanted}")
    layer = min(modules_of(task.adapter.form.shapes))
    mine, theirs = _own_weight(model, layer), stored_weight(Path(base_path(wanted)), layer)
    if mine is None or theirs is None or mine.shape != theirs.shape:  # packed, or not there
        return
    if float((mine - theirs).abs().max()) > _NEAR * float(theirs.abs().max()):
        raise ModelError(
            f"the trainer's base model is another: the weights of {layer} are not those of {wanted}", f"load {wanted}"
        )


def _own_weight(model: PeftModel, layer: str) -> Tensor | None:
    module = model.get_base_model().get_submodule(layer)
    weight = getattr(getattr(module, "base_layer", module), "weight", None)
    return weight.detach().float().cpu() if isinstance(weight, Tensor) and weight.is_floating_point() else None


def stored_weight(folder: Path, layer: str) -> Tensor | None:
    """The weight of a layer in a folder of safetensors; None where there is none, or an adapter goes on top of it."""
    wanted = f".{layer}.weight"
    if (folder / "adapter_config.json").exists():
        return None
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            key = next((key for key in file.keys() if wanted.endswith(f".{key}")), None)  # noqa: SIM118 - no mapping
            if key is not None:
                return torch.as_tensor(file.get_tensor(key)).float()
    return None
