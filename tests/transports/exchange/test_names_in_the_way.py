"""Whatever is where a file of the exchange directory belongs, before the run or in the middle of it: the run ends with
the same bytes.
"""

import functools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.aggregation.rules import aggregation
from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.testing.transport import keeping
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport
from tests.examples import few
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.obstacles import INSTEAD_OF_A_FOLDER, OBSTACLES, by_hash, names, put

CLIENTS = 2
ROUNDS = range(6)  # those of the run, the last one that says it is done, and one more


def the_federation():
    """SCAFFOLD, since it has every kind of file."""
    return keeping(federation(CLIENTS, rounds=2, aggregation=aggregation("scaffold")))


@functools.cache
def undisturbed():
    *_, last = the_federation().run(START, InProcessTransport(ToyLearner(), shard))
    return last.state.adapter.sha256


class Vandal(ToyLearner):
    """Client 0, while it trains in round 1, puts things where the files of this round and the next ones are or
    belong."""

    def fit(self, task, shard, on_status):
        if task.round == 1 and shard.client_id == 0 and not self.calls:
            self.calls.append((1, 0))
            self.vandalise()
        return super().fit(task, shard, on_status)


def run(root, at_work=lambda paths: None):
    """The adapter's hash after a whole run with clients in threads."""
    paths = ExchangePaths(root / "exchange")
    vandal = Vandal()
    vandal.vandalise = lambda: at_work(paths)
    transport = ExchangeTransport(
        paths, exchange_spec(CLIENTS, stale_s=600.0, timeout_s=60.0, keep_rounds=0), root / "received"
    )
    with transport, client_threads(paths.root, {0: vandal, 1: ToyLearner()}, grace_s=0.0):
        results = list(the_federation().run(START, transport))
        transport.finish("run", len(results), results[-1].state.adapter)
    assert [result.record.excluded for result in results] == [()] * 4
    for outside in paths.root.glob(".outside*"):  # where links lead
        assert not list(outside.iterdir()) if outside.is_dir() else outside.read_text() == "precious"
    return results[-1].state.adapter.sha256


def everywhere(paths, kind):
    """The same obstacle under every name of the protocol."""
    for path in [*names(paths, CLIENTS, ROUNDS), *by_hash(paths)]:
        put(path, kind)


@pytest.mark.parametrize("kind", OBSTACLES)
def test_a_run_in_whose_way_something_lies_from_the_start_ends_with_the_same_bytes(tmp_path, kind):
    paths = ExchangePaths(tmp_path / "exchange")
    everywhere(paths, kind)
    for path in (paths.server_lock, paths.client_lock(0), paths.client_lock(1)):
        put(path, kind)
    assert run(tmp_path) == undisturbed()


@pytest.mark.parametrize("kind", OBSTACLES)
def test_a_run_in_whose_way_something_is_put_ends_with_the_same_bytes(tmp_path, kind):
    assert run(tmp_path, lambda paths: everywhere(paths, kind)) == undisturbed()


NO_FOLDER = sorted({*INSTEAD_OF_A_FOLDER} - {"an empty folder", "a full folder"})


@pytest.mark.parametrize("kind", NO_FOLDER)
def test_what_is_where_a_folder_belongs_is_moved_too(tmp_path, kind):
    paths = ExchangePaths(tmp_path / "exchange")
    for folder in (paths.rejected, paths.bell, tmp_path / "received"):
        put(folder, kind)
    assert run(tmp_path, lambda paths: put(paths.bell, kind)) == undisturbed()
    assert {"bell", "rejected"} <= {path.name.split("_", 1)[1] for path in paths.rejected.iterdir()}


@pytest.mark.parametrize("kind", NO_FOLDER)
def test_what_takes_a_folder_s_place_during_a_round_changes_nothing(tmp_path, kind):
    def instead(paths):
        put(paths.rejected, kind)
        put(paths.bell, kind)

    assert run(tmp_path, instead) == undisturbed()


@given(data=st.data())
@settings(max_examples=few(6), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_of_them_changes_nothing(tmp_path_factory, data):
    """Drawn by a seed, so that the same names have the same things when a failure is looked at again."""
    root, seed = tmp_path_factory.mktemp("mixed"), data.draw(st.integers(0, 2**32))
    draw = random.Random(seed)

    def some(paths):
        for path in [*names(paths, CLIENTS, ROUNDS), *by_hash(paths)]:
            if draw.random() < 0.4:
                put(path, draw.choice(sorted({*OBSTACLES} - {"a device"})))  # not everybody may make one

    some(ExchangePaths(root / "exchange"))
    assert run(root, some) == undisturbed()
