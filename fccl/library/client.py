"""`Client`: one client of a federation that runs over an exchange directory, in the process that calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Unpack

from fccl.config import Settings
from fccl.data.own_files import OwnFiles
from fccl.data.shards import ClientShard, load_shard
from fccl.display.words import plural
from fccl.errors import FederationError, SettingsError
from fccl.evaluation.on_clients import ClientEvaluator
from fccl.evaluation.own_test import OwnTester
from fccl.keys import Keys, client_keys
from fccl.library.data import Tell, quiet
from fccl.library.given import WholeClientArguments, settings_from
from fccl.library.personal import personal_learner
from fccl.library.places import require_apart
from fccl.library.privacy import Guard
from fccl.messages import Answer, FitTask, Learner, LoadShard, ResidualsInFolders, Service
from fccl.model.activations import Activations
from fccl.model.loading import Models
from fccl.paths import DataPaths, ExchangePaths, KeyPaths, StatePaths
from fccl.privacy import helped, spent
from fccl.storage import temporary
from fccl.storage.cache import Cache
from fccl.storage.locks import exclusive, in_use
from fccl.storage.private import private_folder
from fccl.storage.reading import is_there
from fccl.training.engines import learner_for
from fccl.training.references import References
from fccl.transports.exchange.client import AskedRound, ExchangeClient
from fccl.transports.exchange.memory import Memory
from fccl.transports.protocol import Listener

FOLDERS = ("data_dir", "exchange_dir", "keys_dir", "state_dir")  # that a client reads or writes


class Client:
    """One client of a federation whose orchestrator is another process: it trains on its own shard when asked.

    The shard is the one in `data_dir` that was prepared for it. With `sft_data` or `va_data` it is files of its own,
    which nobody else sees; where one is missing, the client takes no part in that phase.

    The arguments have the settings' names (docs/settings.md): those that `fccl client --help` lists. One that is not
    given comes from the environment, `.env` or its default, as for the command. `learner` trains in the place of our
    own (`fccl.messages.Learner`; `fccl.testing` has the suite that it must pass). `load_shard` gives it the client's
    examples in the place of files. `services` answer what else is asked in the place of ours. `tell` hears a line for
    everything that happens; by default nothing is printed.

    Raises `SettingsError` for a setting that is unknown or out of range, or folders that are one.

    >>> import fccl
    >>> client = fccl.Client(client_id=1, exchange_dir="exchange", data_dir="data")
    >>> client.settings.client_id
    1
    """

    def __init__(
        self,
        *,
        learner: Learner | None = None,
        load_shard: LoadShard | None = None,
        services: Sequence[Service] | None = None,
        tell: Tell = quiet,
        **settings: Unpack[WholeClientArguments],
    ) -> None:
        self.settings = settings_from("fccl.Client", settings, WholeClientArguments)
        self._learner, self._load_shard, self._services, self._tell = learner, load_shard, services, tell
        self._own = own_files(self.settings, settings)
        self._open: tuple[ExchangeClient, AskedRound] | None = None
        require_own_rank(self.settings)
        require_apart(self.settings, FOLDERS)

    def run(self) -> None:
        """Take part until the run is done. Ctrl-C ends it earlier; the next client of this number goes on.

        Raises `DataError` when the shard is not there, `FederationError` when another process is this client,
        `StorageError` for the disk.
        """
        for task in self.tasks():
            self.train(task)

    def tasks(self) -> Iterator[FitTask]:
        """The tasks of the rounds that ask this client, until the run is done. One that is not trained comes again.

        The client is at work, with its heartbeat, while it is iterated over. Raises as `run`.
        """
        who = self._learner, self._own, self._load_shard, self._services
        with exchange_client(self.settings, Listener(line=self._tell), *who) as client:
            self._tell(f"waiting for rounds in {self.settings.exchange_dir}/")
            for asked in client.rounds():
                self._open = client, asked
                yield asked.task
                self._open = None
            self._tell("the run is done")

    def leave(self) -> str:
        """Leave the run, where its orchestrator is open: nobody waits for this client any more. Returns the run's id.

        The next client of this number joins again. Raises `FederationError` when there is nothing to leave, the
        client has no key, or it is at work.
        """
        with exchange_client(self.settings, Listener(line=self._tell), self._learner) as client:
            return client.leave()

    def train(self, task: FitTask) -> Answer:
        """Train the task that `tasks` has given last, and commit the answer: the update, or the failure.

        Raises `FederationError` for any other task, `StorageError` for the disk.
        """
        if self._open is None or self._open[1].task is not task:
            raise FederationError("this task is not open", hint="train a task in the loop that gives it, once")
        client, asked = self._open
        self._open = None
        return client.answer(asked)


@contextmanager
def exchange_client(
    settings: Settings,
    listen: Listener,
    learner: Learner | None = None,
    own: OwnFiles | None = None,
    load_shard: LoadShard | None = None,
    services: Sequence[Service] | None = None,
) -> Iterator[ExchangeClient]:
    """The client that these settings ask for, with its own files if it has some; its private folder is held while the
    block runs.

    Learner, examples and services may come from elsewhere, as for `Client`.
    """
    if own is not None:
        shard = own.load(settings.client_id)  # what is wrong with them is said before anybody waits
        apart = f"{len(shard.test_sft):,} and {len(shard.test_va):,} more are kept apart"
        listen.line(f"own files: {plural(len(shard.sft), 'instruction')} and {plural(len(shard.va), 'pair')}; {apart}")
    keys = client_keys(KeyPaths(Path(settings.keys_dir)), settings.client_id) if settings.keys_dir else None
    models = Models(activations=Activations(cache := cache_of(settings, listen.line)))
    works = learner or learner_for(models, settings.client_ranks, References(cache))
    with memory_of(StatePaths(settings.state_dir), settings.client_id, keys, listen.line) as memory:
        guard, personal = Guard.of_client(settings), personal_learner(settings.state_dir, works, listen.line)
        tester = OwnTester(models, works, personal.adapter_for)
        figures = () if guard.says_nothing else (ClientEvaluator(models), tester)  # which no noise and no mask covers
        usual = guard.declarer(), *figures
        for line in cautions(StatePaths(settings.state_dir), settings.client_id, keys, guard):
            listen.line(line)
        yield ExchangeClient(
            ExchangePaths(settings.exchange_dir),
            settings.client_id,
            guard.over(works if learner else personal, keys),  # whose steps Ditto would not be
            own.load if own else load_shard or partial(own_shard, DataPaths(settings.data_dir)),
            keys=keys,
            memory=memory,
            heartbeat_s=settings.heartbeat_s,
            watch=settings.exchange_watch,
            listen=listen,
            services=(*(usual if services is None else services), *guard.masking(keys).services()),
            residuals=ResidualsInFolders(StatePaths(settings.state_dir).residuals, listen.line),
        )


def cautions(paths: StatePaths, client_id: int, keys: Keys | None, guard: Guard) -> Iterator[str]:
    """A line on keys that others can read, and one where the client does not have what it must remember.

    That is so at its first start. Later somebody has deleted it: a budget is then whole once more.
    """
    if keys and keys.warning:
        yield keys.warning
    folder = paths.client(client_id)
    needed = {
        paths.answered(client_id): keys is not None,
        folder / spent.NAME: guard.own is not None,
        folder / helped.NAME: guard.only_masked,
    }
    missing = [path.name for path, is_needed in needed.items() if is_needed and not is_there(path)]
    if missing:
        said = " and no ".join(missing)
        yield f"{folder}/ has no {said}: client {client_id} remembers nothing of it, as at its first start"


def own_files(settings: Settings, given: Mapping[str, object]) -> OwnFiles | None:
    """The client's own files, where arguments name some: SFT_DATA of an environment is what `fccl prepare` reads.

    Raises `SettingsError` for an argument that has no effect without them.
    """
    if not {"sft_data", "va_data"} & set(given):
        for name in ("skip_bad_rows", "client_test_share"):
            if name in given:
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{flag} has no effect without --sft-data or --va-data", hint="leave it out")
        return None
    return OwnFiles(
        settings.sft_data if "sft_data" in given else "",
        settings.va_data if "va_data" in given else "",
        settings.skip_bad_rows,
        settings.file_test_share,
    )


def require_own_rank(settings: Settings) -> None:
    """Raises `SettingsError` when the settings give ranks to other clients alone."""
    if 1 < len(settings.client_ranks) <= settings.client_id:
        raise SettingsError(
            f"CLIENT_LORA_R={settings.client_lora_r} has no rank for client {settings.client_id}",
            hint="give one for all, or one for each",
        )


def cache_of(settings: Settings, tell: Tell) -> Cache:
    """The client's cache in its private folder."""
    folder = StatePaths(settings.state_dir).cache(settings.client_id)
    return Cache(folder, settings.cache_mb * 1_000_000, tell)


def own_shard(data: DataPaths, client_id: int) -> ClientShard:
    """The client's shard, read while nobody prepares it anew."""
    with in_use(data.lock, f"the data in {data.root}/"):
        return load_shard(data, client_id)


@contextmanager
def memory_of(paths: StatePaths, client_id: int, keys: Keys | None, tell: Tell) -> Iterator[Memory | None]:
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
