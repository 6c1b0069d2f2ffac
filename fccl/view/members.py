"""The members of an open federation: who joined and who left, before which round."""

from __future__ import annotations

from fccl.display.tables import Table
from fccl.view.values import Membership, RunView

MOST_ROWS = 400
_NOTE = "The federation is open (--open): clients with a key join and leave between rounds."


def members_table(view: RunView) -> Table | None:
    """A row for each client that joined or left, the newest first; None where nobody did."""
    if not view.moves:
        return None
    rows = [(str(move.client_id), _WORDS[move.what], str(move.round + 1)) for move in view.moves[: -MOST_ROWS - 1 : -1]]
    more = f" The newest {MOST_ROWS} of {len(view.moves):,}." if len(view.moves) > MOST_ROWS else ""
    return Table("Joined and left", ("client", "what", "before round"), tuple(rows), _NOTE + more, words=frozenset({1}))


def member_numbers(view: RunView, start: int) -> list[int]:
    """The members' numbers in order, of a run that began with so many clients."""
    if view.state is not None and view.state.members is not None:
        return list(view.state.members.clients)
    numbers = set(range(start))
    for move in view.moves:
        (numbers.add if move.what == "joined" else numbers.discard)(move.client_id)
    return sorted(numbers)


_WORDS: dict[Membership, str] = {"joined": "✓ joined", "left": "– left", "revoked": "✗ its key was revoked"}
