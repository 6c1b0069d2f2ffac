"""`START_FROM`: the adapter that a run starts from, out of a file that somebody else may have written.

Nothing in it is believed. Its length is looked at before it is read, and no code of it is run. Its names and shapes
must be those of the run's LoRA (`fccl.adapters.tensor_files`, `fccl.adapters.torch_files`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.middle import has_middle
from fccl.adapters.stored import AdapterReader
from fccl.display.plain_text import printable
from fccl.errors import AdapterError, SettingsError
from fccl.federation.bounds import LARGEST
from fccl.specs import ModelSpec
from fccl.storage.files import read_whole, storage_errors
from fccl.storage.reading import NotJson, json_value
from fccl.transports.exchange.original import OriginalReader

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # in PEFT's folder of an adapter
_MOST_CONFIG = 2**20  # bytes
_LIKE = "the run's LoRA must be the adapter's: --lora-r, --lora-alpha, --lora-targets and --lora-layers say which it is"
_MIDDLE = "LORA_AGGREGATION=fed_sb starts from the global adapter of such a run, LOG_DIR/global_final.safetensors"
_FORMS = "it may be a folder of PEFT, such as LOG_DIR/adapter, a .safetensors file, or a .pt file of torch.save"
# What PEFT writes of a LoRA that is more than two factors a module. Such a part would be lost.
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
}


def start_adapter(path: Path, spec: ModelSpec, form: Form) -> Adapter:
    """The adapter in PEFT's folder, a `.safetensors` or a `.pt` file; `form` has the shapes of the run's LoRA.

    Raises `SettingsError` when it is none, or one of another LoRA, `StorageError` when it cannot be read.
    """
    try:
        if path.is_dir():
            _require_same_lora(path / CONFIG, spec)
            return _usable(_read(path / WEIGHTS, AdapterReader(form)))
        return _usable(_read(path, OriginalReader(form) if path.suffix == ".pt" else AdapterReader(form)))
    except AdapterError as error:
        said = str(error)
        rest = said.removeprefix(printable(path.name))  # a reader names the file, which the setting has named already
        named = f"START_FROM={printable(str(path))}"
        raise SettingsError(
            f"{named}{rest}" if rest != said else f"{named}: {said}",
            hint=error.hint or (_MIDDLE if has_middle(form) else _LIKE),
        ) from error


def _read(path: Path, reader: AdapterReader | OriginalReader) -> Adapter:
    """Raises `AdapterError` before a file that is too long is read."""
    _require_length(path, reader.max_bytes)
    return reader.read(read_whole(path), printable(path.name))


def _usable(adapter: Adapter) -> Adapter:
    """Raises `AdapterError` when it has numbers that no update may have."""
    if adapter.largest > LARGEST:
        raise AdapterError(
            f"it has a number of size {adapter.largest:.3g}", hint=f"updates have at most {LARGEST:,.0f}"
        )
    return adapter


def _require_length(path: Path, most: int) -> None:
    if not path.exists():
        within = path.name in (WEIGHTS, CONFIG) and path.parent.is_dir()
        raise AdapterError(f"there is no {path.name} in it" if within else "there is no such file", hint=_FORMS)
    with storage_errors(path, "read"):
        length = os.stat(path).st_size
    if length > most:
        raise AdapterError(f"{printable(path.name)} has {length:,} bytes, an adapter of the run at most {most:,}")


def _require_same_lora(path: Path, spec: ModelSpec) -> None:
    """Raises `AdapterError` unless PEFT's configuration is of a plain LoRA with the run's rank and scale."""
    _require_length(path, _MOST_CONFIG)
    try:
        said = json_value(read_whole(path))
    except NotJson as error:
        raise AdapterError(f"{path.name} {error}", hint=_FORMS) from error
    if not isinstance(said, dict):
        raise AdapterError(f"{path.name} is no object", hint=_FORMS)
    for name, allowed in _PLAIN.items():
        if said.get(name, allowed[0]) not in allowed:
            shown = printable(f"{name}={said[name]!r}", 100)
            raise AdapterError(f"its {path.name} has {shown}", hint="a run has plain LoRA factors and nothing else")
    _require_scale(path.name, said, spec)


def _require_scale(name: str, said: Mapping[str, Any], spec: ModelSpec) -> None:
    rank, alpha = said.get("r"), said.get("lora_alpha")
    if type(rank) is not int or type(alpha) not in (int, float) or (rank, alpha) != (spec.lora_r, spec.lora_alpha):
        has = printable(f"rank {rank} and alpha {alpha}", 100)
        raise AdapterError(f"its {name} has {has}, the run rank {spec.lora_r} and alpha {spec.lora_alpha:g}")
