"""`fccl client`: one client of a federation that is run over an exchange directory. It ends when the run is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fccl.apps.client_screen import ClientScreen
from fccl.apps.console import plain_console
from fccl.apps.output import terminate_as_interrupt
from fccl.config import Settings
from fccl.data.shards import ClientShard, load_shard
from fccl.errors import SettingsError
from fccl.keys import Keys, client_keys
from fccl.library.places import require_apart
from fccl.paths import DataPaths, ExchangePaths, KeyPaths, StatePaths
from fccl.storage import temporary
from fccl.storage.cache import Cache
from fccl.storage.locks import exclusive, in_use
from fccl.storage.private import private_folder
from fccl.training.learner import GenericLearner
from fccl.training.references import References
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.memory import Memory
from fccl.transports.protocol import Listener


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Train whenever the server asks for it. Returns the exit status."""
    require_own_rank(settings)
    require_apart(settings, ("data_dir", "exchange_dir", "keys_dir", "state_dir"))
    data = DataPaths(settings.data_dir)
    keys = client_keys(KeyPaths(Path(settings.keys_dir)), settings.client_id) if settings.keys_dir else None
    with (
        terminate_as_interrupt(),
        ClientScreen(plain_console(), settings.client_id) as screen,
        memory_of(StatePaths(settings.state_dir), settings.client_id, keys, screen.tell) as memory,
    ):
        if keys and keys.warning:
            screen.tell(keys.warning)
        screen.tell(f"waiting for rounds in {settings.exchange_dir}/")
        ExchangeClient(
            ExchangePaths(settings.exchange_dir),
            settings.client_id,
            GenericLearner(ranks=settings.client_ranks, references=References(cache_of(settings, screen.tell))),
            partial(own_shard, data),
            keys=keys,
            memory=memory,
            heartbeat_s=settings.heartbeat_s,
            watch=settings.exchange_watch,
            listen=Listener(screen.status, screen.tell),
        ).run()
        screen.tell("the run is done")
    return 0


def own_shard(data: DataPaths, client_id: int) -> ClientShard:
    """The client's shard, read while nobody prepares it anew."""
    with in_use(data.lock, f"the data in {data.root}/"):
        return load_shard(data, client_id)


def cache_of(settings: Settings, tell: Callable[[str], None]) -> Cache:
    """The client's cache in its private folder."""
    folder = StatePaths(settings.state_dir).cache(settings.client_id)
    return Cache(folder, settings.cache_mb * 1_000_000, tell)


@contextmanager
def memory_of(
    paths: StatePaths, client_id: int, keys: Keys | None, tell: Callable[[str], None]
) -> Iterator[Memory | None]:
    """Make the client's private folder, and hold what it remembers there while the block runs; without keys, nothing.

    Raises `StorageError` when the folder cannot be private or its content is damaged, `FederationError` when another
    process holds it.
    """
    if warning := private_folder(paths.client(client_id)):
        tell(warning)
    if keys is None:
        yield None
        return
    with exclusive(paths.lock(client_id), f"client {client_id}", needed=False):
        temporary.sweep(paths.client(client_id))
        memory = Memory(paths.answered(client_id), keys.public.server)
        memory.recall()
        yield memory


def require_own_rank(settings: Settings) -> None:
    """Raises `SettingsError` when the settings give ranks to other clients alone."""
    if 1 < len(settings.client_ranks) <= settings.client_id:
        raise SettingsError(
            f"CLIENT_LORA_R={settings.client_lora_r} has no rank for client {settings.client_id}",
            hint="give one for all, or one for each",
        )
