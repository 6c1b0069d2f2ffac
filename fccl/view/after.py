"""Tables of what was asked about a finished run: replays, influence, checks, clients that were taken out."""

from __future__ import annotations

from fccl import phases
from fccl.display import words
from fccl.display.tables import Cell, Table
from fccl.records.after import (
    ClientMatrix,
    Forgotten,
    HelpsWhom,
    Influence,
    MeasuredInfluence,
    Replay,
    ReplayedRound,
    RunCheck,
)
from fccl.records.run import Validation

MOST_ROWS = 400
FEWEST = 5  # held-out examples of a client: a mean over fewer says more of one of them than of the client
_MEASURES = {"instructions": "instructions (nats/token)", "pairs": "preference pairs (nats/pair)"}


def replay_title(replay: Replay) -> str:
    """The changes of a replay, in words."""
    parts = [f"{name.upper()}={value}" for name, value in sorted(replay.changes.items())]
    parts += [f"without client {client}" for client in replay.without]
    parts += [] if replay.retrained_from is None else [f"trained anew from round {replay.retrained_from + 1}"]
    return f"Replay of run {replay.run_id}: {', '.join(parts) or 'as it was'}"


def replay_table(replay: Replay) -> Table:
    """A row a round: validation loss in the run and in the replay."""
    rows = tuple(map(_round_row, replay.rounds[:MOST_ROWS]))
    head = ("round", "phase", "clients", "loss in the run", "loss in the replay", "difference", "bytes")
    return Table(replay_title(replay), head, rows, replay.says, words=frozenset({1, 6}), spare=frozenset({2}))


def _round_row(each: ReplayedRound) -> tuple[Cell | str, ...]:
    was, now = _loss(each.recorded), _loss(each.replayed)
    return (
        str(each.round + 1),
        phases.title(each.phase),
        " ".join(map(str, each.clients)),
        words.loss(was),
        words.loss(now),
        words.DASH if was is None or now is None else signed(now - was),
        "the same" if each.same else "trained anew" if each.trained else "others",
    )


def _loss(validation: Validation | None) -> float | None:
    return None if validation is None else validation.loss


def influence_tables(influence: Influence) -> tuple[Table, ...]:
    """A table for each loss of the final model, the client with the largest Shapley value first."""
    return tuple(_influence_table(influence, each) for each in influence.measures)


def _influence_table(influence: Influence, each: MeasuredInfluence) -> Table:
    ranked = sorted(each.clients, key=lambda client: -client.shapley)[:MOST_ROWS]
    rows = tuple(
        (
            f"client {client.client_id}",
            str(client.rounds),
            signed(client.left_out),
            Cell(signed(client.shapley), interval=f"± {client.error:.4f}" if client.error else ""),
        )
        for client in ranked
    )
    note = (
        f"By how much each lowers the final model's loss on {words.plural(each.examples, 'validation example')}; below "
        f"0 it raises it. The loss is {each.after:.4f}; it was {each.before:.4f} before round "
        f"{influence.first_round + 1}, and the Shapley values sum to the difference. {influence.says}"
    )
    head = ("client", "rounds", "left out", "Shapley value")
    return Table(f"Influence on {_MEASURES[each.measure]}", head, rows, note)


def matrix_tables(matrix: ClientMatrix) -> tuple[Table, ...]:
    """A table for each phase: rows are updates, columns the owners of held-out examples. The darkest helps most;
    columns of too few examples have no shade.
    """
    return tuple(map(_matrix_table, matrix.phases))


def _matrix_table(found: HelpsWhom) -> Table:
    says = [count >= FEWEST for count in found.examples]  # of each column
    told = [fall for row in found.falls for fall, enough in zip(row, says, strict=True) if enough]
    largest = max(map(abs, told), default=0.0) or 1.0
    owners = zip(found.owners, found.examples, says, strict=True)
    head = tuple(f"data of {owner} ({count:,}{'' if enough else ': few'})" for owner, count, enough in owners)
    rows: list[tuple[Cell | str, ...]] = [
        (f"client {client}", *(_fall(fall, enough, largest) for fall, enough in zip(falls, says, strict=True)))
        for client, falls in zip(found.updates, found.falls, strict=True)
    ]
    few = "" if all(says) else f" Columns with fewer than {FEWEST} examples are of those, not of the client."
    note = (
        "By how much each client's update alone lowers the loss on the examples that each client keeps apart "
        f"({phases.of(found.phase).unit}); below 0 it harms. Mean of {words.plural(found.rounds, 'round')}, each "
        f"from the adapter that it began with. In brackets: how many examples.{few}"
    )
    title = f"Whose update helps whom: {phases.title(found.phase)}"
    return Table(title, ("update of", *head), tuple(rows[:MOST_ROWS]), note)


def _fall(fall: float, enough: bool, largest: float) -> Cell:
    return Cell(signed(fall), shade=max(0.0, fall / largest) if enough else None)


def check_table(check: RunCheck) -> Table:
    """A row for each thing that was checked."""
    rows = tuple(
        (each.name, Cell(each.outcome, strong=each.outcome == "failed"), each.detail) for each in check.findings
    )
    return Table(verdict(check), ("what", "outcome", "detail"), rows, words=frozenset({1, 2}))


def verdict(check: RunCheck) -> str:
    """One line on all findings."""
    count = {outcome: sum(each.outcome == outcome for each in check.findings) for outcome in ("ok", "failed")}
    rest = len(check.findings) - sum(count.values())
    said = f"{count['ok']} checks hold, {count['failed']} fail, {rest} could not be made"
    return f"Run {check.run_id}: {_found(check)}; {said}"


def _found(check: RunCheck) -> str:
    if not check.sound:
        return "not as it was made"
    again = any(each.name.startswith("round ") and each.outcome == "ok" for each in check.findings)
    return "nothing was found wrong" if again else "nothing was found wrong, and no round could be made again"


def forgotten_table(forgotten: Forgotten) -> Table:
    """The client's own examples under each model."""
    rows = tuple(
        (each.model, phases.title(each.phase), f"{each.examples:,}", words.loss(each.loss)) for each in forgotten.left
    )
    title = f"What is left of client {forgotten.client_id}: loss on its own training examples"
    return Table(title, ("model", "phase", "examples", "loss"), rows, forgotten.says, words=frozenset({1}))


def signed(difference: float) -> str:
    """A difference of losses with its sign."""
    return f"{difference:+,.4f}".replace("-", words.MINUS)
