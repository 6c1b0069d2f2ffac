"""The members of an open federation: who may be asked in a round, and who has joined or left before it.

NUM_CLIENTS is the number at the start. A client joins or leaves between two rounds, by a statement that the transport
knows to be the client's own.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from fccl.messages import Statement
from fccl.records.members import Departure

DEALT = "the data is dealt to the clients of the start; SERVER_ONLY lets others bring their own"


@dataclass(frozen=True)
class Members:
    """The members' numbers in order, and the time of the last statement of each client that was taken."""

    clients: tuple[int, ...]
    heard: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Moves:
    """The clients that joined and left before a round, in order."""

    joined: tuple[int, ...] = ()
    left: tuple[Departure, ...] = ()


def after_news(
    before: Members, news: Iterable[Statement], may_join: Container[int] | None, tell: Callable[[str], None]
) -> tuple[Members, Moves]:
    """The members once these statements are taken. One that is not newer than what was heard of its client says
    nothing. `may_join` has those who can join: None is everybody. `tell` hears a line for each move.
    """
    clients, heard = set(before.clients), dict(before.heard)
    joined, left = [], []
    for said in sorted(news, key=lambda each: each.client_id):
        client = said.client_id
        if said.time <= heard.get(client, -1.0) and said.move != "revoked":
            continue
        heard[client] = max(said.time, heard.get(client, -1.0))
        if said.move == "join" and client not in clients:
            if may_join is not None and client not in may_join:
                tell(f"client {client} cannot join: {DEALT}")
                continue
            clients.add(client)
            joined.append(client)
            tell(f"client {client} has joined")
        elif said.move != "join" and client in clients:
            clients.remove(client)
            left.append(Departure(client_id=client, revoked=said.move == "revoked"))
            tell(
                f"client {client} {'has left' if said.move == 'leave' else 'is no member any more: its key is revoked'}"
            )
    return Members(tuple(sorted(clients)), heard), Moves(tuple(joined), tuple(left))
