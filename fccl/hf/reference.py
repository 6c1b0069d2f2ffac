"""The reference policy of VA rounds in a trainer's model: the adapter that TRL calls `ref`.

TRL's `DPOTrainer` takes the reference's log-probabilities under the adapter `ref` where the model has one, and under
the bare base model where it has none. It makes `ref` itself, as a copy of the adapter that a `PeftModel` comes with.
Here it always is there and holds the last SFT global adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer

from fccl.adapters.adapter import Adapter
from fccl.errors import ModelError
from fccl.hf.lora import REFERENCE, TRAINED, factors_of, form_of, load

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")  # where TRL keeps what it has computed beforehand


def hold_reference(trainer: Trainer, reference: Adapter, is_new: bool) -> None:
    """Load the reference adapter; with `is_new`, make the trainer's cached log-probabilities anew.

    Raises `ModelError` where the model's `ref` adapter is not of the federation's form, or cached columns cannot be
    made anew.
    """
    model = trainer.model
    if REFERENCE not in model.peft_config:
        _add(model)
    factors = factors_of(model, REFERENCE)
    if form_of(factors) != reference.form:
        raise ModelError(f"the model's adapter {REFERENCE} is not of the federation's form", "leave it to the trainer")
    load(factors, reference)
    for factor in factors.values():
        factor.requires_grad_(False)
    if is_new and getattr(trainer.args, "precompute_ref_log_probs", False):
        _refresh(trainer)


def _add(model: PeftModel) -> None:
    config = copy(model.peft_config[TRAINED])
    config.lora_dropout = 0.0  # a reference is what it is in every step
    model.add_adapter(REFERENCE, config)


def _refresh(trainer: Trainer) -> None:
    if not hasattr(trainer, "compute_ref_log_probs"):
        raise ModelError(
            "the trainer's cached reference log-probabilities cannot be made anew",
            hint="give precompute_ref_log_probs=False",
        )
    args = trainer.args
    own = args.precompute_ref_batch_size
    trainer.train_dataset = with_reference(trainer, trainer.train_dataset, own or args.per_device_train_batch_size)
    held, size = trainer.eval_dataset, own or args.per_device_eval_batch_size
    if isinstance(held, Mapping):
        trainer.eval_dataset = {name: with_reference(trainer, each, size) for name, each in held.items()}
    elif held is not None:
        trainer.eval_dataset = with_reference(trainer, held, size)


@torch.no_grad()
def with_reference(trainer: Trainer, dataset: Any, batch_size: int) -> Any:
    """The dataset with the reference's log-probabilities of every pair, in the place of those that it has."""
    plain = dataset.remove_columns([name for name in COLUMNS if name in dataset.column_names])
    trainer.model.eval()
    found: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for batch in DataLoader(plain, batch_size=batch_size, collate_fn=trainer.data_collator):
        inputs = {name: _placed(value, trainer) for name, value in batch.items()}
        for name, values in zip(COLUMNS, trainer.compute_ref_log_probs(trainer.model, inputs), strict=True):
            found[name] += values.float().tolist()  # (pairs,)
    for name, numbers in found.items():
        plain = plain.add_column(name, numbers)
    return plain


def _placed(value: Any, trainer: Trainer) -> Any:
    return value.to(trainer.accelerator.device) if isinstance(value, Tensor) else value
