"""The clients that a column of the data names, in a sentence and a table: who became whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fccl.display import words
from fccl.display.plain_text import printable
from fccl.display.tables import Cell, Table
from fccl.records.manifest import ClientOrigins, Manifest
from fccl.records.run import RunInfo
from fccl.specs import PHASES, Phase

_LONGEST = 60  # letters of a client's names
MOST_CLIENTS = 200  # rows


DECLARED = "Numbers of examples are declared by the clients: the server has not seen their data."
SOME_DECLARED = (
    "From client {} on, numbers of examples are declared by the clients: the server has not seen their data."
)


def declared_note(manifest: Manifest | None, info: RunInfo | None = None) -> str:
    """A sentence on where the numbers of examples come from, where the server cannot know them; else empty."""
    if manifest is None:
        return ""
    if manifest.spec.server_only:
        return DECLARED
    some = (info.settings if info else {}).get("own_data_clients", "0") != "0"
    return SOME_DECLARED.format(manifest.spec.partition.num_clients) if some else ""


def origins_sentence(origins: ClientOrigins, column: str) -> str:
    """The numbers of names in the column, of clients that they became, and of those left out."""
    merged = sum(count for count in origins.members if count > 1)
    said = f"Clients by {printable(column)}: {words.plural(sum(origins.members), 'name')}"
    if merged:
        said += f", {merged} of them together with others"
    said += f"; {words.plural(len(origins.members), 'client')}"
    if origins.left_out:
        said += (
            f"; left out: {words.plural(origins.left_out, 'small name')} with "
            f"{words.plural(origins.left_out_examples, 'example')}"
        )
    return said


def origins_table(manifest: Manifest) -> Table | None:
    """A row a client: its names, or how many where they are not to be said, and its examples."""
    if manifest.origins is None:
        return None
    held = manifest.samples_by_client()
    rows = tuple(
        _row(manifest.origins, held, client) for client in range(min(MOST_CLIENTS, len(manifest.origins.members)))
    )
    note = origins_sentence(manifest.origins, manifest.spec.client_column) + "."
    head = ("client", printable(manifest.spec.client_column), "instructions", "pairs")
    return Table("Who became whom", head, rows, note, words=frozenset({1}), aside=True)


def _row(origins: ClientOrigins, held: Mapping[Phase, Mapping[int, int]], client: int) -> tuple[Cell | str, ...]:
    return (str(client), _names(origins, client), *(f"{held[phase][client]:,}" for phase in PHASES))


def _names(origins: ClientOrigins, client: int) -> str:
    if not origins.names:
        return words.plural(origins.members[client], "name")
    return _listed(origins.names[client])


def _listed(names: Sequence[str]) -> str:
    said = ", ".join(printable(name, _LONGEST) for name in names)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}… ({len(names)} names)"
