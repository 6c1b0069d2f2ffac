"""The data, the settings and the versions of a run."""

from __future__ import annotations

from fccl import phases
from fccl.config import GROUPS, Settings, group_of
from fccl.data.picture import topic_rows
from fccl.display import words
from fccl.display.plain_text import one_line, printable
from fccl.display.tables import Cell, Table
from fccl.pages.report.parts import DASH
from fccl.presets import PRESETS
from fccl.records.manifest import Manifest, SourceReport
from fccl.specs import PHASES, PartitionSpec
from fccl.view.origins import origins_sentence
from fccl.view.values import RunView

MOST_TOPICS, MOST_CLIENTS = 30, 12
SPLITS = ("train", "learn", "validation", "test")
WHAT_FOR = (
    "No client sees the last three. Weights and server learning may use learn; validation watches the run; test is "
    "read once, at the end."
)


def split_sentence(manifest: Manifest) -> str:
    """The partition of the training split to the clients."""
    spec = manifest.spec
    if spec.server_only:
        return "Every client holds its own data, which the server has not seen. These are the server's splits."
    part = spec.partition
    noisy = ", ".join(map(str, manifest.noisy_clients))
    spoilt = f" Spoilt on purpose ({spec.noise_kind}): client{'s' if ',' in noisy else ''} {noisy}." if noisy else ""
    said = f"Dealt to {words.plural(part.num_clients, 'client')} {_how(part)}, seed {part.seed}.{spoilt}"
    return f"{said} {origins_sentence(manifest.origins, spec.client_column)}." if manifest.origins else said


def _how(part: PartitionSpec) -> str:
    if part.clients is not None:
        return f"by the column {printable(part.clients.column)}"
    how = "IID" if part.alpha is None else f"by a Dirichlet draw per topic (α = {part.alpha:g})"  # noqa: RUF001
    skew = f", the largest with {part.size_skew:g} times the samples of the smallest" if part.size_skew != 1 else ""
    return how + skew


def sources_table(manifest: Manifest) -> Table:
    """The sources of the examples, and what became of them."""
    rows = tuple(_source(source) for source in manifest.sources)
    return Table(
        "Sources",
        ("", "source", "rows", "malformed", "nothing to learn", "marked", "duplicates", "kept"),
        rows,
        words=frozenset({1}),
    )


def _source(source: SourceReport) -> tuple[Cell | str, ...]:
    kind = (source.kind if source.kind != source.name else "") + (
        f", revision {source.revision}" if source.revision else ""
    )
    counts = (
        source.rows_read,
        source.bad_rows,
        source.nothing_to_learn,
        source.marked,
        source.duplicates,
        source.examples,
    )
    return (
        phases.of(source.phase).noun + "s",
        Cell(source.name, note=kind),
        *(f"{count:,}" for count in counts),
    )


def splits_table(manifest: Manifest) -> Table:
    """The number of examples in each split."""
    rows = tuple(
        (split, *(f"{manifest.counts[split].get(phase, 0):,}" for phase in PHASES))
        for split in SPLITS
        if split in manifest.counts  # runs of earlier versions have no learn split
    )
    note = WHAT_FOR if "learn" in manifest.counts else "No client sees validation and test."
    return Table("Splits", ("split", "instructions", "preference pairs"), rows, note)


def topics_tables(manifest: Manifest) -> tuple[Table, ...]:
    """The numbers behind the heat maps, for few clients."""
    clients = manifest.spec.partition.num_clients
    if not 0 < clients <= MOST_CLIENTS:
        return ()
    found = []
    for phase, what in (("sft", "Instructions"), ("va", "Preference pairs")):
        names, counts = topic_rows(manifest, "sft" if phase == "sft" else "va", MOST_TOPICS)
        rows = tuple(
            (one_line(name) or "(none)", *(f"{count:,}" for count in row), f"{sum(row):,}")
            for name, row in zip(names, counts, strict=True)
        )
        head = ("topic", *(f"client {client}" for client in range(clients)), "all")
        found.append(Table(f"{what} by topic and client", head, rows, aside=True))
    return tuple(found)


def settings_tables(view: RunView) -> tuple[Table, ...]:
    """The run's settings by group; those that are not the preset's own are marked."""
    if view.info is None:
        return ()
    given = view.info.settings
    preset = PRESETS.get(given.get("preset", ""), {})
    groups: dict[str, list[tuple[Cell | str, ...]]] = {name: [] for name in (*GROUPS, "other")}
    for name, value in given.items():
        field = Settings.model_fields.get(name)
        usual = None if field is None else str(preset.get(name, field.default))
        changed = usual is not None and usual != value
        shown = Cell(
            one_line(value) or DASH,
            note=f"by default {one_line(str(usual)) or 'empty'}" if changed else "",
            strong=changed,
        )
        group = "other" if field is None else group_of(field)
        groups.setdefault(group, []).append((one_line(name).upper(), shown))
    return tuple(
        Table(group.capitalize(), ("setting", "value"), tuple(rows), words=frozenset({1}))
        for group, rows in groups.items()
        if rows
    )


def versions_table(view: RunView) -> Table | None:
    """The versions of the packages that the run used."""
    if view.info is None or not view.info.versions:
        return None
    rows = tuple((one_line(name), one_line(version)) for name, version in view.info.versions.items())
    return Table("Versions", ("package", "version"), rows, words=frozenset({1}))


def hashes_table(view: RunView) -> Table | None:
    """The hashes of the run's inputs and outputs."""
    found: dict[str, str] = {}
    if view.info:
        found["data manifest"] = view.info.data_sha256
    if view.manifest:
        found |= {
            f"source of the {'instructions' if source.phase == 'sft' else 'pairs'}": source.sha256
            for source in view.manifest.sources
        }
    if view.evaluation:
        found |= {
            f"adapter {one_line(model.name)}": model.adapter_sha256
            for model in view.evaluation.models
            if model.adapter_sha256
        }
    if view.state:
        found[f"adapter after round {view.state.next_round}"] = view.state.adapter_sha256
    rows = tuple((name, one_line(digest)) for name, digest in found.items() if digest)
    return Table("SHA-256", ("of", "hash"), rows, words=frozenset({1})) if rows else None
