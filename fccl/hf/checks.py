"""Whether a trainer can take part at all, whether it can do a task, and what is said where it does another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import Trainer

from fccl import phases
from fccl.errors import DataError, ModelError, SettingsError
from fccl.hf.lora import factors_of
from fccl.messages import FitTask
from fccl.model.chat_template import template_sha256
from fccl.specs import Phase, PreferenceSpec, TextForm


def require_usable(trainer: Trainer, phase: Phase) -> None:
    """Raises `SettingsError` for a trainer that no round can be trained with, `DataError` for one without examples."""
    if not isinstance(trainer, Trainer):
        raise SettingsError(
            f"{phase}={type(trainer).__name__} is no transformers Trainer", "give it the trainer itself"
        )
    _require_starts_anew(trainer, phase)
    _require_one_device(trainer, phase)
    _require_examples(trainer, phase)
    if getattr(trainer, "ref_model", None) is not None:
        raise SettingsError(f"{phase}: the trainer has a reference model of its own", "leave ref_model out")
    halves = [name for name, each in factors_of(trainer.model).items() if each.dtype == torch.float16]
    if halves and trainer.args.fp16:
        raise SettingsError(
            f"{phase}: fp16=True cannot train factors in float16 ({halves[0]})",
            hint="leave autocast_adapter_dtype of PEFT at True, so that LoRA is in float32",
        )


def _require_starts_anew(trainer: Trainer, phase: Phase) -> None:
    """A round has an optimiser of its own, and the model that the adapter is loaded into."""
    if trainer.model_init is not None:
        raise SettingsError(f"{phase}: model_init makes another model for every training", "give the trainer a model")
    if trainer.optimizer is not None or trainer.lr_scheduler is not None:
        raise SettingsError(
            f"{phase}: the trainer's optimiser or schedule is an object, which would go on from round to round",
            hint="name it in the trainer's arguments (optim, lr_scheduler_type) or give optimizer_cls_and_kwargs",
        )


def _require_one_device(trainer: Trainer, phase: Phase) -> None:
    if trainer.args.world_size > 1 or trainer.args.n_gpu > 1:
        raise SettingsError(
            f"{phase}: the trainer runs on several devices", "one process and one GPU a client: CUDA_VISIBLE_DEVICES=0"
        )


def _require_examples(trainer: Trainer, phase: Phase) -> None:
    noun = phases.of(phase).noun
    if trainer.train_dataset is None or not hasattr(trainer.train_dataset, "__len__"):
        raise DataError(f"{phase}: the trainer's dataset has no length", "give it a map-style train_dataset")
    if len(trainer.train_dataset) == 0:
        raise DataError(f"{phase}: the trainer's dataset is empty", f"give it one {noun} at least, or no trainer")
    if getattr(trainer.args, "packing", False):
        raise DataError(f"{phase}: packed rows are no examples, which a client counts", "give packing=False")


def require_can_do(task: FitTask) -> None:
    """Raises `ModelError` for a federation whose local training is more than a trainer does."""
    if task.corrections is not None:
        raise ModelError("a trainer has no control variates, which AGGREGATION=scaffold needs", "use another rule")
    if task.train.prox_mu:
        raise ModelError(f"a trainer does not do PROX_MU={task.train.prox_mu:g}", "run the federation without it")


def loss_line(trainer: Trainer, phase: Phase, wanted: PreferenceSpec) -> str:
    """A line where the trainer's preference loss is seen to be another than the federation's, else empty."""
    kinds, beta = getattr(trainer.args, "loss_type", None), getattr(trainer.args, "beta", None)
    if not phases.of(phase).has_pairs or kinds is None or beta is None:
        return ""
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if kinds == [wanted.loss] and abs(beta - wanted.beta) < 1e-9:
        return ""
    mine = f"{' + '.join(map(str, kinds))} with beta {beta:g}"
    return f"the trainer's loss is {mine}, the federation's {wanted.loss} with beta {wanted.beta:g}"


def template_line(trainer: Trainer, wanted: TextForm) -> str:
    """A line where the federation's prompts are written by another chat template than the trainer's, else empty."""
    tokenizer = getattr(trainer, "processing_class", None)
    if not wanted.template or tokenizer is None or template_sha256(tokenizer) == wanted.template:
        return ""
    return "the trainer's chat template is another than the run's, which weighs and validates by its own"


def precision_line(factors: Mapping[str, nn.Parameter]) -> str:
    """A line where the factors are narrower than what travels, else empty."""
    narrow = sorted({str(each.dtype).removeprefix("torch.") for each in factors.values()} - {"float32"})
    return f"the trainer's LoRA is in {narrow[0]}: the round's float32 adapter is rounded to it" if narrow else ""
