"""A run's adapter, or its base model, in the formats of others, in a new folder."""

from __future__ import annotations

from pathlib import Path

from fccl.adapters.adapter import Adapter
from fccl.config import Settings
from fccl.errors import StorageError
from fccl.library.places import require_apart
from fccl.model.card import CardWriter
from fccl.model.export import save_merged, save_peft
from fccl.model.language_model import LanguageModel
from fccl.records.manifest import Manifest
from fccl.specs import RoundPlan
from fccl.storage.temporary import sweep_for


def require_new(settings: Settings, out: Path) -> None:
    """Raises `StorageError` when `out` exists, `SettingsError` when it lies among the run's own files; clears away what
    an earlier export left half-written.
    """
    require_apart(settings, ("data_dir", "log_dir"), str(out))
    if out.exists():
        raise StorageError(f"{out} exists already", hint="name a folder that does not exist yet")
    sweep_for(out)


def write_adapter(
    settings: Settings,
    plan: RoundPlan,
    model: LanguageModel,
    manifest: Manifest,
    adapter: Adapter | None,
    out: Path,
    merge: bool,
) -> Path:
    """Write the adapter in PEFT's format, with `merge` folded into the base model; without any, the base model alone.

    Raises `StorageError`.
    """
    cards = CardWriter(settings.model_spec(), model.made_of, plan, manifest)
    if adapter is None:
        save_merged(model, model.initial_adapter(0), out, cards.base())  # which changes nothing
    elif merge:
        save_merged(model, adapter, out, cards.merged(adapter))
    else:
        save_peft(model, adapter, out, cards.adapter(adapter))
    return out
