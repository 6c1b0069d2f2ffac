"""`fccl export`: the global adapter in PEFT's format, the base model as a plain folder, or both folded into one."""

from __future__ import annotations

import argparse
from pathlib import Path

from fccl.adapters.adapter import Adapter, adapter_file, load_adapter
from fccl.apps.console import plain_console
from fccl.config import Settings, load_settings
from fccl.data.shards import read_manifest
from fccl.errors import FederationError, SettingsError, StorageError
from fccl.federation.run_folder import RunFolder
from fccl.library.places import require_apart
from fccl.model.card import CardWriter
from fccl.model.export import save_merged, save_peft
from fccl.model.language_model import LanguageModel
from fccl.model.loading import load_model
from fccl.paths import LogPaths
from fccl.records.journal import Journal
from fccl.storage.temporary import sweep


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write one global adapter of the run in `LOG_DIR`, or its base model, to the folder named.

    Returns the exit status.
    """
    out, paths = Path(options.out), LogPaths(settings.log_dir)
    if options.merge and options.base:
        raise SettingsError(
            "--merge writes base model and adapter as one, --base the base model alone", hint="leave one of them out"
        )
    require_apart(settings, ("data_dir", "log_dir"), options.out)
    if out.exists():
        raise StorageError(f"{out} exists already", hint="name a folder that does not exist yet")
    info = RunFolder(paths, Journal(paths)).info()
    source = paths.run if options.base else paths.global_sft if options.phase == "sft" else paths.global_final
    if info is None or not adapter_file(source).is_file():
        raise FederationError(f"{source} is not there", hint="it is written by `fccl run`, at the end of its phase")
    sweep(out.parent, lambda name: name.startswith(f".{out.name}."))
    adapter = None if options.base else load_adapter(source)
    recorded = load_settings(info.settings)
    model = load_model(recorded.model_spec())
    cards = CardWriter(recorded.model_spec(), model.made_of, recorded.round_plan(), read_manifest(paths))
    plain_console().print(f"Wrote {out}/: {_write(model, adapter, out, cards, options.merge)}.", soft_wrap=True)
    return 0


def _write(model: LanguageModel, adapter: Adapter | None, out: Path, cards: CardWriter, merge: bool) -> str:
    """Write what is asked for, and say what it is."""
    if adapter is None:
        save_merged(model, model.initial_adapter(0), out, cards.base())  # which changes nothing
        return "the base model as a plain model folder"
    if merge:
        save_merged(model, adapter, out, cards.merged(adapter))
        return "a plain model folder"
    save_peft(model, adapter, out, cards.adapter(adapter))
    return "the adapter in PEFT format"
