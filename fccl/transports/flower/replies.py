"""`SiteReplies`: pulls the sites' replies from a SuperLink, so that no half-sent reply holds the others back.

A reply is known before all of it is there. Where a site's connection breaks meanwhile, the grid waits for the rest,
together with everything else that was found in the same pull. After three minutes the SuperLink gives the reply up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

PATIENCE_S = 2.0  # a pull that takes longer is waited for aside
LANES = 8  # pulls at a time, each of other nodes


@dataclass
class _Pull:
    thread: threading.Thread
    found: list[Message] = field(default_factory=list)
    error: BaseException | None = None


@dataclass
class SiteReplies:
    """Pulls the replies of each node in a thread of its own; of more than `LANES` nodes, in so many groups.

    A pull that takes longer than `patience_s` is left to itself, and its replies are taken later. Meanwhile its group
    is pulled again. A SuperLink hands out each reply once, so the next pull does not wait for the same one.
    """

    grid: Grid
    patience_s: float = PATIENCE_S
    _lanes: dict[int, int] = field(default_factory=dict)  # node -> the group that it is in
    _slow: list[_Pull] = field(default_factory=list)

    def to(self, messages: Mapping[str, int]) -> list[Message]:
        """The replies to these messages, each with its node, that are there now.

        Raises what the grid raises; what the other pulls have brought then comes with the next call.
        """
        under_way = [*self._slow, *(self._start(ids) for ids in self._grouped(messages))]
        end = time.monotonic() + self.patience_s
        for pull in under_way[len(self._slow) :]:
            pull.thread.join(max(end - time.monotonic(), 0.0))
        done = [pull for pull in under_way if not pull.thread.is_alive()]
        self._slow = [pull for pull in under_way if pull.thread.is_alive()]
        if failed := [pull for pull in done if pull.error is not None]:
            self._slow += [pull for pull in done if pull.error is None]
            raise failed[0].error or AssertionError
        return [reply for pull in done for reply in pull.found]

    def _grouped(self, messages: Mapping[str, int]) -> Iterable[list[str]]:
        groups: dict[int, list[str]] = {}
        for message_id, node in messages.items():
            lane = self._lanes.setdefault(node, len(self._lanes) % LANES)
            groups.setdefault(lane, []).append(message_id)
        return groups.values()

    def _start(self, message_ids: list[str]) -> _Pull:
        def work() -> None:
            try:
                made.found.extend(self.grid.pull_messages(message_ids))
            except BaseException as error:  # raised where the replies are taken
                made.error = error

        made = _Pull(threading.Thread(target=work, name="flower replies", daemon=True))
        made.thread.start()
        return made
