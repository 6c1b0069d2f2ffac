import os

import pytest

from fccl.view import sentences
from fccl.view.runs import RunReader
from fccl.view.status import original_clients
from tests.view.logs import BEGAN, line
from tests.view.looks import STALE_S, at, end_of, standings


def test_clients_that_are_processes(logs, exchange):
    logs.begin()
    logs.round(0, training_s=20.0)
    opened = end_of(1)
    logs.beat(0, "training", 1, opened + 35, exchange)
    logs.beat(1, "done", 0, opened + 35, exchange)
    logs.beat(2, "failed", 1, opened + 35, exchange)
    assert standings(logs, opened + 39, exchange) == ["training", "waiting", "failed"]
    assert standings(logs, opened + 41, exchange) == ["late", "late", "failed"]
    logs.beat(1, "training", 1, opened + 41, exchange)
    logs.beat(2, "done", 1, opened + 41, exchange)
    assert standings(logs, opened + 41, exchange) == ["late", "late", "done"]
    now = opened + 35 + STALE_S + 1
    assert standings(logs, now, exchange) == ["dead", "late", "done"]


def test_an_idle_client_that_is_a_process_and_stopped_beating_is_dead(logs, exchange):
    logs.begin()
    logs.beat(0, "idle", 0, BEGAN, exchange, run_id="")
    logs.beat(1, "idle", 0, BEGAN + 50, exchange, run_id="")
    assert standings(logs, BEGAN + 30, exchange) == ["waiting", "waiting", "waiting"]
    assert standings(logs, BEGAN + STALE_S + 1, exchange) == ["dead", "waiting", "waiting"]


def test_a_client_that_works_on_a_closed_round_is_late(logs, exchange):
    logs.begin()
    logs.beat(1, "training", 0, BEGAN + 99, exchange)
    logs.round(0, excluded=(1,))
    assert standings(logs, end_of(1) + 1, exchange)[1] == "late"
    logs.beat(1, "training", 0, BEGAN + 99)  # as the log has it, the server may only have stopped looking
    assert standings(logs, end_of(1) + 1)[1] == "waiting"


def test_nobody_is_late_before_ten_seconds_or_without_a_measure(logs, exchange):
    logs.begin()
    logs.beat(0, "training", 0, BEGAN + 50, exchange)
    assert standings(logs, BEGAN + 50, exchange)[0] == "training"  # the first round has nothing to compare with
    logs.round(0, training_s=1.0)
    logs.beat(0, "training", 1, end_of(1) + 9, exchange)
    assert standings(logs, end_of(1) + 9, exchange)[0] == "training"
    assert standings(logs, end_of(1) + 11, exchange)[0] == "late"
    logs.round(1, training_s=1.0)
    logs.beat(0, "training", 2, end_of(2) + 50, exchange)
    assert standings(logs, end_of(2) + 50, exchange)[0] == "training"  # the first of another phase


def test_a_client_with_much_data_is_measured_by_itself(logs, exchange):
    logs.begin()
    logs.round(0, training_s=20.0)
    slow = logs.metrics(0, 1, training_s=70.0)
    logs.paths.client_metrics.write_bytes(line(logs.metrics(0, 0)) + line(slow) + line(logs.metrics(0, 2)))
    os.utime(logs.paths.client_metrics, (slow.time, slow.time))
    for client in range(3):
        logs.beat(client, "training", 1, end_of(1) + 139, exchange)
    assert standings(logs, end_of(1) + 139, exchange) == ["late", "training", "late"]
    assert standings(logs, end_of(1) + 141, exchange) == ["late", "late", "late"]


def test_only_who_is_surely_asked_can_be_late_to_begin(logs, exchange):
    logs.begin(clients_per_round=2)
    logs.round(0, training_s=1.0)
    logs.beat(0, "training", 1, end_of(1) + 30, exchange)
    logs.beat(1, "done", 0, end_of(1) + 30, exchange)
    assert standings(logs, end_of(1) + 30, exchange) == ["late", "waiting", "waiting"]
    logs.begin(clients_per_round=3)
    logs.round(0, training_s=1.0)
    # Client 2 counted in the last round and has no heartbeat: it knows only the original files.
    assert standings(logs, end_of(1) + 30, exchange) == ["late", "late", "waiting"]


@pytest.mark.parametrize("beat", [None, "training", "done", "idle"])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_peer_of_the_original_protocol_is_neither_dead_nor_late(logs, exchange, beat, rounds):
    """It writes no heartbeat; one that is there is of a client that had its number before."""
    logs.begin(original_clients="1, 2")
    for number in range(rounds):
        logs.round(number, training_s=1.0)
    logs.beat(0, "training", rounds, end_of(rounds) + 500, exchange)
    if beat:
        logs.beat(1, beat, rounds, BEGAN - 1000, exchange)
        logs.beat(2, beat, rounds, BEGAN - 1000)
    assert standings(logs, end_of(rounds) + 500, exchange)[1:] == ["waiting", "waiting"]


@pytest.mark.parametrize("named", ["", ",", "x", "1" * 5000, "-1", "²", "nan", "1;2"])
def test_whatever_a_run_has_recorded_there_are_no_other_such_peers(logs, named):
    assert original_clients(RunReader(logs.begin(original_clients=named).paths).refresh()) == frozenset()


@pytest.mark.parametrize("event", ["interrupted", "failed"])
def test_in_a_run_that_stopped_nobody_is_late(logs, exchange, event):
    logs.begin()
    logs.round(0, training_s=1.0)
    logs.event(event, end_of(1) + 30)
    logs.beat(0, "training", 1, end_of(1) + 30)
    assert standings(logs, end_of(1) + 31) == ["waiting"] * 3
    assert standings(logs, end_of(1) + 500) == ["waiting"] * 3
    logs.beat(0, "training", 1, end_of(1) + 30, exchange)  # a process of its own trains on
    assert standings(logs, end_of(1) + 31, exchange) == ["training", "waiting", "waiting"]
    assert standings(logs, end_of(1) + 500, exchange) == ["dead", "waiting", "waiting"]


def test_in_a_finished_run_nobody_is_late_or_dead(logs, exchange):
    logs.begin()
    for number in range(4):
        logs.round(number, excluded=(2,) if number == 3 else ())
    logs.event("finished", end_of(4), round=4)
    logs.beat(0, "training", 3, BEGAN, exchange)  # the server need not look when it has the answer
    logs.beat(1, "training", 3, BEGAN)
    assert standings(logs, end_of(900), exchange) == ["done", "done", "failed"]


def test_the_age_of_a_heartbeat(logs):
    logs.begin()
    logs.beat(1, "training", 0, BEGAN + 10)
    rows = at(logs, BEGAN + 12.5).clients
    assert [(row.client, row.age_s) for row in rows] == [(0, None), (1, 2.5), (2, None)]
    assert at(logs, BEGAN).clients[1].age_s == 0.0  # the client's clock is ahead
    assert rows[1].status.round == 0


def test_a_run_that_does_not_say_how_many_clients_it_has(logs):
    logs.begin(num_clients=None)
    logs.round(0)
    logs.beat(7, "training", 1, end_of(1))
    assert [row.client for row in at(logs, end_of(1)).clients] == [0, 1, 2, 7]


def test_a_client_that_declines_a_phase_says_which_and_presses_nobody(logs, exchange):
    """By its heartbeat in the open round, by the record at the end."""
    logs.begin()
    logs.round(0)
    logs.round(1)
    logs.beat(1, "declined", 2, end_of(2) + 1, exchange)
    found = at(logs, end_of(2) + 2, exchange)
    assert [(row.standing, row.declines) for row in found.clients] == [
        ("waiting", None),
        ("declined", "va"),
        ("waiting", None),
    ]
    assert found.progress == pytest.approx((2 + 1 / 3) / 4)
    assert sentences.client_state(found.clients[1]) == "– declines FedVA"
    assert sentences.clients_done(found) == "0 of 2 clients done"
    logs.round(2, declined=(1,))
    logs.round(3, declined=(1,))
    view = RunReader(logs.paths).refresh()
    assert view.declines.values.tolist() == [[2, "va", 1], [3, "va", 1]]
    assert view.exclusions.empty
    assert [(row.standing, row.declines) for row in at(logs, end_of(4)).clients] == [
        ("done", None),
        ("declined", "va"),
        ("done", None),
    ]
    assert sentences.declines(view.declines) == "Client 1 declines FedVA: nobody waits for that."
