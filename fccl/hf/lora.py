"""The LoRA of a trainer's model: its factors by the names that travel, and whether it is the federation's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.middle import has_middle
from fccl.adapters.ranks import rank_of
from fccl.errors import AdapterError, ModelError
from fccl.messages import EvaluateTask, FitTask

TRAINED, REFERENCE = "default", "ref"  # PEFT's name of a model's first adapter; TRL's of the reference policy's
_WRAPPED = "base_model.model."  # what PEFT puts before a base model's names


def factors_of(model: PeftModel, adapter: str = TRAINED) -> dict[str, nn.Parameter]:
    """The factors of one of the model's adapters, by the names that PEFT saves, sorted."""
    mark = re.compile(rf"(\.lora_\w+)\.{adapter}(?=\.|$)")
    found = {mark.sub(r"\1", name): each for name, each in model.named_parameters() if mark.search(name)}
    return dict(sorted(found.items()))


@torch.no_grad()
def load(factors: Mapping[str, nn.Parameter], adapter: Adapter) -> None:
    """Copy an adapter's values into the factors, which have its form."""
    for name, factor in factors.items():
        factor.copy_(adapter.tensors[name])


def read(factors: Mapping[str, nn.Parameter]) -> Adapter:
    """A copy of the factors as they are now. Raises `AdapterError` when they are not finite."""
    return Adapter({name: factor.detach().float().cpu().clone() for name, factor in factors.items()})


def form_of(factors: Mapping[str, nn.Parameter]) -> Form:
    """Their names and shapes."""
    return Form({name: tuple(factor.shape) for name, factor in factors.items()})


def require_same_lora(model: nn.Module, task: FitTask | EvaluateTask) -> None:
    """Raises `ModelError` unless the model trains the federation's LoRA and nothing else, under PEFT's usual name."""
    hint = f"make it with {config_of(task)}"
    if not isinstance(model, PeftModel):
        raise ModelError("the trainer's model has no LoRA", hint)
    if list(model.active_adapters) != [TRAINED]:
        active = ", ".join(model.active_adapters)
        raise ModelError(f"the trainer trains the adapter {active}, not {TRAINED}", "leave adapter_name out")
    factors = factors_of(model)
    _require_same_modules(model, modules_of(factors), modules_of(task.adapter.form.shapes), hint)
    _require_same_shapes(form_of(factors), task, hint)
    _require_same_scale(model, task, hint)
    _require_nothing_else(model, factors)


def config_of(task: FitTask | EvaluateTask) -> str:
    """The `LoraConfig` of the federation, as it is written in a script."""
    names = sorted({path.rpartition(".")[2] for path in modules_of(task.adapter.form.shapes)})
    said = f"LoraConfig(r={task.model.lora_r}, lora_alpha={task.model.lora_alpha:g}, target_modules={names}"
    layers = sorted({int(number) for path in task.adapter.form.shapes for number in re.findall(r"\.(\d+)\.", path)[:1]})
    return said + (f", layers_to_transform={layers})" if task.model.lora_layers else ")")


def modules_of(names: Iterable[str]) -> set[str]:
    """The modules of the base model that factors of these names belong to."""
    return {name.rpartition(".lora_")[0].removeprefix(_WRAPPED) for name in names}


def _require_same_modules(model: PeftModel, mine: set[str], wanted: set[str], hint: str) -> None:
    there = {name for name, _ in model.get_base_model().named_modules()}
    if strange := sorted(wanted - there):
        raise ModelError(f"the trainer's base model is another: it has no {_few(strange)}", "load the federation's")
    if missing := sorted(wanted - mine):
        raise ModelError(f"the trainer's LoRA is not on {_few(missing)}, the federation's is", hint)
    if extra := sorted(mine - wanted):
        tied = ", whose weights are tied" if _are_tied(model) and extra[0].endswith("lm_head") else ""
        raise ModelError(f"the trainer's LoRA is also on {_few(extra)}{tied}, the federation's is not", hint)


def _are_tied(model: PeftModel) -> bool:
    return bool(getattr(model.get_base_model().config, "tie_word_embeddings", False))


def _require_same_shapes(mine: Form, task: FitTask | EvaluateTask, hint: str) -> None:
    wanted = task.adapter.form
    if has_middle(wanted):
        raise ModelError(
            "LORA_AGGREGATION=fed_sb: a trainer's LoRA has no matrix between its factors",
            hint="a federation with trainers takes another LORA_AGGREGATION than fed_sb",
        )
    if rank_of(wanted) != task.model.lora_r:
        raise ModelError(
            f"the global adapter has rank {rank_of(wanted)}, a trainer's LoRA no more than LORA_R={task.model.lora_r}",
            hint="a federation with trainers takes another LORA_AGGREGATION than exact",
        )
    if rank_of(mine) != rank_of(wanted):
        raise ModelError(f"the trainer's LoRA has rank {rank_of(mine)}, the federation's {rank_of(wanted)}", hint)
    try:
        wanted.require(mine)
    except AdapterError as error:
        raise ModelError(f"the trainer's LoRA or its base model is another: {error}", hint) from error


def _require_same_scale(model: PeftModel, task: FitTask | EvaluateTask, hint: str) -> None:
    """LoRA adds scale · B A. The scale is alpha / r, unless rsLoRA or a pattern of its own makes it another."""
    wanted = task.model.lora_alpha / task.model.lora_r
    for module in model.modules():
        found = module.scaling.get(TRAINED, wanted) if isinstance(module, LoraLayer) else wanted
        if abs(found - wanted) > 1e-6 * wanted:
            raise ModelError(
                f"the trainer's LoRA is scaled by {found:g}, the federation's by {wanted:g} (lora_alpha / r)", hint
            )


def _require_nothing_else(model: PeftModel, factors: Mapping[str, nn.Parameter]) -> None:
    mine = {id(factor) for factor in factors.values()}
    if others := [name for name, each in model.named_parameters() if each.requires_grad and id(each) not in mine]:
        raise ModelError(
            f"the trainer also trains {_few(others)}, which does not travel",
            hint="leave modules_to_save, bias and trainable tokens out of its LoraConfig",
        )


def _few(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
