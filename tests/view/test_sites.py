"""The sites of a run over Flower on every screen: who is there, who is not, and since when."""

import os

import pytest

from fccl.records.sites import CarriedRound, SiteRecord, SitesRecord
from fccl.view.runs import RunReader
from fccl.view.sites import ONLINE_S, carried, sites_table
from tests.view.logs import BEGAN, line

NOW = BEGAN + 50.0


def sites(logs, *each, rounds=(), run_id="run", age_s=1.0):
    """`sites.json` as it was written `age_s` seconds ago."""
    said = SitesRecord(run_id=run_id, time=NOW - age_s, sites=each, rounds=rounds)
    logs.paths.sites.write_bytes(line(said))
    os.utime(logs.paths.sites, (NOW - age_s, NOW - age_s))
    return RunReader(logs.paths).refresh()


def states(view, now=NOW):
    return [(row[1].text, row[2].text) for row in sites_table(view, now).cells]


def site(client_id, seen_s=1.0, online=True, **fields):
    return SiteRecord(client_id=client_id, online=online, seen=NOW - seen_s, **fields)


def test_a_site_is_online_cut_off_given_up_or_not_seen_yet(logs):
    logs.begin()
    logs.event("started", NOW - 2)
    reason = "no SuperNode has said for 120 s that it is the site of client 2"
    view = sites(
        logs,
        site(0),
        site(1, seen_s=90, online=False),
        site(2, seen_s=200, online=False, given_up=reason),
        SiteRecord(client_id=3),
    )
    assert states(view) == [
        ("✓ online", "now"),
        ("✕ cut off", "1 min ago"),
        (f"✕ given up: {reason}", "3 min ago"),
        ("○ not seen yet", "never"),
    ]


def test_where_the_superlink_is_silent_nobody_is_said_to_be_online(logs):
    """The file is written on, with the time when the SuperLink was last asked in vain."""
    logs.begin()
    logs.event("started", NOW - 2)
    assert states(sites(logs, site(0, seen_s=ONLINE_S + 5))) == [("✕ cut off", "35 s ago")]


def test_after_the_run_nobody_watches_the_sites(logs):
    logs.begin()
    logs.event("finished", NOW - 40)
    view = sites(logs, site(0, 40), site(1, 45, online=False), SiteRecord(client_id=2), age_s=40)
    assert [state for state, _ in states(view)] == ["– online at the end", "✕ cut off", "○ never seen"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"run_id":"run","time":1,"sites":[{"client_id":-1}]}'])
def test_a_file_that_is_none_is_left_out(logs, content):
    logs.begin()
    logs.paths.sites.write_bytes(content)
    view = RunReader(logs.paths).refresh()
    assert view.sites is None
    assert sites_table(view, NOW) is None
    assert carried(view) == {}


def test_another_run_s_sites_are_not_shown(logs):
    logs.begin()
    assert sites(logs, site(0), run_id="other").sites is None


def test_of_many_sites_those_that_are_not_there_are_shown(logs):
    logs.begin()
    logs.event("started", NOW - 2)
    gone = site(899, seen_s=90, online=False)
    table = sites_table(sites(logs, *map(site, range(899)), gone), NOW)
    assert table.cells[0][0].text == "899"
    assert len(table.rows) == 400
    assert table.note.endswith(" 400 of 900 sites.")


def test_bytes_are_those_of_all_messages(logs):
    logs.begin()
    logs.event("started", NOW - 2)
    view = sites(logs, site(0, down=1_500, up=999), rounds=(CarriedRound(round=0, down=1_500, up=999),))
    assert [cell.text for cell in sites_table(view, NOW).cells[0][3:]] == ["1.5 kB", "999 B"]
    assert carried(view)[0].down == 1_500
