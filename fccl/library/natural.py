"""Clients of data that names them, and of data that is the server's alone."""

from __future__ import annotations

from fccl.config import Settings
from fccl.data.in_use import SILENT, Witness, data_in_use
from fccl.errors import SettingsError
from fccl.library.narrow import data_spec
from fccl.paths import DataPaths


def with_named_clients(settings: Settings, witness: Witness = SILENT) -> Settings:
    """The settings with the number of clients that CLIENT_COLUMN finds; as they are without one.

    Only prepared data can say it, so the data is prepared where it is not there yet. Raises what `data_in_use` raises.
    """
    if not settings.client_column:
        return settings
    with data_in_use(data_spec(settings), DataPaths(settings.data_dir), witness) as manifest:
        return settings.model_copy(update={"num_clients": manifest.spec.partition.num_clients})


def require_shards(settings: Settings) -> None:
    """Raises `SettingsError` for a run in this process whose clients would have no data."""
    if settings.some_declare:
        which = "SERVER_ONLY=true" if settings.server_only else f"OWN_DATA_CLIENTS={settings.own_data_clients}"
        raise SettingsError(
            f"{which}: the clients of a run in one process have no data of their own",
            hint="use `fccl orchestrator`, and `fccl client --sft-data FILE` for each client",
        )
