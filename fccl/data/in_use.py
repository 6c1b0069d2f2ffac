"""Prepared data that several processes share: whoever needs it first prepares it, nobody prepares it anew while it is
read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol

from fccl.data.prepare import manifest_matches, prepare
from fccl.data.shards import has_learn_split, read_manifest
from fccl.errors import DataError, FederationError
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest
from fccl.specs import ClientColumn, DataSpec
from fccl.storage.locks import alone, in_use, one_at_a_time


class Witness(Protocol):
    """Hears what becomes of the data."""

    def ready(self, spec: DataSpec, paths: DataPaths) -> None:
        """Complete data of this spec was there already."""

    def replacing(self, paths: DataPaths, others: Sequence[str]) -> None:
        """Other data is there, and is about to be replaced; `others` are settings that it was prepared with."""

    def preparing(self, spec: DataSpec) -> AbstractContextManager[Callable[[str], None]]:
        """Entered while the data is prepared; it gives the function that is told each step."""
        ...

    def prepared(self, manifest: Manifest, paths: DataPaths) -> None:
        """The data is complete."""


class Silent:
    """A witness that says nothing."""

    def ready(self, spec: DataSpec, paths: DataPaths) -> None:
        """Nothing is said."""

    def replacing(self, paths: DataPaths, others: Sequence[str]) -> None:
        """Nothing is said."""

    def preparing(self, spec: DataSpec) -> AbstractContextManager[Callable[[str], None]]:
        return nullcontext(lambda step: None)

    def prepared(self, manifest: Manifest, paths: DataPaths) -> None:
        """Nothing is said."""


SILENT = Silent()


@contextmanager
def data_in_use(spec: DataSpec, paths: DataPaths, witness: Witness = SILENT) -> Iterator[Manifest]:
    """The data of this spec, prepared when it is missing or was made from another one; nobody prepares it anew while
    the block runs.

    Runs that ask for the same data use it side by side: one prepares it, the others wait. Raises `FederationError` when
    other data is in use, and what `prepare` raises.
    """
    with ExitStack() as held:
        with one_at_a_time(paths.manifest, needed=False):
            if not is_ready(spec, paths, witness):
                prepare_alone(spec, paths, witness)
            held.enter_context(in_use(paths.lock, f"the data in {paths.root}/"))
            manifest = read_manifest(paths)
        yield manifest


def prepare_anew(spec: DataSpec, paths: DataPaths, witness: Witness = SILENT, keep: bool = False) -> None:
    """Prepare the data, whatever is there; with `keep` only when there is none.

    Raises `DataError` when other data is to be kept.
    """
    with one_at_a_time(paths.manifest, needed=False):
        if not (keep and is_prepared(spec, paths, witness)):
            prepare_alone(spec, paths, witness)


def prepare_alone(spec: DataSpec, paths: DataPaths, witness: Witness) -> None:
    """Prepare the data when nobody uses what is there.

    Raises `FederationError` when somebody does, and it is not data of this spec.
    """
    with ExitStack() as held:
        try:
            held.enter_context(alone(paths.lock, f"the data in {paths.root}/"))
        except FederationError:
            if not is_ready(spec, paths, witness):
                raise
            return
        if others := _replaced(spec, paths):
            witness.replacing(paths, others)
        with witness.preparing(spec) as tell:
            manifest = prepare(spec, paths, tell)
        witness.prepared(manifest, paths)


def _replaced(spec: DataSpec, paths: DataPaths) -> list[str]:
    """The settings of readable data that is there, where they differ from the spec's."""
    try:
        return other_settings(read_manifest(paths), spec)
    except DataError:
        return []


def replaced_line(paths: DataPaths, others: Sequence[str]) -> str:
    """A line on data that is about to be replaced."""
    return f"Replacing the data in {paths.root}/, which was prepared with {', '.join(others)}."


def is_ready(spec: DataSpec, paths: DataPaths, witness: Witness) -> bool:
    """Whether complete data of this spec is there; then the witness hears it."""
    if ready := manifest_matches(paths, spec):
        witness.ready(spec, paths)
    return ready


def is_prepared(spec: DataSpec, paths: DataPaths, witness: Witness) -> bool:
    """Whether complete data of this spec is there.

    Raises `DataError` when there is other data, which then stays.
    """
    if not paths.manifest.exists():
        return False
    if is_ready(spec, paths, witness):
        return True
    anew, manifest = f"remove {paths.manifest}, and the data is prepared anew", read_manifest(paths)
    if not has_learn_split(manifest):
        raise DataError(f"the data in {paths.root}/ is of an earlier version, without a learn split", hint=anew)
    if others := other_settings(manifest, spec):
        raise DataError(
            f"the data in {paths.root}/ was prepared with {', '.join(others)}", hint=f"use these settings, or {anew}"
        )
    raise DataError(f"files in {paths.root}/ are not what its manifest says, or a source has changed", hint=anew)


def other_settings(manifest: Manifest, spec: DataSpec) -> list[str]:
    """`NAME=value` of the settings that the data was prepared with and that the spec does not have."""
    return sorted(_as_settings(manifest.spec) - _as_settings(spec.filled(manifest.spec)))


def _as_settings(spec: DataSpec) -> set[str]:
    """`NAME=value` of every setting behind the spec."""
    values = spec.model_dump(exclude={"partition", "noisy_clients"})
    values |= spec.partition.model_dump(exclude={"alpha", "clients"}) | _of_column(spec.partition.clients)
    values["non_iid_alpha"] = "inf" if spec.partition.alpha is None else spec.partition.alpha
    values["noisy_clients"] = ",".join(map(str, spec.noisy_clients))
    return {f"{name.upper()}={value}" for name, value in values.items()}


def _of_column(clients: ClientColumn | None) -> dict[str, object]:
    """The settings behind a column that names clients."""
    if clients is None:
        return {"client_column": ""}
    return {
        "client_column": clients.column,
        "min_client_examples": clients.min_examples,
        "small_clients": clients.small,
        "anonymize_clients": clients.anonymize,
    }
