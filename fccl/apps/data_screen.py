"""Prepared data on the screen: a table of who holds what, the splits, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fccl.data.in_use import replaced_line
from fccl.data.sources import kind_of
from fccl.display.plain_text import one_line, printable
from fccl.display.tables import Cell, Table
from fccl.display.words import plural
from fccl.paths import DataPaths
from fccl.specs import PHASES, SYNTHETIC, DataSpec, Phase
from fccl.view.origins import origins_sentence

if TYPE_CHECKING:
    from rich.console import Console

    from fccl.records.manifest import Manifest, SourceReport

MAX_CLIENTS = 12  # columns of the table; more are summarised
MAX_TOPICS = 24
MAX_COLUMNS = 12  # that are named as not used
TITLES = {"sft": "Instructions (SFT)", "va": "Preference pairs (VA)"}
NOISE = {
    "shuffled": "responses shuffled among the rows",
    "flipped": "preferred and dispreferred exchanged",
    "duplicated": "every row four times",
}
_NAME_WIDTH = 28


@dataclass(frozen=True)
class DataScreen:
    """The screen of a preparation of data (`fccl.data.in_use.Witness`)."""

    console: Console

    def ready(self, spec: DataSpec, paths: DataPaths) -> None:
        self.console.print(
            f"Data: {paths.root}/ is ready, as {spec.sft_data} and {spec.va_data} ask for.", soft_wrap=True
        )

    def replacing(self, paths: DataPaths, others: Sequence[str]) -> None:
        self.console.print(one_line(replaced_line(paths, others)), highlight=False, soft_wrap=True)

    @contextmanager
    def preparing(self, spec: DataSpec) -> Iterator[Callable[[str], None]]:
        """A spinner on a terminal, a line a step elsewhere and where `datasets` draws its own bars for a download."""
        downloads = any(kind_of(spec.source(phase)) == "hub" for phase in PHASES if spec.source(phase) != SYNTHETIC)
        if downloads or not self.console.is_terminal:
            yield lambda step: self.console.print(f"prepare: {step}", highlight=False, soft_wrap=True)
            return
        from rich.markup import escape

        with self.console.status("preparing the data") as status:
            yield lambda step: status.update(escape(one_line(step)))

    def prepared(self, manifest: Manifest, paths: DataPaths) -> None:
        show_manifest(manifest, paths, self.console)


def show_manifest(manifest: Manifest, paths: DataPaths, console: Console) -> None:
    """Print the tables of topics by client, the splits, what was left out, and where everything is."""
    from fccl.apps.terminal_tables import print_table

    for phase in PHASES if manifest.spec.partition.num_clients else ():
        print_table(console, topic_table(manifest, phase, console.width))
    print_table(console, split_table(manifest))
    for line in (
        *_remarks(manifest),
        *_places(manifest, paths),
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _places(manifest: Manifest, paths: DataPaths) -> Iterator[str]:
    if manifest.spec.server_only:
        yield f"Learn, validation and test splits, manifest: {paths.root}/. Clients bring their own data."
        return
    yield f"Shards, learn, validation and test splits, manifest: {paths.root}/"
    yield f"The tables as a picture: {paths.picture}"


def topic_table(manifest: Manifest, phase: Phase, width: int) -> Table:
    """Training examples of each topic at each client, shaded by the client's share of the topic.

    With more clients than fit into `width` columns of text, or than `MAX_CLIENTS`, the spread over the clients instead.
    """
    from fccl.data.picture import topic_rows

    names, rows = topic_rows(manifest, phase, MAX_TOPICS)
    cell = max(3, *(len(f"{sum(column)}") for column in zip(*rows, strict=True))) + 3
    clients = len(rows[0])
    fits = clients <= MAX_CLIENTS and _NAME_WIDTH + cell * (clients + 1) + 4 <= width
    title = f"{TITLES[phase]}: training examples by topic, {plural(clients, 'client')}"
    make = _client_table if fits else _spread_table
    return make(title, manifest, names, rows)


def _client_table(title: str, manifest: Manifest, names: Sequence[str], rows: Sequence[Sequence[int]]) -> Table:
    marks = ("!" if client in manifest.noisy_clients else "" for client in range(len(rows[0])))
    head = ("topic", *(f"{client}{mark}" for client, mark in enumerate(marks)), "all")
    totals = [sum(column) for column in zip(*rows, strict=True)]
    lines: list[tuple[Cell | str, ...]] = [
        (name, *(Cell(str(count), shade=count / max(1, sum(row))) for count in row), str(sum(row)))
        for name, row in zip(names, rows, strict=True)
    ]
    return Table(title, head, (*lines, ("all", *map(str, totals), str(sum(totals)))), last_is_sum=True)


def _spread_table(title: str, manifest: Manifest, names: Sequence[str], rows: Sequence[Sequence[int]]) -> Table:
    """For many clients: how evenly a topic is spread over them."""
    totals = [sum(column) for column in zip(*rows, strict=True)]
    lines = tuple(_spread(name, row) for name, row in zip((*names, "all"), (*rows, totals), strict=True))
    note = (
        f"A client holds {min(totals)} to {max(totals)} examples. Effective: so many clients with equal shares would "
        "be as even."
    )
    return Table(title, ("topic", "all", "held by", "largest share", "effective"), lines, note, last_is_sum=True)


def _spread(name: str, row: Sequence[int]) -> tuple[Cell | str, ...]:
    """The effective number of clients is one over the sum of squared shares."""
    shares = [count / max(1, sum(row)) for count in row]
    effective = 1 / sum(share**2 for share in shares) if any(shares) else 0.0
    largest = Cell(f"{max(shares):.0%}", shade=max(shares))
    return name, str(sum(row)), str(sum(count > 0 for count in row)), largest, f"{effective:.1f}"


def split_table(manifest: Manifest) -> Table:
    """Examples of each kind in each split."""
    head = ("examples", *("training" if split == "train" else split for split in manifest.counts))
    rows = tuple((TITLES[phase], *(str(counts[phase]) for counts in manifest.counts.values())) for phase in PHASES)
    return Table("Splits", head, rows)


def _remarks(manifest: Manifest) -> Iterator[str]:
    for source in manifest.sources:
        yield from _source_remarks(source)
    if manifest.kept_apart:
        sft, va = (sum(manifest.kept_apart[phase]) for phase in PHASES)
        yield f"Kept apart by the clients for their own tests: {plural(sft, 'instruction')}, {plural(va, 'pair')}"
    if manifest.origins is not None:
        yield origins_sentence(manifest.origins, manifest.spec.client_column)
    if manifest.noisy_clients:
        clients = ", ".join(map(str, manifest.noisy_clients))
        yield f"Spoilt on purpose (!): client {clients}, {NOISE[manifest.spec.noise_kind]}"


def _source_remarks(source: SourceReport) -> Iterator[str]:
    if source.kind == SYNTHETIC:
        yield f"{source.phase.upper()} data: {plural(source.examples, 'synthetic pair')}, made from the SFT data"
        return
    dropped = [
        (source.duplicates, f"duplicate{'s'[: source.duplicates != 1]}"),
        (source.nothing_to_learn, "with nothing to learn"),
        (source.marked, "marked as not to be learnt"),
        (source.bad_rows, "malformed"),
    ]
    left_out = ", ".join(f"{count} {what}" for count, what in dropped if count)
    yield f"{source.phase.upper()} data: {source.name}, {source.rows_read} rows, {source.examples} used" + (
        f"; left out: {left_out}" if left_out else ""
    )
    if source.false_tens:
        yield f"  left out: {_answers(source.false_tens)} rated 10, contradicted by a fine-grained score of 2 or less"
    if source.answers_passed_over:
        yield f"  left out: {_answers(source.answers_passed_over)} without a text or a rating"
    if source.columns_not_used:
        yield f"  columns not used: {_listed(source.columns_not_used)}"
    yield from (f"  left out: {reason}" for reason in source.bad_row_reasons)
    if source.bad_rows > len(source.bad_row_reasons):
        yield f"  left out: {source.bad_rows - len(source.bad_row_reasons)} more"


def _answers(count: int) -> str:
    return plural(count, "answer")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, _NAME_WIDTH * 3) for name in names[:MAX_COLUMNS])
    return f"{shown} and {len(names) - MAX_COLUMNS} more" if len(names) > MAX_COLUMNS else shown
