"""Numbers that another process wrote have bounds: what is within them is added, formatted and drawn, what is not is no
record.
"""

import io
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from fccl.apps.client_screen import ClientScreen
from fccl.apps.progress import answer_line, screen_for
from fccl.display import words
from fccl.errors import UpdateRejected
from fccl.messages import ClientFailure, ClientUpdate
from fccl.records.rejection import Rejection
from fccl.records.run import WITHHELD, ClientStatus, Contribution, RunEvent, TrainingReport, Validation
from fccl.specs import RoundPlan
from fccl.storage.reading import parse
from fccl.testing.toy import adapter
from fccl.transports.exchange.wire import OriginalContribution, UpdateFile

STATUS = {
    "client_id": 1,
    "state": "training",
    "run_id": "run",
    "round": 2,
    "phase": "sft",
    "step": 3,
    "steps": 5,
    "loss": 1.0,
    "time": 1.0,
}
REPORT = {"tokens": 1, "tokens_per_second": 1.0, "steps": 1, "truncated": 0, "first_loss": 1.0}
REJECTION = {"time": 1.0, "run_id": "run", "round": 0, "client_id": 1, "files": [], "reason": "because"}
ORIGINAL = {"avg_loss": 1.0, "num_samples": 1, "training_time": 1.0, "client": 1, "round": 1}
UPDATE = {
    "version": 2,
    "run_id": "run",
    "round": 1,
    "phase": "sft",
    "client_id": 1,
    "base_sha256": "0" * 64,
    "adapter": {"sha256": "0" * 64, "length": 1},
    "avg_loss": 1.0,
    "num_samples": 1,
    "training_time": 1.0,
    "report": REPORT,
}
VALID = (
    (ClientStatus, STATUS),
    (TrainingReport, REPORT),
    (Rejection, REJECTION),
    (OriginalContribution, ORIGINAL),
    (UpdateFile, UPDATE),
)
NUMBERS = [(kind, said, name) for kind, said in VALID for name, value in said.items() if isinstance(value, int | float)]
NUMBERS += [
    (Contribution, {"avg_loss": 1.0, "num_samples": 1, "seconds": 1.0}, name)
    for name in ("avg_loss", "num_samples", "seconds")
]
ABSURD = (10**320, 10**4000, -(10**16), 1e308, 10**18, float("nan"), float("inf"), True, "1")
COUNTS, RATES, CLIENTS = st.integers(0, 10**15), st.floats(0, 1e15), st.integers(0, 9)


@pytest.mark.parametrize("number", ABSURD, ids=lambda number: str(number)[:8])
@pytest.mark.parametrize(
    ("kind", "said", "name"),
    NUMBERS,
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_a_number_out_of_bounds_is_no_record(kind, said, name, number):
    parse(json.dumps(said).encode(), kind, "it")
    with pytest.raises(UpdateRejected, match=name):
        parse(json.dumps(said | {name: number}).encode(), kind, "it")


LOSSES = {"avg_loss", "loss", "first_loss"}  # of which one may be negative: who asked for it judges that


@pytest.mark.parametrize(
    ("kind", "said", "name"),
    [case for case in NUMBERS if case[2] not in LOSSES or case[0] is OriginalContribution],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_a_negative_number_is_no_record_but_of_a_loss(kind, said, name):
    with pytest.raises(UpdateRejected, match=name):
        parse(json.dumps(said | {name: -1}).encode(), kind, "it")


def a_console():
    return Console(file=io.StringIO(), force_terminal=True, width=200)


@given(
    step=COUNTS,
    steps=COUNTS,
    number=st.integers(0, 999_999_999),
    loss=st.none() | st.floats(-1e15, 1e15),
    speed=RATES,
    time=st.floats(0, 9e9),
    client=st.integers(0, 9),
)
def test_every_heartbeat_within_bounds_can_be_shown(step, steps, number, loss, speed, time, client):
    said = STATUS | {
        "step": step,
        "steps": steps,
        "round": number,
        "loss": loss,
        "tokens_per_second": speed,
        "time": time,
        "client_id": client,
    }
    status = ClientStatus.model_validate(said)
    plan = RoundPlan(fed_rounds=1, num_clients=2, clients_per_round=2, seed=1)
    with screen_for(a_console(), plan, 0) as screen:
        screen.status(status)
    with ClientScreen(a_console(), client) as own:
        own.status(status)
    assert words.moment(status.time)[:4].isdigit()
    assert words.duration(status.time)


@given(st.floats())
def test_whatever_a_time_is_the_page_shows_it_or_a_dash(seconds):
    shown = words.moment(seconds)
    assert shown == words.DASH or shown[-3] == ":"


@given(avg_loss=RATES, samples=st.integers(1, 10**15), seconds=st.floats(0, 1e9), tokens=COUNTS, speed=RATES)
def test_every_answer_within_bounds_is_a_line(avg_loss, samples, seconds, tokens, speed):
    said = Contribution(avg_loss=avg_loss, num_samples=samples, seconds=seconds)
    assume(said != WITHHELD)  # which has a line of its own
    report = TrainingReport(tokens=tokens, tokens_per_second=speed, steps=tokens, truncated=tokens)
    line = answer_line(ClientUpdate("run", 1, 0, "sft", adapter(), said, report)).plain
    assert f"{samples} samples" in line
    assert line.isprintable()


@given(st.text(st.characters()))
def test_a_reason_is_one_line_whatever_it_says(reason):
    assert answer_line(ClientFailure(1, reason)).plain.isprintable()


@pytest.mark.parametrize("text", ["\x1b[2J\x1b[31mred", "a\nb", "\x9b31m", "\x07\x08", "\u202egnp.exe"])
def test_what_a_client_says_does_nothing_to_the_terminal(text):
    console = Console(file=io.StringIO(), width=200)
    ClientScreen(console, 1).tell(text)
    assert console.file.getvalue().rstrip("\n").isprintable()


@pytest.mark.parametrize("key", ["validation", "held_out"])
def test_the_validation_figures_are_read_under_their_old_name_too(key):
    line = {"event": "started", "run_id": "run", "time": 1.0, "round": 0, key: {"loss": 6.5, "examples": 96}}
    event = RunEvent.model_validate_json(json.dumps(line))
    assert event.validation == Validation(loss=6.5, examples=96)
    assert "held_out" not in event.model_dump_json()
