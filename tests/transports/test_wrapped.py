import pytest

from fccl.testing.toy import shard
from fccl.testing.toy_requests import toy_services
from fccl.testing.transport import TransportContract, toy_learner
from fccl.transports.in_process import InProcessTransport
from fccl.transports.wrapped import WrappedTransport


class TestWrapped(TransportContract):
    @pytest.fixture
    def make(self):
        return lambda broken=(), errors=None: WrappedTransport(
            InProcessTransport(toy_learner(broken, errors), shard, toy_services(broken))
        )
