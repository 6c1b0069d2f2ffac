"""Tiles and notes that only some runs have: the result that is watched, clients that decline a phase."""

import time

import pytest

from tests.pages.script import figures, shown, table, texts
from tests.view import logs as logs_module
from tests.view.logs import Logs
from tests.view.test_watched import ended, watched_round


@pytest.fixture(autouse=True)
def began(monkeypatch):
    """When the runs of a test began: their third round was complete ten seconds ago."""
    monkeypatch.setattr(logs_module, "BEGAN", time.time() - 3 * logs_module.ROUND_S - 10)


def test_the_result_and_the_rounds_waited_have_a_tile_where_something_watches_the_run(page, tmp_path):
    logs = Logs(tmp_path / "logs").begin()
    logs.round(0)
    assert not [name for name in figures(shown(page)) if name.startswith("Result")]
    logs.begin(patience=2, result_round="best")
    watched_round(logs, 0, waited=0, best=0)
    watched_round(logs, 1, waited=1, best=0)
    assert figures(shown(page))["Result of FedIT"] == ("round 1", "1 of 2 rounds without a gain")
    watched_round(logs, 2, waited=0, best=2, end=ended(1, 2, early=True))
    assert figures(shown(page))["Result of FedVA"] == ("round 3", "ended early, after 1 round")


def test_a_client_that_declines_fedva_is_no_alarm_and_is_said_while_and_after_it_does(page, tmp_path):
    logs = Logs(tmp_path / "logs").begin()
    logs.round(0)
    logs.round(1)
    logs.beat(1, "declined", 2, time.time())
    said = texts(shown(page))
    assert "0 of 2 clients done" in said
    assert "! Client" not in said
    assert figures(page)["Clients done"] == ("0 of 3", "2 waiting, 1 not taking part")
    assert table(page, "state", "last heard").set_index("client")["state"][1] == "– declines FedVA"
    logs.round(2, declined=(1,))
    logs.beat(1, "declined", 3, time.time())
    said = texts(shown(page, "Clients"))
    assert "Client 1 declines FedVA: nobody waits for that." in said
    assert "client was excluded from any round so far" in said
