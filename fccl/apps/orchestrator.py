"""`fccl orchestrator`: a federation whose clients are other processes, over an exchange directory.

Started again with the same settings it goes on with the run that is in `LOG_DIR`, and does nothing when that is
finished: whoever restarts it after a crash need not know how far it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from fccl.apps.console import plain_console, telling
from fccl.apps.output import terminate_as_interrupt
from fccl.apps.run_setup import prepared_run, workable
from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.federation.run import new_run
from fccl.federation.run_folder import RunFolder
from fccl.keys import server_keys
from fccl.library.narrow import FREE_TO_CHANGE, recorded_settings, settled
from fccl.library.places import require_apart
from fccl.model.loading import Models
from fccl.paths import DataPaths, ExchangePaths, KeyPaths
from fccl.records.run import RunEvent
from fccl.storage.files import sha256_of
from fccl.storage.reading import read_records
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.protocol import RunIdentity


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run, or go on with the run that is here; then evaluate. Returns the exit status."""
    console = plain_console()
    settings = settled(settings, telling(console), options.given)
    folder = RunFolder.at(settings.log_dir)
    require_apart(settings, ("data_dir", "log_dir", "exchange_dir", "keys_dir"))
    seen, here = folder.info(), "other" if options.new else standing(folder, settings)
    if here == "finished" and not options.resume:
        where = (
            f"The run in {folder.paths.root}/ has these settings and is finished. --new begins another, and keeps "
            "this one in runs/."
        )
        console.print(where, highlight=False, soft_wrap=True)
        return 0
    if resume := options.resume or here == "unfinished":
        settings = recorded_settings(folder, settings, options.given)
    require_original_clients(settings)
    keys = server_keys(KeyPaths(Path(settings.keys_dir))) if settings.keys_dir else None
    if keys and keys.warning:
        console.print(keys.warning, highlight=False, soft_wrap=True)
    exchange = ExchangeTransport(
        ExchangePaths(settings.exchange_dir), settings.exchange_spec(), folder.paths.received, keys
    )
    workable(settings, folder)  # before anything is cleared away
    with terminate_as_interrupt(), exchange as transport, folder.held(seen):
        identity = RunIdentity(seen.run_id, seen.created) if resume and seen is not None else new_run()
        transport.begin(identity)  # before the model is there: an idle client would take an earlier run's end for ours
        way_on = "Start the orchestrator again to go on"
        with prepared_run(settings, console, folder, Models(), way_on, identity=identity) as command:
            command.run.listener.told(
                f"Clients are awaited in {settings.exchange_dir}/: start `fccl client --client-id i` for every i "
                f"from 0 to {settings.num_clients - 1}."
            )
            command.conduct(transport, resume)
            transport.require_here()
    return 0


def require_original_clients(settings: Settings) -> None:
    """Raises `SettingsError` when peers that know only the original files cannot take part in this federation."""
    obstacles = {
        f"KEYS_DIR={settings.keys_dir}: they sign nothing": bool(settings.keys_dir),
        "AGGREGATION=scaffold: they have no control variate to send": settings.aggregation == "scaffold",
        "LORA_AGGREGATION=exact: the adapter becomes wider than theirs": settings.lora_aggregation == "exact",
        "LORA_AGGREGATION=freeze_a: they train A as well as B": settings.lora_aggregation == "freeze_a",
    }
    for obstacle, is_there in obstacles.items():
        if settings.original_client_ids and is_there:
            raise SettingsError(
                f"ORIGINAL_CLIENTS={settings.original_clients} does not go with {obstacle}",
                hint="leave one of the two out",
            )


def standing(folder: RunFolder, settings: Settings) -> Literal["finished", "unfinished", "other"]:
    """The state of the run in the log folder; `other` when there is none, or it has other settings or other data."""
    info, state, manifest = folder.info(), folder.state(), DataPaths(settings.data_dir).manifest
    if info is None or state is None:
        return "other"
    same = all(
        info.settings.get(name) == str(value)
        for name, value in settings.model_dump().items()
        if name not in FREE_TO_CHANGE
    )
    if not same or (manifest.is_file() and sha256_of(manifest) != info.data_sha256):
        return "other"
    evaluated = not settings.evaluate or folder.paths.evaluation_json.is_file()
    return "finished" if state.finished and evaluated and _has_finished(folder) else "unfinished"


def _has_finished(folder: RunFolder) -> bool:
    return bool(read_records(folder.paths.progress, RunEvent, lambda row: row.get("event") == "finished"))
