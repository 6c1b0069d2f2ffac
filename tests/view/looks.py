"""One look at a run, as the dashboard takes it."""

from fccl.paths import ExchangePaths
from fccl.view.runs import RunReader
from fccl.view.status import run_status
from tests.view.logs import BEGAN, ROUND_S

STALE_S, TIMEOUT_S = 60.0, 600.0


def at(logs, now, exchange=None):
    return run_status(RunReader(logs.paths, exchange and ExchangePaths(exchange)).refresh(), now)


def standings(logs, now, exchange=None):
    return [row.standing for row in at(logs, now, exchange).clients]


def end_of(rounds):
    return BEGAN + rounds * ROUND_S
