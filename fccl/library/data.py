"""The data of a federation, prepared or loaded from Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args, overload

from fccl.config import Settings
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.in_use import Silent, data_in_use, other_settings, replaced_line
from fccl.data.shards import ClientShard, load_shard, read_manifest, require_unchanged, server_examples
from fccl.errors import DataError, SettingsError
from fccl.library.arguments import DataArguments
from fccl.library.given import PrepareArguments, require_one_of, settings_from
from fccl.library.ignored import refuse_unqualified
from fccl.library.narrow import data_spec
from fccl.library.places import require_apart
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, DataSpec, Phase

if TYPE_CHECKING:
    import pandas as pd

_OF_DATA = frozenset({*DataArguments.__annotations__, "num_clients", "seed", "preset"})  # settings that choose the data
Tell = Callable[[str], None]
Split = Literal["learn", "validation", "test"]  # the server's


def quiet(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Data:
    """Prepared data: a shard for each client, a learn, a validation and a test split for the server, and where each
    came from.

    Made by `fccl.prepare`. `arguments` are the settings that it was asked for with; a `FederatedRun` that is given the
    data takes them over. `manifest` has the sources, their hashes and the counts.

    >>> data = prepare(max_sft_examples=60, max_va_examples=30, num_clients=3)
    >>> data.manifest.counts["test"]
    {'sft': 12, 'va': 6}
    """

    arguments: Mapping[str, Any]
    paths: DataPaths
    manifest: Manifest

    def __repr__(self) -> str:
        """Folder, clients and examples: what a notebook shows of it. `manifest` has the rest."""
        counts = "; ".join(f"{split} {of['sft']} SFT, {of['va']} VA" for split, of in self.manifest.counts.items())
        return f"<Data in {self.paths.root}/: {self.manifest.spec.partition.num_clients} clients; {counts}>"

    def shard(self, client_id: int) -> ClientShard:
        """One client's examples: `.sft` and `.va`, tuples of `SftExample` and `PreferencePair`.

        Raises `DataError` when there is no such client, `StorageError` when its files were changed.

        >>> shard = prepare(max_sft_examples=60, max_va_examples=30).shard(0)
        >>> len(shard.sft), shard.sft[0].instruction
        (14, 'What is the opposite of dull?')
        """
        clients = self.manifest.spec.partition.num_clients
        if self.manifest.spec.server_only:
            raise DataError(
                "this data has no shards: every client brings its own", hint="prepare it without server_only"
            )
        if client_id not in range(clients):
            raise DataError(f"there is no client {client_id!r}", hint=f"clients are 0 to {clients - 1}")
        return load_shard(self.paths, client_id, self.manifest)

    @overload
    def examples(self, split: Split, phase: Literal["sft"]) -> tuple[SftExample, ...]: ...

    @overload
    def examples(self, split: Split, phase: Literal["va"]) -> tuple[PreferencePair, ...]: ...

    def examples(self, split: Split, phase: Phase) -> tuple[SftExample, ...] | tuple[PreferencePair, ...]:
        """The server's examples of one split, `sft` or `va`.

        Weights and server learning may use `learn`; `validation` watches a run; `test` is read once, at the end.

        Raises `StorageError` when the file was changed.

        >>> len(prepare(max_sft_examples=60, max_va_examples=30).examples("learn", "va"))
        1
        """
        require_one_of("split", split, get_args(Split))
        require_one_of("phase", phase, PHASES)
        require_unchanged(self.paths, self.manifest, [self.paths.server_split(split, phase)])
        return server_examples(self.paths, split, phase)

    def topics(self, phase: Phase = "sft") -> pd.DataFrame:
        """Training examples of each topic (rows) at each client (columns), before noise made on purpose.

        >>> prepare(max_sft_examples=60, max_va_examples=30).topics("va").sum().tolist()
        [8, 6, 8]
        """
        import pandas as pd

        require_one_of("phase", phase, PHASES)
        table = self.manifest.topics_by_client[phase]
        frame = pd.DataFrame(dict(enumerate(table)), index=pd.Index(self.manifest.topics, name="topic"))
        return frame.rename_axis(columns="client")


def prepare(*, tell: Tell = quiet, **settings: Unpack[PrepareArguments]) -> Data:
    """The data that these settings ask for: what is in `data_dir` if it fits, else prepared anew, and other data there
    replaced.

    The arguments have the settings' names (docs/settings.md), here those of the groups data, federation and folders.
    One that is not given comes from the environment, `.env`, the preset or its default, as for `fccl prepare`. `tell`
    hears a line for each step; by default nothing is printed. The same settings give the same bytes.

    Raises `SettingsError` for a setting that is unknown or out of range, `DataError` (with `BadRow`) for a source that
    cannot be used. Raises `FederationError` while another process uses other data in `data_dir`, `StorageError` for the
    disk.

    >>> import fccl
    >>> data = fccl.prepare(max_sft_examples=60, max_va_examples=30, num_clients=3, non_iid_alpha=0.5)
    >>> [len(data.shard(client).sft) for client in range(3)]
    [14, 10, 18]
    """
    chosen = settings_from("fccl.prepare", settings, PrepareArguments)
    refuse_unqualified(chosen, settings)
    require_apart(chosen, ("data_dir", "log_dir"))
    paths = DataPaths(chosen.data_dir)
    with data_in_use(data_spec(chosen), paths, Telling(tell)) as manifest:
        return Data(dict(settings), paths, manifest)


def require_no_other_data(settings: Settings, given: Collection[str]) -> None:
    """Raises `SettingsError` for a folder of data that is named alone and holds data of other settings.

    Whoever names the data means it; a run with its own settings would replace it.
    """
    paths = DataPaths(settings.data_dir)
    if "data_dir" not in given or _OF_DATA & set(given) or not paths.manifest.is_file():
        return
    try:
        others = other_settings(read_manifest(paths), data_spec(settings))
    except DataError:  # a manifest that is damaged speaks for no data
        return
    if others:
        raise SettingsError(
            f"data_dir={str(paths.root)!r}: the data there was prepared with {', '.join(others)}",
            hint="give the run these settings, or data=fccl.prepare(…); other settings of data replace what is there",
        )


@dataclass(frozen=True)
class Telling(Silent):
    """A witness of the preparation that says each step in a line."""

    tell: Tell

    def ready(self, spec: DataSpec, paths: DataPaths) -> None:
        self.tell(f"Data: {paths.root}/ is ready, as {spec.sft_data} and {spec.va_data} ask for.")

    def replacing(self, paths: DataPaths, others: Sequence[str]) -> None:
        self.tell(replaced_line(paths, others))

    def preparing(self, spec: DataSpec) -> AbstractContextManager[Tell]:
        return nullcontext(lambda step: self.tell(f"prepare: {step}"))
