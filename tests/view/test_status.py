import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.paths import ExchangePaths
from fccl.view.runs import RunReader
from fccl.view.status import glance, original_clients
from tests.examples import few
from tests.view.logs import BEGAN, ROUND_S, Logs, a_manifest, line

STALE_S, TIMEOUT_S = 60.0, 600.0


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path / "logs")


@pytest.fixture
def exchange(tmp_path):
    (tmp_path / "exchange").mkdir()
    return tmp_path / "exchange"


def at(logs, now, exchange=None):
    return glance(RunReader(logs.paths, exchange and ExchangePaths(exchange)).refresh(), now)


def standings(logs, now, exchange=None):
    return [row.standing for row in at(logs, now, exchange).clients]


def end_of(rounds):
    return BEGAN + rounds * ROUND_S


# How the run stands


def test_waiting_for_a_run(logs):
    seen = at(logs, 5.0)
    assert (seen.standing, seen.phase, seen.round, seen.total_rounds, seen.progress, seen.seconds_left) == (
        "waiting",
        None,
        0,
        0,
        0.0,
        None,
    )
    assert (seen.clients, seen.validation_loss, seen.base_loss, seen.effective_clients, seen.aggregated) == (
        (),
        None,
        None,
        None,
        None,
    )


def test_a_run_that_has_begun(logs):
    seen = at(logs.begin(), BEGAN + 1)
    assert (seen.standing, seen.phase, seen.round, seen.total_rounds, seen.progress) == ("running", "sft", 0, 4, 0.0)
    assert (seen.base_loss, seen.validation_loss, seen.validation_phase, seen.seconds_left) == (6.5, None, None, None)
    assert [row.standing for row in seen.clients] == ["waiting"] * 3


def test_the_figures_of_the_last_complete_round(logs):
    logs.begin()
    logs.round(0)
    logs.round(1)
    logs.round(2, excluded=(1,))
    seen = at(logs, end_of(3) + 1)
    assert (seen.phase, seen.round, seen.progress) == ("va", 3, 0.75)
    assert (seen.validation_loss, seen.validation_phase, seen.preference_accuracy) == (2.0, "va", 0.75)
    assert (seen.effective_clients, seen.aggregated) == (2.0, 2)
    logs.round(3, commit=False)  # a record counts when the state says so
    assert at(logs, end_of(4)).validation_loss == 2.0
    logs.commit(4)
    assert at(logs, end_of(4)).validation_loss == 1.5


def test_without_a_state_the_log_speaks(logs):
    logs.begin()
    logs.round(0)
    logs.paths.state.unlink()
    seen = at(logs, end_of(1))
    assert (seen.round, seen.total_rounds, seen.phase, seen.validation_loss, seen.validation_phase) == (
        1,
        4,
        "sft",
        3.0,
        "sft",
    )


@pytest.mark.parametrize("event", ["finished", "interrupted", "failed"])
def test_how_a_run_ended(logs, event):
    logs.begin()
    logs.round(0)
    logs.event(event, end_of(1), round=1, message="why")
    seen = at(logs, end_of(1) + 10 * TIMEOUT_S)
    assert (seen.standing, seen.message, seen.seconds_left) == (event, "why", None)
    logs.event("resumed", end_of(50), round=1)
    assert at(logs, end_of(50) + 1).standing == "running"
    assert at(logs, end_of(50) + 1).message == ""


def test_a_run_without_events_is_finished_when_its_state_is(logs):
    logs.begin()
    logs.paths.progress.unlink()
    for number in range(4):
        logs.round(number)
    seen = at(logs, end_of(9))
    assert (seen.standing, seen.phase, seen.round, seen.progress) == ("finished", "done", 4, 1.0)


def test_a_run_that_writes_its_results_is_running_and_done(logs):
    logs.begin()
    for number in range(4):
        logs.round(number)
    seen = at(logs, end_of(4) + 1)
    assert (seen.standing, seen.phase, seen.progress, seen.seconds_left) == ("running", "done", 1.0, None)


def test_in_silence_without_heartbeats_the_client_timeout_decides(logs):
    logs.begin()
    logs.round(0)
    assert at(logs, end_of(1) + TIMEOUT_S - 1).standing == "running"
    assert at(logs, end_of(1) + TIMEOUT_S + 1).standing == "silent"
    assert at(logs, end_of(1) + TIMEOUT_S + 1).seconds_left is None


def test_in_silence_with_heartbeats_their_staleness_decides(logs):
    logs.begin(heartbeat_stale_s=30)
    logs.beat(0, "training", 0, BEGAN + 500)
    assert at(logs, BEGAN + 529).standing == "running"
    assert at(logs, BEGAN + 531).standing == "silent"
    logs.round(0)
    assert at(logs, BEGAN + 501).standing == "running"


def test_idle_clients_beat_no_life_into_a_dead_orchestrator(logs, exchange):
    logs.begin()
    logs.round(0)
    now = end_of(1) + TIMEOUT_S
    for client in range(3):
        logs.beat(client, "done", 0, now, exchange)
    assert at(logs, now - 1, exchange).standing == "running"  # it may be waiting for a client
    assert at(logs, now + 1, exchange).standing == "silent"
    logs.beat(2, "training", 1, now, exchange)
    assert at(logs, now + 1, exchange).standing == "running"


# How the clients stand


def test_clients_of_one_process_take_turns(logs):
    logs.begin()
    logs.round(0, training_s=20.0)
    opened = end_of(1)
    logs.beat(0, "done", 1, opened + 60)
    logs.beat(1, "training", 1, opened + 70)
    logs.beat(2, "done", 0, opened - 10)
    assert standings(logs, opened + 70) == ["done", "training", "waiting"]
    assert standings(logs, opened + 99) == ["done", "training", "waiting"]  # it began when client 0 was done
    logs.beat(1, "training", 1, opened + 101)
    assert standings(logs, opened + 101) == ["done", "late", "waiting"]
    assert standings(logs, opened + 101 + STALE_S + 1) == ["done", "dead", "waiting"]  # an idle one does not beat


def test_a_client_that_gives_up_has_failed_in_that_round_alone(logs):
    logs.begin()
    logs.beat(0, "failed", 0, BEGAN + 5)
    logs.beat(1, "training", 0, BEGAN + 8)
    assert standings(logs, BEGAN + 9) == ["failed", "training", "waiting"]
    logs.round(0, excluded=(0,))
    assert standings(logs, end_of(0) + 1)[0] == "waiting"


@pytest.mark.parametrize("pid", [0, 7])
def test_clients_that_train_at_the_same_time_have_not_failed(logs, exchange, pid):
    logs.begin()
    folder = exchange if pid else None  # without a number nothing is known of the process
    for client in range(3):
        logs.beat(client, "training", 0, BEGAN + client, folder, pid=pid, host="here")
    assert standings(logs, BEGAN + 3, folder) == ["training"] * 3


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


# How long it takes


def test_the_time_left_by_the_rounds_of_the_phase(logs):
    logs.begin()
    logs.round(0)
    assert at(logs, end_of(1) + 30).seconds_left == pytest.approx(3 * ROUND_S - 30)
    assert at(logs, end_of(1) + 10 * ROUND_S - 800).seconds_left == pytest.approx(
        2 * ROUND_S
    )  # overdue, and no step is known
    logs.beat(0, "training", 1, end_of(1) + 300, step=3, steps=4)
    logs.beat(1, "done", 1, end_of(1) + 300)
    assert at(logs, end_of(1) + 300).seconds_left == pytest.approx(300 * (1.25 / 1.75) + 2 * ROUND_S)


def test_the_time_left_scales_the_other_phase_by_its_steps(logs):
    logs.begin(batch_size=8, va_local_epochs=3)
    logs.paths.manifest.write_bytes(
        line(a_manifest(sft=((8, 0), (8, 9)), va=((2, 2), (2, 2))))
    )  # 1 + 3 steps; 3 times 1 + 1
    logs.round(0)
    assert at(logs, end_of(1)).seconds_left == pytest.approx(ROUND_S + 2 * ROUND_S * 6 / 4)
    logs.round(1)
    logs.round(2)
    assert at(logs, end_of(3)).seconds_left == pytest.approx(ROUND_S)  # measured


def test_the_time_left_of_the_first_round(logs):
    logs.begin()
    logs.beat(0, "training", 0, BEGAN + 10, step=1, steps=10)
    assert at(logs, BEGAN + 10).seconds_left is None  # a thirtieth tells nothing
    logs.beat(0, "training", 0, BEGAN + 10, step=9, steps=10)
    assert at(logs, BEGAN + 30).seconds_left == pytest.approx(100 * 4 - 30)


def test_rounds_are_judged_by_the_last_ones(logs):
    logs = Logs(logs.root, fed_rounds=40).begin()
    for number in range(30):
        record = logs.record(number).model_copy(update={"seconds": 1000.0 if number < 20 else 10.0})
        logs.append(logs.paths.progress, record)
    logs.commit(30)
    assert at(logs, end_of(30)).seconds_left == pytest.approx(50 * 10)


def test_a_time_that_no_number_holds_is_not_known(logs):
    logs.begin()
    logs.append(logs.paths.progress, logs.record(0).model_copy(update={"seconds": 1e308}))
    logs.commit(1)
    assert at(logs, end_of(1)).seconds_left is None


def test_the_open_round_counts_by_its_clients_steps(logs):
    logs.begin()
    logs.round(0)
    logs.beat(0, "done", 1, end_of(1))
    logs.beat(1, "training", 1, end_of(1), step=1, steps=4)
    logs.beat(2, "done", 0, end_of(1))  # of the round before
    assert at(logs, end_of(1)).progress == pytest.approx((1 + 1.25 / 3) / 4)
    logs.beat(1, "training", 1, end_of(1), step=9, steps=4)
    logs.beat(2, "training", 1, end_of(1))  # reads its shard
    assert at(logs, end_of(1)).progress == pytest.approx((1 + 2 / 3) / 4)


NUMBERS = (
    "num_clients",
    "clients_per_round",
    "fed_rounds",
    "heartbeat_stale_s",
    "client_timeout_s",
    "batch_size",
    "sft_local_epochs",
)


@settings(max_examples=few(100), deadline=None)
@given(
    settings=st.dictionaries(
        st.sampled_from(
            [
                "num_clients",
                "clients_per_round",
                "fed_rounds",
                "heartbeat_stale_s",
                "client_timeout_s",
                "batch_size",
                "sft_local_epochs",
            ]
        ),
        st.one_of(
            st.sampled_from(["nan", "inf", "-1", "0", "1e300", "x", "", "1_0"]), st.integers(-3, 10**20).map(str)
        ),
    ),
    beats=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from(["idle", "training", "done", "failed"]),
            st.one_of(st.integers(0, 4), st.just(10**30)),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from([0, 3, 10**400]),
            st.sampled_from([0, 3, 10**400]),
        ),
        max_size=6,
    ),
    rounds=st.integers(0, 4),
    event=st.sampled_from(["", "resumed", "interrupted", "failed", "finished"]),
    now=st.floats(allow_nan=False, allow_infinity=False),
    whole=st.booleans(),
)
def test_whatever_the_run_says_the_figures_are_figures(tmp_path_factory, settings, beats, rounds, event, now, whole):
    logs = Logs(tmp_path_factory.mktemp("logs")).begin(**settings)
    for number in range(rounds):
        logs.round(number)
    if event:
        logs.event(event, end_of(rounds))
    if not whole:
        logs.paths.state.unlink()
    for client, state, number, time, step, steps in beats:
        said = {
            "client_id": client,
            "state": state,
            "run_id": "run",
            "round": number,
            "phase": "sft",
            "time": time,
            "step": step,
            "steps": steps,
        }
        logs.paths.status(client).write_text(json.dumps(said))
    for exchange in (None, logs.root):
        seen = at(logs, now, exchange)
        assert 0 <= seen.progress <= 1
        assert seen.seconds_left is None or 0 <= seen.seconds_left < math.inf
        assert seen.standing != "running" or seen.phase in ("sft", "va", "done", None)
        assert len({row.client for row in seen.clients}) == len(seen.clients)
        if seen.standing == "finished":
            assert not {row.standing for row in seen.clients} & {"late", "dead", "training"}
        if seen.standing in ("interrupted", "failed"):
            assert "late" not in {row.standing for row in seen.clients}
