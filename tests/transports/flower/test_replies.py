"""No reply that comes slowly holds another node's back, and every reply is given once."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.transports.flower.replies import LANES, SiteReplies
from tests.examples import few
from tests.transports.exchange_tools import until

NODES = 20
MESSAGES = {f"message {number}": number % NODES for number in range(2 * NODES)}  # two of each node


class Grid:
    """Hands out each reply once, as a SuperLink does. A pull that meets one of the `held` waits for its release, with
    all that it has found so far; one that asks for a message in `broken` is an error and takes nothing."""

    def __init__(self):
        self.ready, self.held, self.broken = [], {}, set()
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
            self.ready = [message for message in self.ready if message not in messages]
            waits = [self.held[message] for message in found if message in self.held]
            self.waiting += len(waits)
        for event in waits:
            assert event.wait(60)
        with self._lock:
            self.waiting -= len(waits)
        return [f"reply to {message}" for message in found]


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
        assert sorted(replies.to(nodes)) == replies_to(quick)
        assert replies.to({first_of(node): node for node in slow}) == []
    finally:
        for event in grid.held.values():
            event.set()
    late = []
    until(lambda: late.extend(replies.to({})) or len(late) == len(slow))
    assert sorted(late) == replies_to(first_of(node) for node in slow)


@settings(max_examples=few(100))
@given(st.data())
def test_each_reply_is_given_exactly_once_whatever_is_slow_or_fails_meanwhile(data):
    """A turn: some replies are there, some of them slow, some pulls fail. At the end all is let go."""
    grid, taken, left = Grid(), [], sorted(MESSAGES)
    replies, of_messages = SiteReplies(grid, patience_s=0.02), st.sampled_from(sorted(MESSAGES))

    def turn():
        with suppress(RuntimeError):
            taken.extend(replies.to(MESSAGES))
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
    assert sorted(replies.to(nodes)) == replies_to(nodes)


def test_of_more_nodes_than_pulls_at_a_time_all_replies_come():
    grid = Grid()
    replies = SiteReplies(grid, patience_s=60.0)
    grid.ready = list(MESSAGES)
    assert sorted(replies.to(MESSAGES)) == replies_to(MESSAGES)
    assert grid.most <= LANES < NODES


def test_a_node_is_pulled_again_while_an_earlier_reply_of_its_is_slow():
    """So the answer to a question behind a half-sent reply is heard."""
    grid = Grid()
    replies = SiteReplies(grid, patience_s=0.2)
    grid.hold("task")
    grid.ready = ["task"]
    try:
        assert replies.to({"task": 7, "question": 7}) == []
        grid.ready = ["question"]
        found = []
        until(lambda: found.extend(replies.to({"task": 7, "question": 7})) or found)
        assert found == ["reply to question"]
    finally:
        grid.held["task"].set()
