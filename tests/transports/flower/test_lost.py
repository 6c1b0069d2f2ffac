"""A message that was handed out and never arrived is found by the answer to a question behind it."""

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from fccl.transports.flower.lost import LostMessages

NODE = 7


class Grid:
    """Keeps what is sent; messages are numbered."""

    def __init__(self):
        self.sent = {}

    def push_messages(self, messages):
        names = []
        for message in messages:
            names.append(f"question {len(self.sent)}")
            message.metadata.__dict__["_message_id"] = names[-1]
            self.sent[names[-1]] = message
        return names


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
    grid, clock = Grid(), Clock()
    made = LostMessages(grid, 60.0, clock)
    made.sent("task", NODE)
    return made, grid, clock


def asked_after(made, clock, seconds):
    clock.now += seconds
    made.ask()
    return tuple(made.open_questions)


def answered(grid, question, error=None):
    message = grid.sent[question]
    return Message(Error(error, "") if error is not None else RecordDict(), reply_to=message)


def test_a_message_is_asked_about_once_and_only_when_it_is_long_without_an_answer():
    made, grid, clock = watched()
    assert asked_after(made, clock, 59.0) == ()
    assert asked_after(made, clock, 1.0) == ("question 0",)
    assert asked_after(made, clock, 100.0) == ("question 0",)
    assert grid.sent["question 0"].metadata.dst_node_id == NODE


def test_a_question_that_is_answered_before_its_message_says_that_the_message_is_lost():
    made, grid, clock = watched()
    (question,) = asked_after(made, clock, 60.0)
    assert made.hear(answered(grid, question))
    assert made.lost({"task"}) == ["task"]
    assert asked_after(made, clock, 1000.0) == ()


def test_a_message_whose_answer_came_with_that_of_its_question_is_not_lost():
    made, grid, clock = watched()
    (question,) = asked_after(made, clock, 60.0)
    assert made.hear(answered(grid, question))
    assert made.lost(()) == []
    assert asked_after(made, clock, 1000.0) == ()


def test_a_question_that_the_superlink_has_lost_too_is_asked_again_later():
    made, grid, clock = watched()
    (question,) = asked_after(made, clock, 60.0)
    assert made.hear(answered(grid, question, ErrorCode.MESSAGE_UNAVAILABLE))
    assert made.lost({"task"}) == []
    assert asked_after(made, clock, 59.0) == ()
    assert asked_after(made, clock, 1.0) == ("question 1",)


def test_replies_to_other_messages_are_somebody_else_s():
    made, _, clock = watched()
    asked_after(made, clock, 60.0)
    other = Message(RecordDict(), NODE, "train")
    other.metadata.__dict__["_message_id"] = "other"
    assert not made.hear(Message(RecordDict(), reply_to=other))
