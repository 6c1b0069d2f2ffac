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
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

PATIENCE_S = 2.0  # a pull that takes longer is waited for aside
LANES = 8  # pulls at a time, each of other nodes
MOST_SLOW = 8  # pulls of a group that are waited for aside; with so many of them it is not pulled again


@dataclass(eq=False)
class _Pull:
    lane: int
    asked: frozenset[str]
    thread: threading.Thread
    found: list[Message] = field(default_factory=list)
    error: BaseException | None = None
    holds: set[str] = field(default_factory=set)  # messages that later pulls were told are unavailable

    @property
    def is_slow(self) -> bool:
        """Whether it is still under way."""
        return self.thread.is_alive()


@dataclass
class SiteReplies:
    """Pulls the replies of each node in a thread of its own; of more than `LANES` nodes, in so many groups.

    A pull that takes longer than `patience_s` is left to itself, and its replies are taken later. Meanwhile its group
    is pulled again. A SuperLink hands out each reply once and forgets it: the next pull hears that the message is
    unavailable. While an earlier pull has asked for the same message this says that the earlier one has the reply.
    """

    grid: Grid
    patience_s: float = PATIENCE_S
    _lanes: dict[int, int] = field(default_factory=dict)  # node -> the group that it is in
    _slow: list[_Pull] = field(default_factory=list)  # in the order in which they were begun, all that is not taken

    def to(self, messages: Mapping[str, int]) -> list[Message]:
        """The replies to these messages, each with its node, that are there now.

        Raises what the grid raises; what the other pulls have brought then comes with the next call.
        """
        new = [self._start(lane, ids) for lane, ids in self._grouped(messages).items()]
        end = time.monotonic() + self.patience_s
        for pull in new:
            pull.thread.join(max(end - time.monotonic(), 0.0))
        under_way = [*self._slow, *new]
        done = [pull for pull in under_way if not pull.is_slow]
        failed = [pull for pull in done if pull.error is not None]
        for pull in done:
            earlier = under_way[: under_way.index(pull)]
            pull.found = [reply for reply in pull.found if not _is_held(reply, earlier)]
        self._slow = [pull for pull in under_way if pull not in (failed or done)]
        if failed:
            raise failed[0].error or AssertionError
        return [reply for pull in done for reply in pull.found]

    def _grouped(self, messages: Mapping[str, int]) -> dict[int, list[str]]:
        """The messages to ask for now, by group."""
        groups: dict[int, list[str]] = {}
        slow = [pull for pull in self._slow if pull.is_slow]
        held = set[str]().union(*(pull.holds for pull in slow))
        for message_id, node in messages.items():
            lane = self._lanes.setdefault(node, len(self._lanes) % LANES)
            if message_id not in held and sum(pull.lane == lane for pull in slow) < MOST_SLOW:
                groups.setdefault(lane, []).append(message_id)
        return groups

    def _start(self, lane: int, message_ids: list[str]) -> _Pull:
        def work() -> None:
            try:
                made.found.extend(self.grid.pull_messages(message_ids))
            except BaseException as error:  # raised where the replies are taken
                made.error = error

        thread = threading.Thread(target=work, name="flower replies", daemon=True)
        made = _Pull(lane, frozenset(message_ids), thread)
        thread.start()
        return made


def _is_held(reply: Message, earlier: Iterable[_Pull]) -> bool:
    """Whether a reply only says that an earlier pull has the message's own. That pull is told so."""
    if not reply.has_error() or reply.error.code != ErrorCode.MESSAGE_UNAVAILABLE:
        return False
    message_id = reply.metadata.reply_to_message_id
    holders = [pull for pull in earlier if message_id in pull.asked]
    for pull in holders:
        pull.holds.add(message_id)
    return bool(holders)
