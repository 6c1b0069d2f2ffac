"""`Nodes`: the SuperNodes that are online, and whose site each says it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fccl.transports.flower.client_app import CLIENT_ID, RUN_ID
from fccl.transports.flower.lost import LOST_S
from fccl.transports.flower.node_keys import NodeKeys

_OF_SUPERLINK = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

_ASK_AGAIN_S = 5.0  # after a node that has said nothing sensible
_ASK_TTL_S = 600.0


@dataclass
class Nodes:
    """Asks every new node whose site it is. Of two that name the same client the one that has said so last counts: a
    SuperNode that is started again without a key of its own is another node.

    With `keys` a node is believed only when it has the node key of the client that it names.

    A node that is at work for an earlier server says nothing until that is done. Its question may also be lost, so
    after `lost_s` it is asked once more, and then after ever longer times. Any of its answers will do.
    """

    grid: Grid
    keys: NodeKeys | None = None
    lost_s: float = LOST_S
    run_id: str = ""  # the federation's run; nobody is asked before it is known
    online: frozenset[int] = frozenset()
    seen: Mapping[int, float] = field(default_factory=dict)  # client -> when its site was last online, since 1970
    silent: frozenset[int] = frozenset()  # nodes online that were asked and have not said anything yet
    doubts: dict[int, str] = field(default_factory=dict)  # client -> why the last node that named it is not believed
    _looked: bool = False  # whether those online have been asked, in this run
    _owners: dict[int, int] = field(default_factory=dict)  # node -> the client whose key it has
    _clients: dict[int, int] = field(default_factory=dict)  # node -> client, in the order in which they have said it
    _asked: dict[str, int] = field(default_factory=dict)  # message -> node
    _times: dict[int, int] = field(default_factory=dict)  # node -> how often it was asked without an answer
    _again: dict[int, float] = field(default_factory=dict)  # node -> when it may be asked again

    def look(self) -> None:
        """See who is online, and ask who is new."""
        seen = {node.node_id: node.public_key for node in self.grid.get_nodes()}
        self.online = frozenset(seen)
        clients = {key: client for client, key in (self.keys or {}).items()}
        self._owners = {node: clients[key] for node, key in seen.items() if key in clients}
        self._clients = {node: client for node, client in self._clients.items() if node in self.online}
        self.seen = {**self.seen, **dict.fromkeys(self._clients.values(), time.time())}
        self.silent &= self.online
        self._again = {node: when for node, when in self._again.items() if node in self.online}
        self._times = {node: times for node, times in self._times.items() if node in self.online}
        if not self.run_id:
            return
        for node in sorted(self.online - set(self._clients)):
            if time.monotonic() >= self._again.get(node, 0.0):
                self._ask(node)
        self._looked = True

    def is_coming(self, client_id: int) -> bool:
        """Whether a node may be online that is this client's and has not said so yet."""
        return not self._looked or any(self.keys is None or self._owners.get(node) == client_id for node in self.silent)

    @property
    def places(self) -> dict[int, int]:
        """The node of every client whose site is online, by client."""
        return {client: node for node, client in self._clients.items()}

    @property
    def open_questions(self) -> Mapping[str, int]:
        """The messages that are not answered yet, each with its node."""
        return dict(self._asked)

    def hear(self, reply: Message) -> bool:
        """Take a reply to one of the questions; says whether it is one."""
        node = self._asked.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            return False
        self._again[node] = time.monotonic() + _ASK_AGAIN_S
        if _is_of_superlink(reply):  # the node has heard nothing
            return True
        self.silent -= {node}
        self._times.pop(node, None)
        client_id = _said(reply)
        if client_id is not None and self._is_believed(node, client_id):
            self._clients = {**self._clients, node: client_id}  # never changed in place: another thread reads it
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
        about = RecordDict({"run": ConfigRecord({RUN_ID: self.run_id})})
        times = self._times.get(node, 0)
        question = Message(about, node, MessageType.QUERY, ttl=max(_ASK_TTL_S, self.lost_s))
        for message_id in self.grid.push_messages([question]):
            if message_id:
                self._asked[message_id], self._times[node] = node, times + 1
                self._again[node] = time.monotonic() + self.lost_s * 2**times
                self.silent |= {node}


def _is_of_superlink(reply: Message) -> bool:
    """Whether no node has said this: the question has expired, or was lost."""
    return reply.has_error() and reply.error.code in _OF_SUPERLINK


def _said(reply: Message) -> int | None:
    """The client that a reply names."""
    site = reply.content.get("site") if reply.has_content() else None
    number = site.get(CLIENT_ID) if isinstance(site, ConfigRecord) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None
