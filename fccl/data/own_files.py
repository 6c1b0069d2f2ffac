"""A client's own files, prepared at the client: read, duplicates dropped, held in memory. No other party sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.formats import Parsed, parse_sft, parse_va
from fccl.data.own_test import keep_apart
from fccl.data.shards import ClientShard
from fccl.data.sources import BUILTIN, open_source
from fccl.data.synthetic import make_pairs
from fccl.errors import DataError
from fccl.specs import SYNTHETIC, Phase

_SEED = 0  # of the flaws in synthetic pairs


@dataclass(frozen=True)
class OwnFiles:
    """The sources of one client's examples: files or hub data sets, or for pairs `synthetic`. One of them may be empty:
    the client then takes no part in that phase.
    """

    sft_data: str = ""
    va_data: str = ""
    skip_bad_rows: bool = False
    test_share: float = 0.0  # kept apart for the client's own test

    def load(self, client_id: int) -> ClientShard:
        """The client's shard, the same as long as this object lives, whatever becomes of the files.

        Raises `DataError` (with `BadRow`) for a source that cannot be used.
        """
        sft, va = self._examples
        return keep_apart(ClientShard(client_id, sft, va), self.test_share)

    @cached_property
    def _examples(self) -> tuple[tuple[SftExample, ...], tuple[PreferencePair, ...]]:
        if not (self.sft_data or self.va_data):
            raise DataError("a client with its own files names none", hint="name them with --sft-data and --va-data")
        sft = _distinct(self._sft().examples) if self.sft_data else ()
        if self.va_data == SYNTHETIC:
            return sft, make_pairs(sft, _SEED)
        return sft, _distinct(self._va().examples) if self.va_data else ()

    def _sft(self) -> Parsed[SftExample]:
        return parse_sft(_rows(self.sft_data, "sft"), self.sft_data, skip_bad_rows=self.skip_bad_rows)

    def _va(self) -> Parsed[PreferencePair]:
        return parse_va(_rows(self.va_data, "va"), self.va_data, skip_bad_rows=self.skip_bad_rows)


def _rows(name: str, phase: Phase) -> Iterable[tuple[int, Any]]:
    if name in (BUILTIN, SYNTHETIC):
        raise DataError(f"{name} is no data of a client's own", hint="name a file, or a data set on the hub")
    return open_source(name, phase).rows


def _distinct(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The first of each."""
    return tuple(dict.fromkeys(examples))
