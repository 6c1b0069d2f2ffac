"""No reply that comes slowly holds another node's back, and every reply is given once."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
from flwr.common.constant import ErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.transports.flower.replies import LANES, MOST_SLOW, SiteReplies
from tests.examples import few
from tests.transports.exchange_tools import until

NODES = 20
MESSAGES = {f"message {number}": number % NODES for number in range(2 * NODES)}  # two of each node


class Reply:
    """A reply to a message; with an error, that the message is unavailable."""

    def __init__(self, message, is_error=False):
        self.metadata, self._is_error = SimpleNamespace(reply_to_message_id=message), is_error
        self.error = SimpleNamespace(code=ErrorCode.MESSAGE_UNAVAILABLE)

    def has_error(self):
        return self._is_error

    def __str__(self):
        return f"{'no ' if self._is_error else ''}reply to {self.metadata.reply_to_message_id}"


class Grid:
    """Hands out each reply once and forgets its message, as a SuperLink does. A pull that meets one of the `held` waits
    for its release, with all that it has found so far, and of those `given_up` it has nothing then. One that asks for a
    message in `broken` is an error and takes nothing."""

    def __init__(self):
        self.ready, self.held, self.broken, self.given_up, self.gone = [], {}, set(), set(), set()
        self.waiting, self.most, self._under_way, self._lock = 0, 0, 0, threading.Lock()

    def hold(self, message):
        self.held[message] = threading.Event()

    def pull_messages(self, messages):
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way - self.waiting)
        try:
            return self._found(set(messages))
        finally:
            with self._lock:
                self._under_way -= 1

    def _found(self, messages):
        with self._lock:
            if broken := messages & self.broken:
                self.broken -= broken
                raise RuntimeError(f"no answer to {sorted(broken)}")
            found = [message for message in self.ready if message in messages]
            unavailable = messages & self.gone
            self.gone.update(found)
            self.ready = [message for message in self.ready if message not in messages]
            waits = [self.held[message] for message in found if message in self.held]
            self.waiting += len(waits)
        for event in waits:
            assert event.wait(60)
        with self._lock:
            self.waiting -= len(waits)
        return [Reply(each, each in self.given_up) for each in found] + [Reply(each, True) for each in unavailable]


def pulled(replies, messages):
    return sorted(map(str, replies.to(messages)))


def replies_to(messages):
    return sorted(f"reply to {message}" for message in messages)


def first_of(node):
    return f"message {node}"


@settings(max_examples=few(25))
@given(st.sets(st.integers(0, LANES - 1), min_size=1, max_size=LANES - 1))
def test_replies_of_other_nodes_come_at_once_and_the_slow_ones_with_a_later_call(slow):
    grid = Grid()
    replies, nodes = SiteReplies(grid, patience_s=0.5), {first_of(node): node for node in range(LANES)}
    for node in slow:
        grid.hold(first_of(node))
    grid.ready = list(nodes)
    quick = [message for message, node in nodes.items() if node not in slow]
    try:
        assert pulled(replies, nodes) == replies_to(quick)
        assert replies.to({first_of(node): node for node in slow}) == []
    finally:
        for event in grid.held.values():
            event.set()
    late = []
    until(lambda: late.extend(pulled(replies, {})) or len(late) == len(slow))
    assert sorted(late) == replies_to(first_of(node) for node in slow)


@settings(max_examples=few(100))
@given(st.data())
def test_each_reply_is_given_exactly_once_whatever_is_slow_or_fails_meanwhile(data):
    """A turn: some replies are there, some of them slow, some pulls fail. At the end all is let go."""
    grid, taken, left, awaited = Grid(), [], sorted(MESSAGES), set(MESSAGES)
    replies, of_messages = SiteReplies(grid, patience_s=0.02), st.sampled_from(sorted(MESSAGES))

    def turn():
        with suppress(RuntimeError):
            for reply in replies.to({each: MESSAGES[each] for each in awaited}):
                if reply.has_error():
                    assert reply.metadata.reply_to_message_id not in awaited, "its reply is still on its way"
                else:
                    awaited.discard(reply.metadata.reply_to_message_id)
                    taken.append(str(reply))
        return len(taken)

    try:
        for _ in range(data.draw(st.integers(1, 4))):
            for message in data.draw(st.lists(of_messages, unique=True, max_size=8)):
                if message in left:
                    left.remove(message)
                    if data.draw(st.booleans()):
                        grid.hold(message)
                    grid.ready.append(message)
            grid.broken = set(data.draw(st.lists(of_messages, max_size=2)))
            turn()
    finally:
        for event in grid.held.values():
            event.set()
    grid.ready += left
    until(lambda: turn() >= len(MESSAGES))
    turn()
    assert sorted(taken) == replies_to(MESSAGES)


def test_an_error_of_the_grid_is_raised_and_what_others_brought_comes_with_the_next_call():
    grid = Grid()
    replies, nodes = SiteReplies(grid, patience_s=60.0), {first_of(node): node for node in range(3)}
    grid.ready, grid.broken = list(nodes), {first_of(1)}
    with pytest.raises(RuntimeError, match="no answer to"):
        replies.to(nodes)
    assert pulled(replies, nodes) == replies_to(nodes)


def test_of_more_nodes_than_pulls_at_a_time_all_replies_come():
    grid = Grid()
    replies = SiteReplies(grid, patience_s=60.0)
    grid.ready = list(MESSAGES)
    assert pulled(replies, MESSAGES) == replies_to(MESSAGES)
    assert grid.most <= LANES < NODES


def test_a_node_is_pulled_again_while_an_earlier_reply_of_its_is_slow():
    """So the answer to a question behind a half-sent reply is heard. The slow one is no lost one."""
    grid, found = Grid(), []
    replies, nodes = SiteReplies(grid, patience_s=0.2), {"task": 7, "question": 7}
    grid.hold("task")
    grid.ready = ["task"]
    try:
        assert pulled(replies, nodes) == []
        grid.ready = ["question"]
        until(lambda: found.extend(pulled(replies, nodes)) or found)
        assert found == ["reply to question"]
        assert pulled(replies, {"task": 7}) == []
    finally:
        grid.held["task"].set()
    until(lambda: found.extend(pulled(replies, {"task": 7})) or len(found) > 1)
    assert found == ["reply to question", "reply to task"]


def test_a_slow_reply_that_is_given_up_is_a_lost_one():
    grid, found = Grid(), []
    replies = SiteReplies(grid, patience_s=0.05)
    grid.hold("task")
    grid.ready, grid.given_up = ["task"], {"task"}
    for _ in range(3):
        assert pulled(replies, {"task": 7}) == []
    grid.held["task"].set()
    until(lambda: found.extend(pulled(replies, {"task": 7})) or found)
    assert found == ["no reply to task"]


def test_while_no_pull_comes_to_an_end_there_are_only_so_many():
    grid, messages = Grid(), {f"task {number}": 7 for number in range(2 * MOST_SLOW)}
    replies = SiteReplies(grid, patience_s=0.01)
    try:
        for message in messages:
            grid.hold(message)
            grid.ready = [message]
            assert pulled(replies, messages) == []
        assert grid.waiting == MOST_SLOW
    finally:
        for event in grid.held.values():
            event.set()
