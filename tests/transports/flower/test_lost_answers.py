"""An answer that never comes whole is sent for again. Nobody else waits for it, and its site is not to blame."""

from __future__ import annotations

import threading

import pytest
from flwr.app import Error
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode

from fccl.messages import ClientFailure
from fccl.testing.toy import ToyLearner
from fccl.testing.transport import answers, task
from fccl.transports.flower.client_app import app
from tests.transports.exchange_tools import until
from tests.transports.flower.sites import good

LOST = "its answer was lost on the way 20 times"


class Broken:
    """The grid of a SuperLink to which a node's uploads break off: each of its answers is known of, and awaited, until
    it is given up. After `times` of them its uploads arrive. One is awaited until `give_up` is set."""

    def __init__(self, grid, node, times):
        self._grid, self._node, self.times = grid, node, times
        self.broken, self.give_up = 0, threading.Event()
        self._awaited, self._lock = set(), threading.Lock()

    def get_nodes(self):
        return self._grid.get_nodes()

    def push_messages(self, messages):
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids):
        with self._lock:  # what a SuperLink has handed out is not there for the next pull
            asked = set(message_ids) - self._awaited
            found = {reply: self._breaks(reply) for reply in self._grid.pull_messages(asked)}
            self._awaited |= {reply.metadata.reply_to_message_id for reply, breaks in found.items() if breaks}
        return [self._given_up(reply) if breaks else reply for reply, breaks in found.items()]

    def _breaks(self, reply):
        breaks = self.broken < self.times and reply.has_content() and "parcel" in reply.content
        breaks = breaks and reply.metadata.src_node_id == self._node
        self.broken += breaks
        return breaks

    def _given_up(self, reply):
        assert self.give_up.wait(60)
        return make_message(metadata=reply.metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "the session expired"))


def test_a_half_sent_answer_holds_no_other_site_s_back_and_is_sent_for_again(sites):
    def later(message, context):
        if message.metadata.message_type == "train":
            until(lambda: sites.grid.broken)
        return app(message, context)

    learner = ToyLearner()
    sites.grid = Broken(sites.nodes.grid, sites.start(1), times=1)
    sites.start(0, later)
    with sites.workers(0), sites.workers(1, learner=learner), sites.transport() as transport:
        arriving = transport.ask(task(), (0, 1))
        try:
            assert good(next(arriving), 0)
        finally:
            sites.grid.give_up.set()
        assert good(next(arriving), 1)
    assert learner.calls == [(0, 1)], "its worker's answer was still there"


@pytest.mark.parametrize(("times", "arrives"), [(5, True), (19, True), (20, False)])
def test_answers_lost_on_their_way_are_no_failures_of_their_site_until_they_are_twenty(sites, times, arrives):
    sites.start(0)
    sites.grid = Broken(sites.nodes.grid, sites.start(1), times)
    sites.grid.give_up.set()
    with sites.workers(0, 1), sites.transport() as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
        assert good(found[1], 1) if arrives else found[1] == ClientFailure(1, LOST)
    assert sites.grid.broken == times
