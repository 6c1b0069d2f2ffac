"""The run in a few figures: how far, how it stands, what its clients do, how long it will take.

Times are seconds since 1970 by the reader's clock: how old a heartbeat is, is judged by when its file changed
(`fccl.view.hearing`), not by what its writer's clock said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import numpy as np

from fccl.records.run import ClientStatus
from fccl.specs import PHASES, Phase
from fccl.view.members import member_numbers
from fccl.view.values import ClientRow, ClientStanding, RunStatus, RunView, Standing

_STALE_S, _TIMEOUT_S = 60.0, 600.0  # by which a run is judged that does not record these settings
_LATE_FACTOR, _LATE_S = 2.0, 10.0
_RECENT = 10  # rounds of a phase that its next ones are expected to be like
_ENOUGH = 0.1  # of the first round, to judge how long it takes
_MOST = 100_000  # clients, or rounds of a phase: no run has more
_ENDS: Mapping[str, Standing] = {"finished": "finished", "interrupted": "interrupted", "failed": "failed"}


def run_status(view: RunView, now: float) -> RunStatus:
    """The figures of a run at the time `now`."""
    facts = _Facts(view, now)
    last = facts.last_round
    return RunStatus(
        standing=facts.standing,
        message=view.events[-1].message if view.events else "",
        phase=facts.phase,
        round=facts.complete,
        total_rounds=facts.total,
        progress=max(facts.progress, view.furthest),
        seconds_left=_seconds_left(facts),
        clients=tuple(_client_row(facts, client) for client in facts.clients),
        validation_loss=last.get("validation_loss"),
        validation_phase=facts.last_phase if "validation_loss" in last else None,
        preference_accuracy=last.get("preference_accuracy"),
        base_loss=None if view.base is None else view.base.loss,
        effective_clients=last.get("effective_clients"),
        aggregated=int(last["clients"]) if "clients" in last else None,
    )


def progress(view: RunView) -> float:
    """The share of the run that is done, 0 ... 1: its complete rounds, and the share of the open one's steps that its
    clients have done.
    """
    return _Facts(view, 0.0).progress


def client_count(view: RunView) -> int | None:
    """The number of the run's clients; None when it does not say."""
    count = _setting(view, "num_clients")
    return int(count) if count is not None and 1 <= count <= _MOST else None


def planned_rounds(view: RunView) -> tuple[int, int] | None:
    """The numbers of SFT rounds and of VA rounds that the run has; None when it does not say."""
    if view.state is not None:
        return view.state.first_va, view.state.total_rounds - view.state.first_va
    each = _setting(view, "fed_rounds")
    own = [_setting(view, name) for name in ("sft_rounds", "va_rounds")]
    found = [each if count is None or count < 0 else count for count in own]
    sft, va = (int(count) if count is not None and 0 <= count <= _MOST else 0 for count in found)
    return (sft, va) if sft + va else None


def original_clients(view: RunView) -> frozenset[int]:
    """The clients that know only the original files. They write no heartbeat, so by heartbeats they are not judged."""
    named = view.info.settings.get("original_clients", "") if view.info else ""
    return frozenset(int(part) for part in named.split(",") if part.strip().isdecimal() and len(part) < 10)


def _setting(view: RunView, name: str) -> float | None:
    try:
        value = float(view.info.settings[name]) if view.info else math.nan
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


class _Facts:
    """Facts that follow from a view at one time; each fact is worked out once."""

    def __init__(self, view: RunView, now: float) -> None:
        self.view, self.now = view, now
        self.statuses = {status.client_id: status for status in view.statuses}

    @cached_property
    def complete(self) -> int:
        """Complete rounds. The state commits a round; without one, the log speaks."""
        if self.view.state is not None:
            return self.view.state.next_round
        return 0 if self.view.rounds.empty else int(self.view.rounds["round"].iloc[-1]) + 1

    @cached_property
    def total(self) -> int:
        if self.view.state is not None:
            return self.view.state.total_rounds
        return sum(planned_rounds(self.view) or (0, 0))

    @property
    def over(self) -> bool:
        """All rounds are complete, though the run may still be writing its results."""
        return 0 < self.total <= self.complete

    @cached_property
    def phase(self) -> Phase | Literal["done"] | None:
        if not self.view.exists or not self.total:
            return None
        return "done" if self.over else self.phase_of(self.complete)

    def phase_of(self, number: int) -> Phase:
        return "sft" if number < self.sft_rounds else "va"

    @cached_property
    def sft_rounds(self) -> int:
        """The number of SFT rounds: VA begins with the round of this number."""
        return (planned_rounds(self.view) or (0, 0))[0]

    @cached_property
    def last_round(self) -> dict[str, float]:
        """The finite figures of the last complete round; empty when it is not in the log."""
        found = self.view.rounds[self.view.rounds["round"] == self.complete - 1]
        if found.empty:
            return {}
        figures = {
            name: float(found[name].iloc[-1])
            for name in ("clients", "effective_clients", "validation_loss", "preference_accuracy")
        }
        return {name: figure for name, figure in figures.items() if math.isfinite(figure)}

    @property
    def last_phase(self) -> Phase:
        found = self.view.rounds[self.view.rounds["round"] == self.complete - 1]
        return "va" if not found.empty and found["phase"].iloc[-1] == "va" else "sft"

    @cached_property
    def standing(self) -> Standing:
        if not self.view.exists:
            return "waiting"
        last = self.view.events[-1].event if self.view.events else ""
        if last in _ENDS:
            return _ENDS[last]
        if not last and self.over:
            return "finished"
        return "silent" if self._is_silent() else "running"

    @property
    def goes_on(self) -> bool:
        return self.standing in ("running", "silent")

    def _is_silent(self) -> bool:
        """Whether nothing has been heard for longer than a run may rightly be quiet.

        Clients that beat while they are idle show that they live, not that the server does; but it may be waiting for
        another one.
        """
        signs = [
            self.view.heard_at(status)
            for status in self.statuses.values()
            if status.state == "training" or status.client_id not in self.view.beating
        ]
        live = any(self.now - self.view.heard_at(self.statuses[client]) <= self.stale_s for client in self.view.beating)
        limit = max(self.stale_s, self.timeout_s) if live or not self.statuses else self.stale_s
        return self.now - max([self.opened, *signs]) > limit

    @cached_property
    def stale_s(self) -> float:
        return _setting(self.view, "heartbeat_stale_s") or _STALE_S

    @cached_property
    def timeout_s(self) -> float:
        return _setting(self.view, "client_timeout_s") or _TIMEOUT_S

    @cached_property
    def opened(self) -> float:
        """The time at which the open round began: that of the last event, record or metrics, whichever is latest."""
        return self.view.last_record if self.view.written is None else self.view.written

    @property
    def elapsed(self) -> float:
        return max(0.0, self.now - self.opened)

    @cached_property
    def clients(self) -> list[int]:
        count = client_count(self.view)
        if count is not None:
            return member_numbers(self.view, count)
        return sorted({*self.statuses, *self.aggregated, *self.excluded, *self.declined})

    @cached_property
    def aggregated(self) -> frozenset[int]:
        """The clients that counted in the last complete round."""
        shares = self.view.shares
        return frozenset(shares["client"].to_numpy()[shares["round"].to_numpy() == self.complete - 1].tolist())

    @cached_property
    def excluded(self) -> frozenset[int]:
        """The clients that were excluded from the last complete round."""
        rows = self.view.exclusions
        return frozenset(rows["client"].to_numpy()[rows["round"].to_numpy() == self.complete - 1].tolist())

    @cached_property
    def declined(self) -> frozenset[int]:
        """The clients that took no part in the last complete round, since they decline its phase."""
        rows = self.view.declines
        return frozenset(rows["client"].to_numpy()[rows["round"].to_numpy() == self.complete - 1].tolist())

    @cached_property
    def all_are_asked(self) -> bool:
        """Whether every client is asked in every round; otherwise nobody but the server knows who is."""
        return (_setting(self.view, "clients_per_round") or 0.0) in (0.0, float(client_count(self.view) or 0))

    @cached_property
    def current(self) -> dict[int, ClientStatus]:
        """The heartbeats that are about the open round."""
        return {
            client: status
            for client, status in self.statuses.items()
            if (status.run_id, status.round) == (self.view.run_id, self.complete)
        }

    @cached_property
    def share(self) -> float:
        """The share of the open round that its clients have done, 0 ... 1."""
        asked = _setting(self.view, "clients_per_round") or client_count(self.view) or len(self.statuses)
        return min(1.0, sum(map(_share, self.current.values())) / max(1.0, asked))

    @cached_property
    def progress(self) -> float:
        if self.over or (self.view.events and self.view.events[-1].event == "finished"):
            return 1.0
        return (self.complete + self.share) / self.total if self.total else 0.0

    @cached_property
    def training_s(self) -> dict[int, float]:
        """The seconds that each client trained in the last complete round; empty when that was of another phase than
        the open one.
        """
        if not self.complete or self.phase_of(self.complete) != self.phase_of(self.complete - 1):
            return {}
        rows = self.view.metrics[self.view.metrics["round"] >= self.complete - 1]
        return dict(zip(rows["client"].tolist(), rows["seconds"].tolist(), strict=True))

    @cached_property
    def median_s(self) -> float:
        """The median of these times; infinite when there are none, so that nobody is late."""
        return float(np.median(list(self.training_s.values()))) if self.training_s else math.inf

    def is_too_long(self, client: int, seconds: float) -> bool:
        """Whether a client should have trained by now: by the median of the last round, or by itself where it takes
        longer than that.
        """
        usual = max(self.median_s, self.training_s.get(client, 0.0))
        return seconds > max(_LATE_S, _LATE_FACTOR * usual)


def _share(status: ClientStatus) -> float:
    """The share of its round that a client has done, 0 ... 1."""
    if status.state in ("done", "failed", "declined"):
        return 1.0
    if status.state != "training" or not status.steps:
        return 0.0
    return status.step / status.steps if status.step < status.steps else 1.0


def _client_row(facts: _Facts, client: int) -> ClientRow:
    status = facts.statuses.get(client)
    age = None if status is None else max(0.0, facts.now - facts.view.heard_at(status))
    ended = facts.over or facts.standing == "finished"
    standing = _at_the_end(facts, client) if ended else _in_the_open_round(facts, client, age)
    declined = (facts.last_phase if ended else facts.phase_of(facts.complete)) if standing == "declined" else None
    return ClientRow(client, standing, status, age, declined)


def _at_the_end(facts: _Facts, client: int) -> ClientStanding:
    if client in facts.aggregated:
        return "done"
    if client in facts.declined:
        return "declined"
    return "failed" if client in facts.excluded else "waiting"


def _in_the_open_round(facts: _Facts, client: int, age: float | None) -> ClientStanding:
    if client in original_clients(facts.view):
        return "waiting"
    status = facts.current.get(client)
    trains = status is not None and status.state == "training"
    if status is not None and status.state in ("failed", "done", "declined"):
        return status.state
    stale = age is not None and age > facts.stale_s
    if stale and (client in facts.view.beating or (trains and facts.goes_on)):
        return "dead"
    if facts.goes_on and (
        _takes_too_long(facts, client) if trains else _is_behind(facts, client) or _does_not_begin(facts, client)
    ):
        return "late"
    works = trains and not stale and (facts.goes_on or client in facts.view.beating)
    return "training" if works else "waiting"


def _takes_too_long(facts: _Facts, client: int) -> bool:
    """Whether a client trains for much longer than is usual.

    Clients of one process begin when the one before them is done.
    """
    turns = (
        []
        if facts.view.beating
        else [facts.view.heard_at(status) for status in facts.current.values() if status.state != "training"]
    )
    return facts.is_too_long(client, facts.now - max([facts.opened, *turns]))


def _is_behind(facts: _Facts, client: int) -> bool:
    """Whether a client still works on a round that the server has closed."""
    status = facts.statuses.get(client)
    return (
        status is not None
        and client in facts.view.beating
        and status.state == "training"
        and status.round < facts.complete
    )


def _does_not_begin(facts: _Facts, client: int) -> bool:
    """Whether a client that is asked, and has a process of its own, should have begun long ago.

    One that counts without heartbeats is not judged.
    """
    judged = client in facts.statuses or client not in facts.aggregated
    return bool(facts.view.beating) and facts.all_are_asked and judged and facts.is_too_long(client, facts.elapsed)


def _seconds_left(facts: _Facts) -> float | None:
    """The seconds that the open round and those after it will take; None when the run does not go on or nothing is
    known.
    """
    if facts.standing != "running" or facts.over or not facts.total:
        return None
    sft, va = _round_seconds(facts, "sft"), _round_seconds(facts, "va")
    if sft is None or va is None:
        return None
    later = facts.total - facts.complete - 1
    later_sft = max(0, facts.sft_rounds - facts.complete - 1)
    left = _open_round_left(facts, sft if facts.phase == "sft" else va) + later_sft * sft + (later - later_sft) * va
    return left if math.isfinite(left) else None


def _open_round_left(facts: _Facts, expected: float) -> float:
    if facts.elapsed < expected or not facts.share:
        return max(0.0, expected - facts.elapsed)
    return facts.elapsed * (1 - facts.share) / facts.share


def _round_seconds(facts: _Facts, phase: Phase) -> float | None:
    """The seconds that a round of this phase takes: by the last ones, else by the other phase's and the steps
    of both.
    """
    known = _seconds_so_far(facts, phase)
    if known is not None:
        return known
    other: Phase = "va" if phase == "sft" else "sft"
    stand_in = _seconds_so_far(facts, other)
    return None if stand_in is None else stand_in * _steps(facts, phase) / _steps(facts, other)


def _seconds_so_far(facts: _Facts, phase: Phase) -> float | None:
    """The seconds that the last rounds of this phase took; the first one, while it is open, by its clients' steps."""
    rounds = facts.view.rounds
    seconds = rounds["seconds"].to_numpy()[(rounds["phase"] == phase).to_numpy()]
    if len(seconds):
        return float(np.median(seconds[-_RECENT:]))
    return facts.elapsed / facts.share if facts.phase == phase and facts.share >= _ENOUGH else None


def _steps(facts: _Facts, phase: Phase) -> float:
    """The steps of a round in which every client takes part, by the manifest; 1 when there is none, so that both phases
    count the same.
    """
    samples = facts.view.manifest.samples_by_client() if facts.view.manifest else {}
    batch = max(1.0, _setting(facts.view, "batch_size") or 1.0)
    steps = {
        name: sum(math.ceil(count / batch) for count in of_phase.values())
        * (_setting(facts.view, f"{name}_local_epochs") or 1.0)
        for name, of_phase in samples.items()
    }
    return steps[phase] if all(steps.get(name) for name in PHASES) else 1.0
