"""An answer that comes slowly is taken, and not asked for again: a SuperLink forgets a message whose reply it gave."""

from __future__ import annotations

import threading

import pytest

from fccl.testing.transport import task
from fccl.transports.flower import courier
from fccl.transports.flower.replies import SiteReplies
from tests.transports.exchange_tools import until
from tests.transports.flower.sites import good


class Slow:
    """The grid of a SuperLink from which a site's first answer comes when it is `let`; any other is lost."""

    def __init__(self, grid):
        self._grid, self.let = grid, threading.Event()
        self.tasks, self.answers, self.looks = 0, 0, 0  # looks since the first answer is on its way

    def get_nodes(self):
        self.looks += self.answers > 0
        return self._grid.get_nodes()

    def push_messages(self, messages):
        self.tasks += sum(message.metadata.message_type == "train" for message in messages)
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids):
        found = list(self._grid.pull_messages(message_ids))
        if not any(reply.has_content() and "parcel" in reply.content for reply in found):
            return found
        self.answers += 1
        if self.answers > 1:
            return []
        assert self.let.wait(60)
        return found


@pytest.fixture
def slow(sites, monkeypatch):
    """The grid of site 0, on which no pull is waited for."""
    monkeypatch.setattr(courier, "SiteReplies", lambda grid: SiteReplies(grid, patience_s=0.05))
    sites.grid = Slow(sites.nodes.grid)
    sites.start(0)
    yield sites.grid
    sites.grid.let.set()


def answer_let_when(ready, sites, slow):
    """Site 0's answer, which is let when `ready` says so."""

    def let():
        until(ready)
        slow.let.set()

    thread = threading.Thread(target=let)
    thread.start()
    with sites.workers(0), sites.transport() as transport:
        (answer,) = transport.ask(task(), (0,))
    thread.join()
    return answer


def test_a_site_is_not_asked_again_while_its_answer_comes_slowly(sites, slow):
    answer = answer_let_when(lambda: slow.looks > 5, sites, slow)
    assert good(answer, 0)
    assert slow.tasks == 1


def test_an_answer_that_was_taken_for_lost_is_taken_when_it_comes_all_the_same(sites, slow):
    """The site was asked behind it, and said so; a pull may look for the rest of an answer ten seconds later."""
    sites.lost_s = 0.3
    answer = answer_let_when(lambda: slow.tasks > 1, sites, slow)
    assert good(answer, 0)
