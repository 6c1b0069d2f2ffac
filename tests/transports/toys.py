"""The object of a process of the transport contract: toy clients, broken as a test says."""

from fccl.messages import Worker
from fccl.testing.toy import shard
from fccl.testing.toy_requests import toy_services
from fccl.testing.transport import toy_learner


class Toys:
    def become(self, broken, errors, say):
        self.worker = Worker(toy_learner(broken, errors), shard, toy_services(broken))

    def answer(self, request, client_id, say):
        return self.worker.answer(request, client_id, say)
