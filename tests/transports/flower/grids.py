"""A real grid without processes: Flower's own link state in memory, and a thread in the place of each SuperNode."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import (
    HEARTBEAT_INTERVAL_INF,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    ErrorCode,
)
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from fccl.transports.flower.client_app import CLIENT_ID, EXCHANGE_DIR, app

Answer = Callable[[Message, Context], Message | None]  # None: the message has never arrived


@dataclass
class SuperNodes:
    """The nodes of one grid; `start` and `stop` them at any time. `handled` counts each node's messages."""

    state: Any
    grid: InMemoryGrid
    handled: dict[int, int] = field(default_factory=dict)
    _stops: dict[int, threading.Event] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, client_id: int, folder: Path, answer: Answer = app, key: bytes = b"") -> int:
        """A SuperNode for the site of a client, whose app is `answer`, with this node key or one of its own. Returns
        the node's number."""
        key = key or secrets.token_bytes(32)
        node = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_INTERVAL_INF)
        self.state.acknowledge_node_heartbeat(node_id=node, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
        config = {CLIENT_ID: client_id, EXCHANGE_DIR: str(folder)}
        context = Context(self.grid.run.run_id, node, config, RecordDict(), {})
        stop = self._stops[node] = threading.Event()
        thread = threading.Thread(target=self._work, args=(node, context, answer, stop), daemon=True)
        self._threads.append(thread)
        thread.start()
        return node

    def stop(self, node: int) -> None:
        """Its messages are answered no more; the SuperLink sees it go."""
        self._stops[node].set()
        self.state.deactivate_node(node)

    def join(self) -> None:
        """Stop all."""
        for stop in self._stops.values():
            stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _work(self, node: int, context: Context, answer: Answer, stop: threading.Event) -> None:
        while not stop.wait(0.005):
            for message in self.state.get_message_ins(node_id=node, limit=1):
                self.handled[node] = self.handled.get(node, 0) + 1
                try:
                    reply = answer(message, context)
                except Exception as error:  # as Flower's own ClientApp process does
                    reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, repr(error)), reply_to=message)
                if reply is None:
                    continue
                reply.metadata.__dict__["_message_id"] = str(uuid4())
                if not stop.is_set():
                    self.state.store_message_res(reply)


@contextmanager
def super_link() -> Iterator[SuperNodes]:
    """A running run of a link state in memory, and no node yet."""
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    state = factory.state()
    run_id = state.create_run(None, None, "9f86d0", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, "flwr-serverapp")
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, SUPERLINK_NODE_ID
    grid = InMemoryGrid(factory)
    grid.set_run(state.get_run_info(run_ids=[run_id])[0])
    nodes = SuperNodes(state, grid)
    try:
        yield nodes
    finally:
        nodes.join()


@contextmanager
def super_nodes(folders: Mapping[int, Path], answer: ClientApp | Answer = app) -> Iterator[SuperNodes]:
    """A SuperNode for each of these clients, with the site's folder."""
    with super_link() as nodes:
        for client_id, folder in folders.items():
            nodes.start(client_id, folder, answer)
        yield nodes
