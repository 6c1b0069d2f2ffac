"""`fccl export`: the global adapter in PEFT's format, a client's personal one, the base model, or both in one."""

from __future__ import annotations

import argparse
from pathlib import Path

from fccl import phases
from fccl.adapters.adapter import adapter_file, load_adapter
from fccl.apps.console import plain_console
from fccl.config import Settings
from fccl.data.shards import read_manifest
from fccl.errors import FederationError, SettingsError
from fccl.federation.run_folder import RunFolder
from fccl.library.export import require_new, write_adapter
from fccl.library.narrow import plan_as_it_went, settings_of
from fccl.library.personal_export import personal_record, write_personal
from fccl.model.loading import Models
from fccl.paths import LogPaths
from fccl.records.journal import Journal


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write one global adapter of the run in `LOG_DIR`, or its base model, to the folder named.

    Returns the exit status.
    """
    out, paths = Path(options.out), LogPaths(settings.log_dir)
    if options.run and options.personal is None:
        raise SettingsError("--run has no effect without --personal", hint="leave it out; --log-dir names a run")
    if options.merge and options.base:
        raise SettingsError(
            "--merge writes base model and adapter as one, --base the base model alone", hint="leave one of them out"
        )
    require_new(settings, out)
    if options.personal is not None:
        return _personal(settings, options, out)
    source = paths.run if options.base else paths.global_sft if options.phase == "sft" else paths.global_final
    if not adapter_file(source).is_file():
        raise FederationError(f"{source} is not there", hint="it is written by `fccl run`, at the end of its phase")
    folder = RunFolder(paths, Journal(paths))
    recorded = settings_of(folder.recorded("export"))
    adapter = None if options.base else load_adapter(source)
    plan, model = plan_as_it_went(recorded, folder), Models().of(recorded.model_spec())
    write_adapter(recorded, plan, model, read_manifest(paths), adapter, out, options.merge)
    plain_console().print(f"Wrote {out}/: {_form(options)}.", soft_wrap=True)
    return 0


def _personal(settings: Settings, options: argparse.Namespace, out: Path) -> int:
    """Write a client's personal adapter, which lies in its private folder. Returns the exit status."""
    if options.base:
        raise SettingsError("--personal writes an adapter, --base the base model alone", hint="leave one of them out")
    record = personal_record(settings.state_dir, options.personal, options.phase, options.run)
    write_personal(settings.state_dir, record, out, options.merge)
    said = f"the personal adapter of client {record.client_id} after {phases.of(record.phase).title}"
    plain_console().print(f"Wrote {out}/: {said}, {_form(options)}.", soft_wrap=True)
    return 0


def _form(options: argparse.Namespace) -> str:
    """The form of what was written, in words."""
    if options.base:
        return "the base model as a plain model folder"
    return "a plain model folder" if options.merge else "the adapter in PEFT format"
