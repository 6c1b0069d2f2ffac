"""A replay as a record: what every round was, what it is in the replay, and what the figures are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from fccl.adapters.adapter import Adapter
from fccl.federation.replay import ReplayedRun
from fccl.federation.state import RoundResult
from fccl.paths import LogPaths
from fccl.records.after import Replay, ReplayedRound
from fccl.records.journal import read_rounds
from fccl.records.run import RoundRecord

AS_IT_WAS = "Nothing was changed: every round was made again from its kept updates."
CARRIED = (
    "A guess without training: the updates of later rounds were trained from the run's own global adapters, and their "
    "changes are made from the replay's here. --retrain ROUND trains anew from a round on."
)
BY_ROUND = (
    "Each round begins with the adapter that it had in the run, so a change in one round has no effect on the next; "
    "the last round's adapter is no run's result. --retrain ROUND trains anew from a round on."
)


def words_of(replay: ReplayedRun, changes: Mapping[str, str]) -> str:
    """Words on what the figures of a replay are, and are not. Every output has them."""
    said = _kind(replay, bool(changes))
    first = replay.numbers.start
    if first and replay.retrain_from != first:
        said += f" It begins with round {first + 1}: the updates of earlier rounds are no longer kept."
    return said


def _kind(replay: ReplayedRun, changed: bool) -> str:
    if replay.retrain_from is not None:
        before = f" {BY_ROUND if replay.by_round else CARRIED}" if replay.numbers.start < replay.retrain_from else ""
        return f"From round {replay.retrain_from + 1} on the clients trained anew.{before}"
    if not changed and not replay.without:
        return AS_IT_WAS
    return BY_ROUND if replay.by_round else CARRIED


def replay_record(
    replay: ReplayedRun, changes: Mapping[str, str], on_round: Callable[[ReplayedRound], None] = lambda round: None
) -> tuple[Replay, Adapter]:
    """The replay, done; `on_round` hears each round. Returns its record and the adapter that it ends with.

    Raises as `ReplayedRun.rounds` does.
    """
    said, records = words_of(replay, changes), records_by_round(replay.logs)
    rounds, adapter = [], None
    for result in replay.rounds():
        anew = replay.retrain_from is not None and result.record.round >= replay.retrain_from
        rounds.append(replayed_round(result, records.get(result.record.round), anew))
        on_round(rounds[-1])
        adapter = result.state.result
    assert adapter is not None  # there is a round, or `numbers` has raised
    made = Replay(
        run_id=replay.federation.run_id,
        time=time.time(),
        changes=dict(changes),
        without=tuple(sorted(replay.without)),
        by_round=replay.by_round,
        retrained_from=replay.retrain_from,
        says=said,
        rounds=tuple(rounds),
        adapter_sha256=adapter.sha256,
    )
    return made, adapter


def replayed_round(result: RoundResult, recorded: RoundRecord | None, anew: bool) -> ReplayedRound:
    """A round's result beside its record."""
    now = result.record
    return ReplayedRound(
        round=now.round,
        phase=now.phase,
        clients=now.clients,
        weights=now.weights,
        trained=anew,
        recorded=recorded.validation if recorded else None,
        replayed=now.validation,
        same=recorded is not None and recorded.adapter_sha256 == now.adapter_sha256,
        adapter_sha256=now.adapter_sha256,
    )


def records_by_round(logs: LogPaths) -> dict[int, RoundRecord]:
    """The run's rounds by their numbers."""
    records = read_rounds(logs)
    return {record.round: record for record in records}


def rounds_with(logs: LogPaths, client_id: int) -> Collection[int]:
    """The rounds in which an update of a client arrived, in order."""
    return [
        number
        for number, record in sorted(records_by_round(logs).items())
        if client_id in record.clients or client_id in {each.client_id for each in record.arrived}
    ]
