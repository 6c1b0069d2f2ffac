"""`Nodes`: the SuperNodes that are online, and whose site each says it is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fccl.transports.flower.client_app import CLIENT_ID, RUN_ID
from fccl.transports.flower.node_keys import NodeKeys

_ASK_AGAIN_S = 5.0  # after a node that has said nothing sensible
_ASK_TTL_S = 600.0


@dataclass
class Nodes:
    """Asks every new node whose site it is. Of two that name the same client the one that has said so last counts: a
    SuperNode that is started again without a key of its own is another node.

    With `keys` a node is believed only when it has the node key of the client that it names.
    """

    grid: Grid
    keys: NodeKeys | None = None
    run_id: str = ""  # the federation's run; nobody is asked before it is known
    online: frozenset[int] = frozenset()
    doubts: dict[int, str] = field(default_factory=dict)  # client -> why the last node that named it is not believed
    _owners: dict[int, int] = field(default_factory=dict)  # node -> the client whose key it has
    _clients: dict[int, int] = field(default_factory=dict)  # node -> client, in the order in which they have said it
    _asked: dict[str, int] = field(default_factory=dict)  # message -> node
    _again: dict[int, float] = field(default_factory=dict)  # node -> when it may be asked again

    def look(self) -> None:
        """See who is online, and ask who is new."""
        seen = {node.node_id: node.public_key for node in self.grid.get_nodes()}
        self.online = frozenset(seen)
        clients = {key: client for client, key in (self.keys or {}).items()}
        self._owners = {node: clients[key] for node, key in seen.items() if key in clients}
        self._clients = {node: client for node, client in self._clients.items() if node in self.online}
        if not self.run_id:
            return
        waited_for = set(self._asked.values())
        for node in sorted(self.online - set(self._clients) - waited_for):
            if time.monotonic() >= self._again.get(node, 0.0):
                self._ask(node)

    def of(self, client_id: int) -> int | None:
        """The node of a client's site, if one is online."""
        found = [node for node, client in self._clients.items() if client == client_id]
        return found[-1] if found else None

    def is_coming(self, client_id: int) -> bool:
        """Whether a node with this client's key is online and has not said yet whose site it is."""
        return any(self._owners.get(node) == client_id for node in self._asked.values())

    @property
    def clients(self) -> tuple[int, ...]:
        """The clients whose sites are online, in order."""
        return tuple(sorted(set(self._clients.values())))

    @property
    def open_questions(self) -> Iterable[str]:
        """The messages that are not answered yet."""
        return tuple(self._asked)

    def hear(self, reply: Message) -> bool:
        """Take a reply to one of the questions; says whether it is one."""
        node = self._asked.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            return False
        client_id = _said(reply)
        if client_id is None or not self._is_believed(node, client_id):
            self._again[node] = time.monotonic() + _ASK_AGAIN_S
        else:
            self._clients[node] = client_id
        return True

    def _is_believed(self, node: int, client_id: int) -> bool:
        """Whether a node may name this client. A doubt is kept until a node is believed."""
        if self.keys is None or (owner := self._owners.get(node)) == client_id:
            self.doubts.pop(client_id, None)
            return True
        known = "of no client" if owner is None else f"client {owner}'s"
        self.doubts[client_id] = f"a SuperNode says so, but its node key is {known}"
        return False

    def _ask(self, node: int) -> None:
        question = Message(
            RecordDict({"run": ConfigRecord({RUN_ID: self.run_id})}), node, MessageType.QUERY, ttl=_ASK_TTL_S
        )
        for message_id in self.grid.push_messages([question]):
            if message_id:
                self._asked[message_id] = node


def _said(reply: Message) -> int | None:
    """The client that a reply names."""
    site = reply.content.get("site") if reply.has_content() else None
    number = site.get(CLIENT_ID) if isinstance(site, ConfigRecord) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None
