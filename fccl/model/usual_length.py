"""The length of prompt and response where nobody names one: the model's own context, read without its weights."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoConfig
from transformers.utils.peft_utils import find_adapter_config_file

from fccl.model.base_model import anywhere, positions, quiet
from fccl.presets import MOST_TOKENS

_MOST_ADAPTERS = 8  # one on top of the other, as when the model is loaded


def usual_length(name: str) -> int:
    """The model's context in tokens, at most 1,024. Raises `ModelError` when its configuration cannot be had.

    >>> usual_length("builtin:micro")
    512
    """
    quiet()
    for _ in range(_MOST_ADAPTERS):
        found = anywhere(name, _context_or_base)
        if not isinstance(found, str):
            return min(found or MOST_TOKENS, MOST_TOKENS)
        name = found
    return MOST_TOKENS  # adapters in a circle: loading the model names them


def _context_or_base(path: str, offline: bool) -> int | str | None:
    """The positions of a model; of an adapter, the name of the model below it."""
    if (adapter := find_adapter_config_file(path, local_files_only=offline)) is None:
        return positions(AutoConfig.from_pretrained(path, local_files_only=offline))
    base = json.loads(Path(adapter).read_text("utf-8")).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None
