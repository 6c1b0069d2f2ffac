"""The result in formats that others read: PEFT's adapter folder with a model card, and a plain model folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from safetensors import SafetensorError

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import rank_of
from fccl.model.base_model import public_name
from fccl.model.language_model import LanguageModel
from fccl.storage.files import give_usual_modes, new_folder, replace_folder, storage_errors, write_text


def save_peft(model: LanguageModel, adapter: Adapter, folder: Path, card: str) -> None:
    """Write `adapter` as PEFT does, with `card` as its README.md; an earlier folder of this name is replaced as a
    whole.

    A wider adapter than the model's LoRA is written whole: its rank as r, and lora_alpha such that alpha / r stays the
    same. `PeftModel.from_pretrained(base, folder)` reads it. The configuration names the base model if its name means
    the same elsewhere. The same adapter gives the same bytes. Raises `StorageError`.
    """
    model.load(adapter)
    spec, configs = model.spec.of_rank(rank_of(adapter.form)), model.model.peft_config
    own, config = configs["default"], copy(configs["default"])
    config.r, config.lora_alpha = spec.lora_r, spec.lora_alpha
    for name, value in vars(config).items():
        if isinstance(value, set):  # whose order is another in every process
            setattr(config, name, sorted(value))
    tensors = {name.removesuffix(".weight") + ".default.weight": tensor for name, tensor in adapter.tensors.items()}
    with _new_folder(folder) as new:
        configs["default"] = config
        try:
            model.model.save_pretrained(
                new, state_dict=tensors, save_embedding_layers=False
            )  # they are the base model's, untouched
        finally:
            configs["default"] = own
        _name_base(new / "adapter_config.json", public_name(model.made_of[0]) if len(model.made_of) == 1 else None)
        write_text(new / "README.md", card)


def _name_base(path: Path, name: str | None) -> None:
    """Put the base model's name, or none, where PEFT has written what was loaded: a path of this machine, or half of
    what a checkpoint is.
    """
    written = json.loads(path.read_text("utf-8"))
    write_text(path, json.dumps(written | {"base_model_name_or_path": name}, indent=2, sort_keys=True) + "\n")


def save_merged(model: LanguageModel, adapter: Adapter, folder: Path, card: str) -> None:
    """Write the base model with the adapter folded in, and its tokenizer: a folder that transformers loads without
    PEFT.

    The model that is passed in is left as it was, with `adapter` loaded. Raises `StorageError`.
    """
    model.load(adapter)
    with _new_folder(folder) as new:
        model.model.merge_adapter()
        try:
            state = {
                name.replace(".base_layer", ""): tensor
                for name, tensor in model.base.state_dict().items()
                if "lora_" not in name
            }
            model.base.save_pretrained(new, state_dict=state)
        finally:
            model.model.unmerge_adapter()
        model.tokenizer.save_pretrained(new)
        write_text(new / "README.md", card)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well. Raises `StorageError`."""
    try:
        with new_folder(folder) as new:
            yield new
            give_usual_modes(new)
            replace_folder(new, folder)
    except (OSError, SafetensorError) as error:
        if (refusal := _refusal_of_the_disk(error)) is None:
            raise
        with storage_errors(folder):
            raise refusal from error


def _refusal_of_the_disk(error: BaseException | None) -> OSError | None:
    """The OSError that `error` is, or that safetensors, which has an error of its own for everything, tells of in its
    message.
    """
    if isinstance(error, OSError):
        return error
    told = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None
