"""Natural federations: every row goes to the client that a column of its source names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fccl import phases
from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.display.words import plural
from fccl.errors import DataError, SettingsError
from fccl.records.manifest import ClientOrigins
from fccl.specs import PHASES, ClientColumn, PartitionSpec, named_seed

_SIZES = "MIN_CLIENT_EXAMPLES and SMALL_CLIENTS say what becomes of small clients"
Group = tuple[str, ...]  # names that are one client


@dataclass(frozen=True)
class NaturalShards:
    """A shard for each client that the data names, and who became whom."""

    shards: tuple[ClientShard, ...]
    origins: ClientOrigins


def deal_by_name(sft: Sequence[SftExample], va: Sequence[PreferencePair], spec: PartitionSpec) -> NaturalShards:
    """One shard a client: the examples of its names, in the order in which they came.

    A name is the same client in both phases; one with examples of one kind has no others. Clients are numbered by a
    hash of seed and name. Names with fewer than `min_examples` examples are put together until they have as many, or
    left out. Those that are left over join the smallest client.

    Raises `DataError` when nobody is left in a phase, `SettingsError` when the spec wants another number of clients.
    """
    if spec.clients is None:
        raise ValueError("the partition has no column that names clients")
    sizes = Counter(example.client for part in (sft, va) for example in part)
    groups = grouped(sizes, spec.clients, spec.seed)
    _require_count(len(groups), spec, spec.clients)
    place = {name: client for client, group in enumerate(groups) for name in group}
    dealt_sft, dealt_va = _deal(sft, place, len(groups)), _deal(va, place, len(groups))
    shards = tuple(ClientShard(client, *kinds) for client, kinds in enumerate(zip(dealt_sft, dealt_va, strict=True)))
    _require_every_phase(shards, spec.clients)
    return NaturalShards(shards, _origins(groups, sizes, spec.clients))


def grouped(sizes: Mapping[str, int], rule: ClientColumn, seed: int) -> list[Group]:
    """The names that are one client each, or one together; `sizes` are their examples."""
    order = sorted(sizes, key=lambda name: (named_seed(seed, "client", name), name))
    groups: list[Group] = [(name,) for name in order if sizes[name] >= rule.min_examples]
    small = [name for name in order if sizes[name] < rule.min_examples]
    return groups if rule.small == "drop" else _merged(groups, small, sizes, rule.min_examples)


def _merged(groups: list[Group], small: Iterable[str], sizes: Mapping[str, int], least: int) -> list[Group]:
    rest: Group = ()
    for name in small:
        rest = (*rest, name)
        if _size(rest, sizes) >= least:
            groups, rest = [*groups, rest], ()
    if rest and groups:
        smallest = min(range(len(groups)), key=lambda at: (_size(groups[at], sizes), at))
        groups[smallest] = (*groups[smallest], *rest)
    return groups


def _size(group: Group, sizes: Mapping[str, int]) -> int:
    return sum(sizes[name] for name in group)


def _deal(examples: Sequence[Example], place: Mapping[str, int], count: int) -> list[tuple[Example, ...]]:
    """Each client's examples; those of names without a place are left out."""
    dealt: list[list[Example]] = [[] for _ in range(count)]
    for example in examples:
        if example.client in place:
            dealt[place[example.client]].append(replace(example, client=""))
    return [tuple(mine) for mine in dealt]


def _origins(groups: Sequence[Group], sizes: Mapping[str, int], rule: ClientColumn) -> ClientOrigins:
    placed = {name for group in groups for name in group}
    left_out = [size for name, size in sizes.items() if name not in placed]
    return ClientOrigins(
        members=tuple(map(len, groups)),
        names=() if rule.anonymize else tuple(groups),
        left_out=len(left_out),
        left_out_examples=sum(left_out),
    )


def _require_count(count: int, spec: PartitionSpec, rule: ClientColumn) -> None:
    if not count:
        raise DataError(
            f"CLIENT_COLUMN={rule.column}: no client has MIN_CLIENT_EXAMPLES={rule.min_examples} training examples",
            hint=_SIZES,
        )
    if spec.num_clients not in (0, count):
        raise SettingsError(
            f"CLIENT_COLUMN={rule.column} finds {plural(count, 'client')}, NUM_CLIENTS is {spec.num_clients}",
            hint=f"leave NUM_CLIENTS out, the data decides; {_SIZES}",
        )


def _require_every_phase(shards: Sequence[ClientShard], rule: ClientColumn) -> None:
    for phase in PHASES:
        if not any(shard.of(phase) for shard in shards):
            raise DataError(
                f"CLIENT_COLUMN={rule.column}: no client is left with {phases.of(phase).noun}s", hint=_SIZES
            )
