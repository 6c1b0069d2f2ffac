"""`fccl export`: the global adapter in PEFT's format, or folded into a plain model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from fccl.adapter import load_adapter
from fccl.apps.console import plain_console
from fccl.checkpoint import RunFolder
from fccl.config import Settings, load_settings
from fccl.data.shards import read_manifest
from fccl.errors import FederationError, StorageError
from fccl.export import save_merged, save_peft
from fccl.journal import Journal
from fccl.model import load_model
from fccl.model_card import adapter_card
from fccl.paths import LogPaths


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write one global adapter of the run in `LOG_DIR` to the folder named. Returns the exit status."""
    out, paths = Path(options.out), LogPaths(settings.log_dir)
    if out.exists():
        raise StorageError(f"{out} exists already", hint="name a folder that does not exist yet")
    source = paths.global_sft if options.phase == "sft" else paths.global_final
    info = RunFolder(paths, Journal(paths)).info()
    if info is None or not source.is_file():
        raise FederationError(f"{source} is not there", hint="it is written by `fccl run`, at the end of its phase")
    adapter = load_adapter(source)
    recorded = load_settings(info.settings)
    model = load_model(recorded.model_spec())
    card = adapter_card(recorded.model_spec(), recorded.round_plan(), read_manifest(paths), adapter)
    (save_merged if options.merge else save_peft)(model, adapter, out, card)
    plain_console().print(f"Wrote {out}/: {'a plain model folder' if options.merge else 'the adapter in PEFT format'}.", soft_wrap=True)
    return 0
