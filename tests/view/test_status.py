import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.records.run import RunState
from tests.examples import few
from tests.view.logs import BEGAN, Logs, line
from tests.view.looks import STALE_S, TIMEOUT_S, at, end_of, standings

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


def test_phases_have_numbers_of_rounds_of_their_own(logs):
    """As the state says them, which knows what PATIENCE has ended; without one as they were planned."""
    logs.begin(sft_rounds=1, va_rounds=-1, fed_rounds=3)
    logs.round(0)
    logs.paths.state.write_bytes(line(state(next_round=1, total_rounds=3, sft_rounds=1)))
    seen = at(logs, end_of(1))
    assert (seen.phase, seen.round, seen.total_rounds) == ("va", 1, 3)
    logs.paths.state.unlink()
    seen = at(logs, end_of(1))
    assert (seen.phase, seen.round, seen.total_rounds) == ("va", 1, 4)


def test_a_run_of_one_phase_is_done_after_it(logs):
    logs.begin()
    for sft, phase in ((2, "sft"), (0, "va")):
        logs.paths.state.write_bytes(line(state(next_round=1, total_rounds=2, sft_rounds=sft)))
        assert at(logs, BEGAN).phase == phase
        logs.paths.state.write_bytes(line(state(next_round=2, total_rounds=2, sft_rounds=sft)))
        assert at(logs, BEGAN).phase == "done"


def state(**fields):
    return RunState(run_id="run", adapter_sha256="a" * 64, **fields)


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
