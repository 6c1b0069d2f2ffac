"""Data preparation from sources to shards: read, drop duplicates, split, find topics, deal to the clients, write.

`prepare` is the whole of it; each step is a file of its own beside this one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, cast

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.formats import Parsed, parse_sft, parse_va
from fccl.data.natural import deal_by_name
from fccl.data.noise import check_noisy_clients, spoil
from fccl.data.own_test import keep_apart
from fccl.data.partition import partition
from fccl.data.picture import draw_picture
from fccl.data.shards import (
    ClientShard,
    Examples,
    commit,
    has_learn_split,
    is_complete,
    read_manifest,
    write_prepared,
)
from fccl.data.sources import BUILTIN, builtin_examples, digest_of, fingerprint, open_source
from fccl.data.split import SERVER_SPLITS, SPLITS, Split, split_by_instruction
from fccl.data.synthetic import synthetic_pairs
from fccl.data.topics import with_topics
from fccl.display.words import nearest, plural
from fccl.errors import DataError
from fccl.paths import DataPaths
from fccl.records.manifest import ClientOrigins, Manifest, SourceReport
from fccl.specs import PHASES, SYNTHETIC, DataSpec, Phase, named_seed

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Loaded(Generic[Example]):
    """The distinct examples of one source, and what it took to get them."""

    examples: list[Example]
    report: SourceReport | None  # None for pairs that are made later
    columns: tuple[str, ...] = ()  # of a file or hub data set


def prepare(spec: DataSpec, paths: DataPaths, on_progress: Progress | None = None) -> Manifest:
    """Prepare the data of a federation in `paths` and return its manifest. `on_progress` is told what is being done.

    Deterministic: the same spec over the same sources gives the same bytes. Raises `DataError` (with `BadRow`) for a
    source that cannot be used, `SettingsError` for a noisy client that is none, `StorageError` for a disk that refuses;
    older data then stay.
    """
    tell = on_progress or (lambda step: None)
    check_noisy_clients(spec)
    _check_names_clients(spec)
    sft, va = _load_sft(spec, tell), _load_va(spec, tell)
    _check_topic_column(spec, sft, va)
    tell("splitting by instruction, finding topics")
    halves = _kept(*split_by_instruction(sft.examples, va.examples, spec), spec)
    sft_split, va_split = with_topics(*halves, spec.partition.num_topics, spec.seed)
    if spec.sft_data == BUILTIN:
        sft_split = _with_vetted_splits(sft_split)
    if va.report is None:
        va_split = synthetic_pairs(sft_split, spec.max_va_examples, spec.seed)
    tell(f"dealing to {_whom(spec)}")
    clean, origins = _dealt(sft_split, va_split, spec)
    spec = spec.of_clients(len(clean))
    shards = spoil(clean, spec)
    tell(f"writing {paths.root}")
    splits: Mapping[Phase, Split[Any]] = {
        "sft": _holding(sft_split, clean, "sft"),
        "va": _holding(va_split, clean, "va"),
    }
    manifest = _manifest(spec, _reports(sft, va, va_split), splits, shards, origins)
    picture = draw_picture(manifest) if shards else None
    server = {(name, phase): splits[phase].parts()[name] for name in SERVER_SPLITS for phase in PHASES}
    manifest = manifest.model_copy(update={"files": write_prepared(paths, shards, server, picture)})
    commit(paths, manifest)
    return manifest


def _kept(
    sft: Split[SftExample], va: Split[PreferencePair], spec: DataSpec
) -> tuple[Split[SftExample], Split[PreferencePair]]:
    """The splits that are prepared: without training examples where the data is the server's alone."""
    return (replace(sft, train=()), replace(va, train=())) if spec.server_only else (sft, va)


def _whom(spec: DataSpec) -> str:
    if spec.server_only:
        return "nobody: the clients bring their own data"
    return (
        f"the clients of {spec.client_column}" if spec.client_column else plural(spec.partition.num_clients, "client")
    )


def _dealt(
    sft: Split[SftExample], va: Split[PreferencePair], spec: DataSpec
) -> tuple[tuple[ClientShard, ...], ClientOrigins | None]:
    """A shard for each client; and who became whom, where the data names the clients."""
    if spec.server_only:
        return (), None
    if spec.partition.clients is None:
        return _parted(partition(sft.train, va.train, spec.partition), spec), None
    found = deal_by_name(sft.train, va.train, spec.partition)
    return _parted(found.shards, spec), found.origins


def _parted(shards: Sequence[ClientShard], spec: DataSpec) -> tuple[ClientShard, ...]:
    """The shards, each without what its client keeps apart for its own test."""
    return tuple(keep_apart(shard, spec.client_test_share) for shard in shards)


def _holding(split: Split[Example], shards: Sequence[ClientShard], phase: Phase) -> Split[Any]:
    """The split with the training examples that the clients were dealt: small clients may have been left out."""
    train: Any = tuple(example for shard in shards for example in shard.of(phase))
    return replace(split, train=train)


def _with_vetted_splits(split: Split[SftExample]) -> Split[SftExample]:
    """Some built-in demonstrations are unvetted, as people's are; those that a model is judged by must not be."""

    def vetted(examples: Sequence[SftExample]) -> tuple[SftExample, ...]:
        return tuple(replace(example, response=example.answer) for example in examples)

    return Split(split.train, *(vetted(getattr(split, name)) for name in SERVER_SPLITS))


def manifest_matches(paths: DataPaths, spec: DataSpec) -> bool:
    """Whether `paths` holds, complete, what `prepare` would make of `spec`, so that it can be used as it is.

    A local source or the built-in data must have the content that they had. A source that is gone, or on the hub,
    counts as unchanged.
    """
    try:
        manifest = read_manifest(paths)
    except DataError:
        return False
    if manifest.spec != spec.filled(manifest.spec) or not has_learn_split(manifest) or not is_complete(paths, manifest):
        return False
    kept = [(fingerprint(report.name, report.phase), report) for report in manifest.sources if report.kind != SYNTHETIC]
    return all(now is None or now == report.sha256 for now, report in kept)


def _load_sft(spec: DataSpec, tell: Progress) -> _Loaded[SftExample]:
    if spec.sft_data == SYNTHETIC:
        raise DataError(
            "SFT_DATA=synthetic: only preference pairs can be made",
            hint="VA_DATA=synthetic makes them from the SFT data",
        )
    return _read(spec, "sft", parse_sft, tell)


def _load_va(spec: DataSpec, tell: Progress) -> _Loaded[PreferencePair]:
    if spec.va_data == SYNTHETIC:
        return _Loaded([], None)
    return _read(spec, "va", parse_va, tell)


def _read(spec: DataSpec, phase: Phase, parse: Callable[..., Parsed[Example]], tell: Progress) -> _Loaded[Example]:
    """The examples of a phase's source: the built-in ones, or the rows of a file or of a hub data set."""
    name = spec.source(phase)
    tell(f"reading {name}")
    if name == BUILTIN:
        examples = cast(list[Example], builtin_examples(phase))
        return _report(BUILTIN, "", Parsed(examples, rows=len(examples)), phase, spec)
    source = open_source(name, phase)
    parsed = parse(source.rows, name, spec.partition.topic_column, spec.skip_bad_rows, spec.client_column)
    return _report(source.kind, source.revision, parsed, phase, spec)


def _report(kind: Any, revision: str, parsed: Parsed[Example], phase: Phase, spec: DataSpec) -> _Loaded[Example]:
    """Drop exact duplicates, sample down to the maximum, and say so."""
    name = spec.source(phase)
    distinct = list({_content(example): example for example in reversed(parsed.examples)}.values())[
        ::-1
    ]  # the first of each stays
    examples = _sample(distinct, spec.max_examples(phase), named_seed(spec.seed, "sample", phase))
    known = kind in ("file", BUILTIN)
    digest = fingerprint(name, phase) if known else digest_of(cast(Examples, parsed.examples))
    report = SourceReport(
        phase=phase,
        name=name,
        kind=kind,
        sha256=digest or "",
        revision=revision,
        rows_read=parsed.rows,
        bad_rows=parsed.bad_rows,
        bad_row_reasons=tuple(parsed.bad_row_reasons),
        nothing_to_learn=parsed.nothing_to_learn,
        marked=parsed.marked,
        **parsed.answers,
        columns_not_used=tuple(parsed.columns_not_used),
        duplicates=len(parsed.examples) - len(distinct),
        examples=len(examples),
    )
    return _Loaded(examples, report, parsed.columns)


def _content(example: SftExample | PreferencePair) -> tuple[str, ...]:
    if isinstance(example, SftExample):
        return (example.client, example.instruction, example.response)
    return (example.client, example.instruction, example.preferred, example.dispreferred)


def _sample(examples: list[Example], maximum: int, seed: int) -> list[Example]:
    if not maximum or len(examples) <= maximum:
        return examples
    return [examples[index] for index in sorted(random.Random(seed).sample(range(len(examples)), maximum))]


def _check_names_clients(spec: DataSpec) -> None:
    """The built-in data names no clients; synthetic pairs are those of the instructions that they are made from."""
    if spec.client_column and BUILTIN in (spec.sft_data, spec.va_data):
        raise DataError(
            f"CLIENT_COLUMN={spec.client_column}: the built-in data has no columns",
            hint="name a file or a data set for SFT_DATA and VA_DATA; VA_DATA=synthetic keeps the clients of SFT_DATA",
        )


def _check_topic_column(spec: DataSpec, *loaded: _Loaded[Any]) -> None:
    """A topic column that no row has is a mistake, not a reason to cluster."""
    column = spec.partition.topic_column
    brought = [one for one in loaded if one.columns]
    if column and brought and not any(example.topic for one in brought for example in one.examples):
        found = "; ".join(f"{one.report.name}: {', '.join(one.columns)}" for one in brought if one.report)
        guess = nearest(column, [name for one in brought for name in one.columns])
        raise DataError(
            f"no row has a label in the column {column!r}",
            hint=f"{f'did you mean {guess}? ' if guess not in (None, column) else ''}set TOPIC_COLUMN to one of the "
            f"columns there are ({found})",
        )


def _reports(
    sft: _Loaded[SftExample], va: _Loaded[PreferencePair], va_split: Split[PreferencePair]
) -> tuple[SourceReport, ...]:
    pairs = [pair for part in va_split.parts().values() for pair in part]
    made = SourceReport(
        phase="va", name=SYNTHETIC, kind=SYNTHETIC, sha256=digest_of(pairs), rows_read=len(pairs), examples=len(pairs)
    )
    return tuple(report or made for report in (sft.report, va.report))


def _manifest(
    spec: DataSpec,
    sources: tuple[SourceReport, ...],
    splits: Mapping[Phase, Split[Any]],
    shards: Sequence[ClientShard],
    origins: ClientOrigins | None,
) -> Manifest:
    """All of the manifest but its files, which are not written yet."""
    topics = topics_by_size(splits)
    return Manifest(
        spec=spec,
        origins=origins,
        kept_apart={phase: tuple(len(shard.tests_of(phase)) for shard in shards) for phase in PHASES}
        if spec.client_test_share
        else {},
        sources=sources,
        counts={name: {phase: len(splits[phase].parts()[name]) for phase in PHASES} for name in SPLITS},
        topics=topics,
        topics_by_client={phase: tuple(_count(shard.of(phase), topics) for shard in shards) for phase in PHASES},
        noisy_clients=spec.noisy_clients,
        files={},
    )


def topics_by_size(splits: Mapping[Phase, Split[Any]]) -> tuple[str, ...]:
    """The topics of the training splits, most examples first, equal ones in the order of the alphabet."""
    counts = Counter(example.topic for split in splits.values() for example in split.train)
    return tuple(sorted(counts, key=lambda topic: (-counts[topic], topic)))


def _count(examples: Examples, topics: Sequence[str]) -> tuple[int, ...]:
    counts = Counter(example.topic for example in examples)
    return tuple(counts[topic] for topic in topics)


def count_examples(spec: DataSpec, phase: Phase) -> int:
    """The distinct examples that a source gives, as `prepare` would read it. Raises as `prepare` does."""
    load = _load_sft if phase == "sft" else _load_va
    return len(load(spec, lambda step: None).examples)
