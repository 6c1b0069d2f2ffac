"""The lines of the two logs as tables that grow.

A line is believed only when it is a record of `fccl.records.run`, to the letter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError

from fccl.records.late import LateUpdate
from fccl.records.privacy import RoundPrivacy
from fccl.records.run import WITHHELD, ClientMetrics, OwnTestResult, RoundRecord, RunEvent
from fccl.records.secure import SecureRound
from fccl.records.sent import round_bytes
from fccl.specs import Phase
from fccl.view.values import DECLINES, EXCLUSIONS, METRICS, ROUNDS, SHARES, Move, RoundWatched

_Progress: TypeAdapter[RoundRecord | RunEvent] = TypeAdapter(
    Annotated[RoundRecord | RunEvent, Field(discriminator="event")]
)
_LARGEST = 2**63 - 1  # a column of whole numbers holds no more
_Row = tuple[object, ...]


class GrowingFrame:
    """Rows of one form (`fccl.view.values`), added in pieces. A frame that was handed out never changes."""

    def __init__(self, form: Mapping[str, str]) -> None:
        self._form = form
        self._pieces = [self._piece([])]

    def add(self, rows: Sequence[_Row]) -> None:
        if rows:
            self._pieces.append(self._piece(rows))

    @property
    def frame(self) -> pd.DataFrame:
        """All rows; the same object until some are added."""
        if len(self._pieces) > 1:
            self._pieces = [pd.concat(self._pieces, ignore_index=True)]
        return self._pieces[0]

    def _piece(self, rows: Sequence[_Row]) -> pd.DataFrame:
        columns = zip(*rows, strict=True) if rows else itertools.repeat((), len(self._form))
        return pd.DataFrame(
            {name: _column(values, kind) for (name, kind), values in zip(self._form.items(), columns, strict=True)}
        )


def _column(values: Sequence[object], kind: str) -> pd.Series | np.ndarray:
    return pd.Series(values, dtype="str") if kind == "str" else np.array(values, dtype=kind)


class ProgressLog:
    """`progress.jsonl` of one run: rounds, shares, exclusions and events.

    `unreadable` counts lines that are no record.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.clear()

    def clear(self) -> None:
        self.rounds, self.shares, self.exclusions = GrowingFrame(ROUNDS), GrowingFrame(SHARES), GrowingFrame(EXCLUSIONS)
        self.declines = GrowingFrame(DECLINES)
        self.events: tuple[RunEvent, ...] = ()
        self.own_tests: tuple[tuple[Phase, OwnTestResult], ...] = ()
        self.privacy: tuple[tuple[int, Phase, RoundPrivacy], ...] = ()
        self.secure: tuple[SecureRound, ...] = ()
        self.moves: tuple[Move, ...] = ()
        self.late: tuple[tuple[int, Phase, LateUpdate], ...] = ()
        self.watched: tuple[RoundWatched, ...] = ()
        self.unreadable = 0
        self._answered: tuple[int, ...] | None = None  # the clients that have answered the last round

    def feed(self, lines: list[bytes]) -> None:
        rounds: list[RoundRecord] = []
        events: list[RunEvent] = []
        for record in self._records(lines):
            if isinstance(record, RoundRecord):
                rounds.append(record)
            else:
                events.append(record)
        self.events += tuple(events)
        self.own_tests += tuple((record.phase, each) for record in rounds for each in record.own_tests)
        self.privacy += tuple((record.round, record.phase, record.privacy) for record in rounds if record.privacy)
        self.secure += tuple(record.secure for record in rounds if record.secure)
        self.late += tuple((record.round, record.phase, each) for record in rounds for each in record.late)
        self.watched += tuple(
            RoundWatched(record.round, record.phase, record.watched, record.phase_end)
            for record in rounds
            if record.watched or record.phase_end
        )
        self.moves += tuple(move for record in rounds for move in _moves(record))
        self.rounds.add([(*_round_row(record), *self._sent(record)) for record in rounds])
        self.shares.add([row for record in rounds for row in _share_rows(record)])
        self.exclusions.add(
            [(record.round, record.phase, out.client_id, out.reason) for record in rounds for out in record.excluded]
        )
        self.declines.add([(record.round, record.phase, client) for record in rounds for client in record.declined])

    def _sent(self, record: RoundRecord) -> _Row:
        """The bytes of the round's adapters, up and down, and of as many whole ones."""
        before, self._answered = self._answered, tuple(update.client_id for update in record.arrived)
        return round_bytes(record, before) or (None, None, None)

    def _records(self, lines: list[bytes]) -> Iterator[RoundRecord | RunEvent]:
        for line in lines:
            try:
                record = _Progress.validate_json(line, strict=True)
            except ValidationError:
                self.unreadable += bool(line.strip())
                continue
            if not _agrees(record):
                self.unreadable += 1
            elif record.run_id == self._run_id:
                yield record


class MetricsLog:
    """`client_metrics.jsonl` of one run. `unreadable` counts lines that are no record."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.clear()

    def clear(self) -> None:
        self.metrics = GrowingFrame(METRICS)
        self.unreadable = 0

    def feed(self, lines: list[bytes]) -> None:
        rows = [_metrics_row(record) for record in self._records(lines) if record.run_id == self._run_id]
        try:
            self.metrics.add(rows)
        except OverflowError:
            held = [row for row in rows if _fit(number for number in row if isinstance(number, int))]
            self.unreadable += len(rows) - len(held)
            self.metrics.add(held)

    def _records(self, lines: list[bytes]) -> Iterator[ClientMetrics]:
        for line in lines:
            try:
                yield ClientMetrics.model_validate_json(line, strict=True)
            except ValidationError:
                self.unreadable += bool(line.strip())


def _fit(numbers: Iterable[int]) -> bool:
    return all(abs(number) <= _LARGEST for number in numbers)


def _agrees(record: RoundRecord | RunEvent) -> bool:
    """Whether the tuples of a round are of one length, and its numbers such as a table can hold."""
    if isinstance(record, RunEvent):
        return _fit((record.round,))
    lengths = {len(record.clients), len(record.weights), len(record.scores)}
    lengths |= set() if record.privacy and not record.contributions else {len(record.contributions)}
    verified = record.verification
    parts = (record.counted, *((verified.prior, verified.standing) if verified else ()))
    lengths |= {len(part) for part in parts if part}
    samples = (*(said.num_samples for said in record.contributions), *(said.counted for said in record.declared))
    examples = () if verified is None else (verified.examples,)
    return len(lengths) == 1 and _fit(
        (
            record.round,
            *record.clients,
            *record.declined,
            *samples,
            *examples,
            *(out.client_id for out in record.excluded),
            *(number for each in record.late for number in (each.client_id, each.round)),
            *record.joined,
            *(each.client_id for each in record.left),
        )
    )


def _moves(record: RoundRecord) -> Iterator[Move]:
    yield from (Move(record.round, client, "joined") for client in record.joined)
    for each in record.left:
        yield Move(record.round, each.client_id, "revoked" if each.revoked else "left")


def _round_row(record: RoundRecord) -> _Row:
    validation, verified, learning = record.validation, record.verification, record.learning
    return (
        record.round,
        record.phase,
        record.time,
        record.seconds,
        len(record.selected),
        len(record.clients),
        len(record.excluded),
        record.effective_clients,
        None if validation is None else validation.loss,
        None if validation is None else validation.preference_accuracy,
        record.update_norm,
        record.adapter_sha256,
        record.aggregation,
        record.lora_error,
        *(
            (None,) * 4
            if verified is None
            else (verified.examples, verified.seconds, verified.loss_prior, verified.loss_weights)
        ),
        learning.before.loss if learning and learning.before else None,
        None if learning is None else learning.seconds,
    )


def _share_rows(record: RoundRecord) -> Iterator[_Row]:
    withheld = record.privacy is not None and not record.contributions
    said = (WITHHELD,) * len(record.clients) if withheld else record.contributions
    samples = [0 if withheld else each.num_samples for each in said]
    claims = {each.client_id: each.counted for each in record.declared}  # a claim counts for so many
    counts = [claims.get(client, number) for client, number in zip(record.clients, samples, strict=True)]
    total = max(1, sum(counts))
    verified = record.verification
    return zip(
        itertools.repeat(record.round),
        itertools.repeat(record.phase),
        record.clients,
        record.weights,
        (None if withheld else number / total for number in counts),
        record.scores,
        (None if withheld else each.avg_loss for each in said),
        samples,
        (verified and verified.prior) or itertools.repeat(None),
        record.counted or itertools.repeat(None),
        (verified and verified.standing) or itertools.repeat(None),
        strict=False,
    )


def _metrics_row(record: ClientMetrics) -> _Row:
    return (
        record.round,
        record.phase,
        record.client_id,
        record.time,
        record.avg_loss,
        record.num_samples,
        record.seconds,
        record.tokens,
        record.tokens_per_second,
        record.steps,
        record.truncated,
        record.update_norm,
    )
