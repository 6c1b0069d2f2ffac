"""The bytes that a round's adapters take on their way."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from pydantic import Field

from fccl.display import words
from fccl.specs.codecs import CodecName
from fccl.specs.values import Value


class SentBytes(Value):
    """The bytes of adapters that a round takes on the way, as UPDATE_CODEC writes them."""

    codec: CodecName
    up: int = Field(ge=0)  # all updates that arrived, with control variates
    down: int = Field(ge=0)  # the global adapter, to each client that has the one of the round before
    whole: int = Field(ge=0)  # and to each that has not
    aggregate_sha256: str = ""  # of the adapter before the codec has rounded it; empty under fp32, which does not

    def down_to(self, clients: Collection[int], before: Collection[int] | None) -> int:
        """The bytes of the global adapter to these clients. `before` are those that answered the round before; None in
        the first of a run, whose adapter is drawn from its seed.
        """
        without = 0 if before is None else len(set(clients) - set(before))
        return self.down * (len(clients) - without) + self.whole * without


class _Arrived(Protocol):
    @property
    def client_id(self) -> int: ...


class SentRound(Protocol):
    """The part of a round's record that its bytes follow from."""

    @property
    def selected(self) -> Collection[int]:
        """The clients that were asked."""
        ...

    @property
    def arrived(self) -> Collection[_Arrived]:
        """Those whose updates came."""
        ...

    @property
    def sent(self) -> SentBytes | None:
        """The round's bytes; None in records of earlier versions."""
        ...


def round_bytes(record: SentRound, before: Collection[int] | None) -> tuple[int, int, int] | None:
    """Bytes of a round's adapters up and down, of all clients, and of as many whole adapters. `before` as `down_to`."""
    if record.sent is None:
        return None
    whole = record.sent.whole * (len(record.arrived) + len(record.selected))
    return record.sent.up, record.sent.down_to(record.selected, before), whole


def bytes_line(records: Iterable[SentRound]) -> str:
    """A sentence on what the rounds of a run have sent, where that is less than whole adapters."""
    totals, before = [0, 0, 0], None
    for record in records:
        found = round_bytes(record, before)
        before = {each.client_id for each in record.arrived}
        totals = [total + one for total, one in zip(totals, found or (0, 0, 0), strict=True)]
    return saved_words(*totals)


def saved_words(up: int, down: int, whole: int) -> str:
    """The sentence itself; empty where nothing was saved.

    >>> saved_words(2_000_000, 1_000_000, 24_000_000)
    'Adapters took 2.0 MB up and 1.0 MB down; whole ones would have taken 24.0 MB, 8.0 times as much.'
    """
    if not 0 < up + down < whole:
        return ""
    sent, times = f"{words.size(up)} up and {words.size(down)} down", whole / (up + down)
    return f"Adapters took {sent}; whole ones would have taken {words.size(whole)}, {times:.1f} times as much."
