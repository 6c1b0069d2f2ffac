"""`LostMessages`: finds out which messages never arrived.

A SuperLink hands a message out once. Where the connection breaks meanwhile, the message is gone, and nobody says so. A
SuperNode takes its messages one at a time, in the order in which they were sent. So a small question behind a message
settles it: when the question is answered and the message is not, the message is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

LOST_S = 60.0  # a message without an answer for so long is asked about


@dataclass
class LostMessages:
    """Asks about every message that is long without an answer. A site that trains answers after its update."""

    grid: Grid
    after_s: float = LOST_S
    clock: Callable[[], float] = time.monotonic
    _sent: dict[str, tuple[int, float]] = field(default_factory=dict)  # message -> its node, and since when
    _questions: dict[str, tuple[str, int]] = field(default_factory=dict)  # question -> the message, and its node
    _answered: set[str] = field(default_factory=set)  # messages whose question came back

    def sent(self, message_id: str, node: int) -> None:
        """Watch a message."""
        self._sent[message_id] = node, self.clock()

    @property
    def open_questions(self) -> Mapping[str, int]:
        """The questions that are not answered yet, each with its node."""
        return {question: node for question, (_, node) in self._questions.items()}

    def hear(self, reply: Message) -> bool:
        """Take a reply to one of the questions; says whether it is one."""
        message_id, _ = self._questions.pop(reply.metadata.reply_to_message_id, (None, 0))
        if message_id is None:
            return False
        if reply.has_content():
            self._answered.add(message_id)
        elif message_id in self._sent:  # the question has not arrived either
            self._sent[message_id] = self._sent[message_id][0], self.clock()
        return True

    def lost(self, under_way: Collection[str]) -> list[str]:
        """The messages that are lost, of those whose answer is still awaited after all replies were heard. The others
        are watched no more."""
        found = [message_id for message_id in self._answered if message_id in under_way]
        self._answered.clear()
        for message_id in [each for each in self._sent if each in found or each not in under_way]:
            del self._sent[message_id]
        return found

    def ask(self) -> None:
        """Ask about the messages that have waited long enough, each once at a time."""
        asked, now = {message_id for message_id, _ in self._questions.values()}, self.clock()
        for message_id, (node, since) in list(self._sent.items()):
            if message_id in asked or now - since < self.after_s:
                continue
            question = Message(RecordDict(), node, MessageType.QUERY, ttl=10 * self.after_s)
            for question_id in self.grid.push_messages([question]):
                if question_id:
                    self._questions[question_id] = message_id, node
