"""The file that says how the sites are: bytes add up over restarts, and a state is written once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.errors import StorageError
from fccl.records.sites import SitesRecord
from fccl.storage.reading import read_value
from fccl.transports.flower.site_log import SiteLog
from tests.examples import few


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    made = SiteLog(tmp_path / "sites.json", 3, clock)
    made.begin("run")
    return made


def nobody(client_id):
    return ""


def written(log):
    return read_value(log.path, SitesRecord)


def test_every_client_is_in_the_file_whether_its_site_was_seen_or_not(log):
    log.look({1: 990.0}, frozenset({1}), lambda client_id: "no SuperNode" if client_id == 2 else "")
    sites = written(log).sites
    assert [(each.client_id, each.online, each.seen, each.given_up) for each in sites] == [
        (0, False, None, ""),
        (1, True, 990.0, ""),
        (2, False, None, "no SuperNode"),
    ]


def test_a_site_that_goes_keeps_the_time_when_it_was_seen(log):
    log.look({1: 990.0}, frozenset({1}), nobody)
    log.look({1: 990.0}, frozenset(), nobody)
    assert [(each.online, each.seen) for each in written(log).sites][1] == (False, 990.0)


def test_a_state_that_has_not_changed_is_written_again_only_when_it_is_old(log, clock):
    log.look({1: 1000.0}, frozenset({1}), nobody)
    clock.now = 1004.0
    log.look({1: 1004.0}, frozenset({1}), nobody)
    assert written(log).time == 1000.0
    clock.now = 1005.0
    log.look({1: 1005.0}, frozenset({1}), nobody)
    assert (written(log).time, written(log).sites[1].seen) == (1005.0, 1005.0)


def test_before_a_run_is_carried_nothing_is_written(tmp_path):
    log = SiteLog(tmp_path / "sites.json", 3)
    log.look({}, frozenset(), nobody)
    assert not log.path.exists()


CARRIED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 10**9), st.integers(0, 10**9)))


@settings(max_examples=few(50))
@given(CARRIED, CARRIED)
def test_bytes_by_site_and_by_round_add_up_over_a_restart(tmp_path_factory, before, after):
    path = tmp_path_factory.mktemp("log") / "sites.json"
    for parts in (before, after):
        log = SiteLog(path, 3)
        log.begin("run")
        for client_id, number, down, up in parts:
            log.carried(client_id, number, down, up)
        log.look({}, frozenset(), nobody)
    found, whole = written(log), before + after
    assert [(each.down, each.up) for each in found.sites] == [
        (sum(down for one, _, down, _ in whole if one == each), sum(up for one, *_, up in whole if one == each))
        for each in range(3)
    ]
    assert {each.round: (each.down, each.up) for each in found.rounds} == {
        number: (
            sum(down for _, one, down, _ in whole if one == number),
            sum(up for _, one, _, up in whole if one == number),
        )
        for number in {number for _, number, *_ in whole}
    }


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b'{"run_id":"other","time":1.0}'])
def test_a_file_that_is_not_this_runs_is_written_anew(tmp_path, content):
    log = SiteLog(tmp_path / "sites.json", 1)
    log.path.write_bytes(content)
    log.begin("run")
    log.carried(0, 0, down=5)
    log.look({}, frozenset(), nobody)
    assert (written(log).run_id, written(log).sites[0].down) == ("run", 5)


def test_a_disk_that_fails_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    log = SiteLog(tmp_path / "file" / "sites.json", 1)
    log.begin("run")
    with pytest.raises(StorageError):
        log.look({}, frozenset(), nobody)
