"""The result in formats that others read: PEFT's adapter folder with a model card, and a plain model folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fccl.adapters.adapter import Adapter
from fccl.model.language_model import LanguageModel
from fccl.storage.files import give_usual_modes, new_folder, replace_folder, storage_errors, write_text


def save_peft(model: LanguageModel, adapter: Adapter, folder: Path, card: str) -> None:
    """Write `adapter` as PEFT does, with `card` as its README.md; an earlier folder of this name is replaced as a
    whole.

    A wider adapter than the model's LoRA is written whole: its rank as r, and lora_alpha such that alpha / r stays the
    same. `PeftModel.from_pretrained(base, folder)` reads it. The configuration names the base model if its name means
    the same elsewhere. The same adapter gives the same bytes. Raises `StorageError`.
    """
    with _new_folder(folder) as new:
        model.write_adapter(adapter, new)
        write_text(new / "README.md", card)


def save_merged(model: LanguageModel, adapter: Adapter, folder: Path, card: str) -> None:
    """Write the base model with the adapter folded in, and its tokenizer: a folder that transformers loads without
    PEFT.

    The model that is passed in is left as it was, with `adapter` loaded. Raises `StorageError`.
    """
    with _new_folder(folder) as new:
        model.write_merged(adapter, new)
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
