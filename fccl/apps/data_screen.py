"""Prepared data on the screen: a table of who holds what, the splits, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fccl.data.sources import kind_of
from fccl.paths import DataPaths
from fccl.plain_text import one_line, printable
from fccl.specs import PHASES, SYNTHETIC, DataSpec, Phase

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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
_SHADES = (
    (0, "#deebf7"),
    (0, "#c6dbef"),
    (0, "#9ecae1"),
    (0, "#6baed6"),
    (1, "#3182bd"),
    (1, "#08519c"),
)  # white text?, background


@dataclass(frozen=True)
class DataScreen:
    """What a person sees of data that is prepared (`fccl.data.in_use.Witness`)."""

    console: Console

    def ready(self, spec: DataSpec, paths: DataPaths) -> None:
        self.console.print(
            f"Data: {paths.root}/ is ready, as {spec.sft_data} and {spec.va_data} ask for.", soft_wrap=True
        )

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
    clients = manifest.spec.partition.num_clients
    for phase in PHASES:
        console.print(
            f"{TITLES[phase]}: training examples by topic, {clients} client{'s'[: clients != 1]}",
            style="bold",
            highlight=False,
        )
        console.print(topic_table(manifest, phase, console.width))
    console.print(split_table(manifest))
    for line in (
        *_remarks(manifest),
        f"Shards, validation and test splits, manifest: {paths.root}/",
        f"The tables as a picture: {paths.picture}",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def topic_table(manifest: Manifest, phase: Phase, width: int) -> Table:
    """Training examples of each topic at each client, shaded by the client's share of the topic.

    With more clients than fit into `width` columns of text, or than `MAX_CLIENTS`, the spread over the clients instead.
    """
    from fccl.data.picture import topic_rows

    names, rows = topic_rows(manifest, phase, MAX_TOPICS)
    cell = max(3, *(len(f"{sum(column)}") for column in zip(*rows, strict=True))) + 3
    clients = len(rows[0])
    fits = clients <= MAX_CLIENTS and _NAME_WIDTH + cell * (clients + 1) + 4 <= width
    return _client_table(manifest, names, rows) if fits else _spread_table(names, rows)


def _client_table(manifest: Manifest, names: Sequence[str], rows: Sequence[Sequence[int]]) -> Table:
    from rich.text import Text

    table = _empty_table()
    for client in range(len(rows[0])):
        table.add_column(_cell(f"{client}{'!' if client in manifest.noisy_clients else ''}"), justify="right")
    table.add_column(_cell("all"), justify="right", style="bold")
    for name, row in zip(names, rows, strict=True):
        table.add_row(
            Text(one_line(name)),
            *(Text(_cell(count), style=_shade(count / max(1, sum(row)))) for count in row),
            _cell(sum(row)),
        )
    totals = [sum(column) for column in zip(*rows, strict=True)]
    table.add_section()
    table.add_row("all", *map(_cell, totals), _cell(sum(totals)), style="bold")
    return table


def _spread_table(names: Sequence[str], rows: Sequence[Sequence[int]]) -> Table:
    """For many clients: how a topic is spread over them.

    The effective number of clients is one over the sum of squared shares.
    """
    from rich.text import Text

    table = _empty_table()
    for column in ("all", "held by", "largest share", "effective"):
        table.add_column(_cell(column), justify="right")
    totals = [sum(column) for column in zip(*rows, strict=True)]
    for name, row in zip((*names, "all"), (*rows, totals), strict=True):
        if name == "all" and row is totals:
            table.add_section()
        shares = [count / max(1, sum(row)) for count in row]
        effective = 1 / sum(share**2 for share in shares) if any(shares) else 0.0
        largest = Text(_cell(f"{max(shares):.0%}"), style=_shade(max(shares)))
        table.add_row(
            Text(one_line(name)),
            _cell(sum(row)),
            _cell(sum(count > 0 for count in row)),
            largest,
            _cell(f"{effective:.1f}"),
        )
    table.caption = (
        f"A client holds {min(totals)} to {max(totals)} examples. Effective: so many clients with equal "
        "shares "
        "would "
        "be as even."
    )
    return table


def _cell(content: object) -> str:
    return f" {content} "


def _empty_table() -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=0
    )  # the cells bring their own: shades then meet
    table.add_column("topic", max_width=_NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    return table


def _shade(share: float) -> str:
    """A rich style for a share of 0 … 1. Colour is never the only carrier: the number stands in the cell."""
    if share <= 0:
        return "dim"
    light, background = _SHADES[min(len(_SHADES) - 1, int(share * len(_SHADES)))]
    return f"{'#ffffff' if light else '#000000'} on {background}"


def split_table(manifest: Manifest) -> Table:
    """Examples of each kind in each split."""
    table = _empty_table()
    table.columns[0].header = "examples"
    for split in manifest.counts:
        table.add_column(_cell("training" if split == "train" else split), justify="right")
    for phase in PHASES:
        table.add_row(TITLES[phase], *(_cell(counts[phase]) for counts in manifest.counts.values()))
    return table


def _remarks(manifest: Manifest) -> Iterator[str]:
    for source in manifest.sources:
        yield from _source_remarks(source)
    if manifest.noisy_clients:
        clients = ", ".join(map(str, manifest.noisy_clients))
        yield f"Spoilt on purpose (!): client {clients}, {NOISE[manifest.spec.noise_kind]}"


def _source_remarks(source: SourceReport) -> Iterator[str]:
    if source.kind == SYNTHETIC:
        yield f"{source.phase.upper()} data: {source.examples} synthetic pairs, made from the SFT data"
        return
    dropped = [
        (source.duplicates, "duplicates"),
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
    return f"{count} answer{'s'[: count != 1]}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, _NAME_WIDTH * 3) for name in names[:MAX_COLUMNS])
    return f"{shown} and {len(names) - MAX_COLUMNS} more" if len(names) > MAX_COLUMNS else shown
