import pytest

from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.transports.exchange.server import ExchangeTransport


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path / "exchange")


@pytest.fixture
def transport(paths, tmp_path):
    """Not entered; the tests give it a spec."""

    def made(keys=None, **spec):
        return ExchangeTransport(paths, exchange_spec(4, **({"timeout_s": 5.0} | spec)), tmp_path / "received", keys)

    return made
