"""`Orchestrator`: a federation from Python whose clients are other processes, over an exchange directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Unpack

from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.federation.run_folder import RunFolder
from fccl.keys import server_keys
from fccl.library.data import Data, Tell, quiet
from fccl.library.federated_run import FederatedRun
from fccl.library.given import WholeOrchestratorArguments
from fccl.library.privacy import require_noise_at_clients
from fccl.library.setup import PreparedRun
from fccl.library.standing import standing
from fccl.messages import Learner
from fccl.paths import ExchangePaths, KeyPaths
from fccl.tracking.listener import RunListener
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.protocol import Transport

OTHER_PROCESSES = "the clients are other processes, and each trains alone"
FOLDERS = ("data_dir", "log_dir", "exchange_dir", "keys_dir")


class Orchestrator(FederatedRun):
    """A `FederatedRun` whose clients are processes of their own: `fccl.Client`, `fccl client`, or your own program
    that speaks docs/protocol.md.

    It waits for the clients in `exchange_dir`. Made again with the same settings it goes on with the run in `log_dir`;
    a loop over it does nothing when that is finished. So a script can simply be started again. `new` begins another run
    even so. All else is as for `FederatedRun`, and the bytes are the same.

    >>> import fccl
    >>> run = fccl.Orchestrator(exchange_dir="exchange", num_clients=2, client_timeout_s=60.0, log_dir="logs-of-two")
    >>> run.finished, run.plan.total_rounds
    (False, 6)
    """

    _name: ClassVar[str] = "fccl.Orchestrator"
    _arguments: ClassVar[type] = WholeOrchestratorArguments
    _folders: ClassVar[tuple[str, ...]] = FOLDERS

    def __init__(
        self,
        data: Data | None = None,
        *,
        new: bool = False,
        resume: bool = False,
        redo_va: bool = False,
        listener: RunListener | None = None,
        tell: Tell = quiet,
        **settings: Unpack[WholeOrchestratorArguments],
    ) -> None:
        self._new = new
        refuse_side_by_side(settings)
        super().__init__(data, resume=resume, redo_va=redo_va, listener=listener, tell=tell, **settings)  # type: ignore[misc]
        require_peers(self.settings)

    def _goes_on(self, settings: Settings) -> bool:
        return not self._new and standing(self._folder, settings) != "other"

    def _each_alone(self, learner: Learner | None) -> str:
        return OTHER_PROCESSES

    def _side_by_side(self, settings: Settings, given: Mapping[str, Any], learner: Learner | None) -> Settings:
        return settings

    def _transport(self) -> Transport:
        return exchange_transport(self.settings, self._folder, self._tell)

    @contextmanager
    def _at_work(self) -> Iterator[tuple[PreparedRun, Transport]]:
        with super()._at_work() as (work, transport):
            self._tell(awaited(self.settings))
            yield work, transport


def refuse_side_by_side(given: Mapping[str, Any]) -> None:
    """Raises `SettingsError` for an argument on how clients of one process train beside each other."""
    for name in ("clients_at_once", "client_processes"):
        if name in given:
            raise SettingsError(
                f"{name.upper()}={given[name]}: {OTHER_PROCESSES}", hint="leave it out; fccl.FederatedRun reads it"
            )


def awaited(settings: Settings) -> str:
    """A line on the clients that a run of these settings waits for."""
    return (
        f"Clients are awaited in {settings.exchange_dir}/: start `fccl client --client-id i` for every i from 0 to "
        f"{settings.num_clients - 1}."
    )


def exchange_transport(settings: Settings, folder: RunFolder, tell: Tell) -> ExchangeTransport:
    """The server's side of the exchange directory, signed where the settings name keys."""
    keys = server_keys(KeyPaths(Path(settings.keys_dir))) if settings.keys_dir else None
    if keys and keys.warning:
        tell(keys.warning)
    return ExchangeTransport(
        ExchangePaths(settings.exchange_dir), settings.exchange_spec(), folder.paths.received, keys
    )


def require_peers(settings: Settings) -> None:
    """Raises `SettingsError` when this federation cannot have the clients that the settings ask for."""
    require_original_clients(settings)
    require_open(settings)


def require_open(settings: Settings) -> None:
    """Raises `SettingsError` when a federation of these settings cannot have members that come and go."""
    obstacles = {
        "an empty KEYS_DIR: whoever writes to EXCHANGE_DIR would be as many clients as it likes": not settings.keys_dir,
        "AGGREGATION=scaffold: the mean of its control variates is over a fixed number of clients": (
            settings.aggregation == "scaffold"
        ),
        f"ORIGINAL_CLIENTS={settings.original_clients}: they sign nothing": bool(settings.original_clients),
    }
    for obstacle, is_there in obstacles.items():
        if settings.open and is_there:
            raise SettingsError(
                f"--open does not go with {obstacle}", hint="`fccl keys` makes keys, or leave --open out"
            )


def require_original_clients(settings: Settings) -> None:
    """Raises `SettingsError` when peers that know only the original files cannot take part in this federation."""
    require_noise_at_clients(settings)
    obstacles = {
        f"KEYS_DIR={settings.keys_dir}: they sign nothing": bool(settings.keys_dir),
        "AGGREGATION=scaffold: they have no control variate to send": settings.aggregation == "scaffold",
        "LORA_AGGREGATION=exact: the adapter becomes wider than theirs": settings.lora_aggregation == "exact",
        "LORA_AGGREGATION=freeze_a: they train A as well as B": settings.lora_aggregation == "freeze_a",
        "LORA_AGGREGATION=fed_sb: they train A and B": settings.lora_aggregation == "fed_sb",
        "PROMPT_FORMAT=chat: they know the plain form alone": settings.prompt_format == "chat",
    }
    for obstacle, is_there in obstacles.items():
        if settings.original_client_ids and is_there:
            raise SettingsError(
                f"ORIGINAL_CLIENTS={settings.original_clients} does not go with {obstacle}",
                hint="leave one of the two out",
            )
