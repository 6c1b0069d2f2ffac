import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.records.run import ArrivedUpdate, ServerLearning, Validation, Verification
from fccl.records.sent import SentBytes, bytes_line
from fccl.view import sentences
from fccl.view.frames import GrowingFrame, MetricsLog, ProgressLog
from fccl.view.values import EXCLUSIONS, METRICS, ROUNDS, SHARES
from tests.view.logs import Logs, line

LOGS = Logs(None)
RECORD, METRIC = json.loads(line(LOGS.record(2, excluded=(1,)))), json.loads(line(LOGS.metrics(2, 0)))
LARGE = 2**63


def progress(*lines: bytes) -> ProgressLog:
    log = ProgressLog("run")
    log.feed(list(lines))
    return log


def metrics(*lines: bytes) -> MetricsLog:
    log = MetricsLog("run")
    log.feed(list(lines))
    return log


def changed(row: dict[str, object], **changes: object) -> bytes:
    return json.dumps(row | changes).encode()


def is_empty(log: ProgressLog) -> bool:
    return log.rounds.frame.empty and log.shares.frame.empty and log.exclusions.frame.empty and not log.events


@pytest.mark.parametrize("lines", [(), (line(LOGS.record(0, excluded=(2,))), line(LOGS.record(3)))])
def test_tables_have_the_columns_and_types_that_are_promised(lines):
    log = progress(*lines)
    for form, frame in ((ROUNDS, log.rounds.frame), (SHARES, log.shares.frame), (EXCLUSIONS, log.exclusions.frame)):
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == form
        assert list(frame.columns) == list(form)
        assert list(frame.index) == list(range(len(frame)))
    frame = metrics(*(line(LOGS.metrics(0, client)) for client in range(len(lines)))).metrics.frame
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == METRICS
    assert len(frame) == len(lines)


def test_a_round_is_one_row_and_every_client_one_share():
    log = progress(line(LOGS.record(0)), line(LOGS.record(2, excluded=(1,))))
    assert log.rounds.frame[["round", "phase", "selected", "clients", "excluded"]].values.tolist() == [
        [0, "sft", 3, 3, 0],
        [2, "va", 3, 2, 1],
    ]
    assert math.isnan(log.rounds.frame["preference_accuracy"][0])
    assert log.rounds.frame["preference_accuracy"][1] == 0.75
    assert log.shares.frame[["round", "client", "num_samples"]].values.tolist() == [
        [0, 0, 10],
        [0, 1, 20],
        [0, 2, 30],
        [2, 0, 10],
        [2, 2, 30],
    ]
    assert np.allclose(log.shares.frame["sample_share"], [1 / 6, 2 / 6, 3 / 6, 1 / 4, 3 / 4])
    assert log.exclusions.frame.values.tolist() == [[2, "va", 1, "no answer"]]


def test_what_the_server_verified_and_what_the_aggregation_did_are_columns():
    verified = Verification(
        examples=32, prior=(0.25, 0.75), standing=(-2.0, 1.5), loss_prior=None, loss_weights=0.5, seconds=1.5
    )
    record = LOGS.record(2, excluded=(1,)).model_copy(
        update={"verification": verified, "counted": (0.0, 1.0), "aggregation": "krum", "lora_error": 0.1}
    )
    log = progress(line(record), line(LOGS.record(3)))
    shares = log.shares.frame[["prior", "counted", "standing"]]
    assert shares.values[:2].tolist() == [[0.25, 0.0, -2.0], [0.75, 1.0, 1.5]]
    assert shares[2:].isna().all(axis=None)
    rounds = log.rounds.frame.drop(columns="loss_prior")
    assert log.rounds.frame["loss_prior"].isna().all()  # not finite, and not verified
    assert rounds[["aggregation", "lora_error", "verify_examples", "verify_seconds", "loss_weights"]].values[
        0
    ].tolist() == [
        "krum",
        0.1,
        32,
        1.5,
        0.5,
    ]
    assert rounds.iloc[1][["lora_error", "verify_examples", "verify_seconds", "loss_weights"]].isna().all()


def test_what_the_server_learned_is_the_loss_before_beside_the_loss_after():
    before = Validation(loss=4.5, examples=9)
    said = ServerLearning(
        examples=48, epochs=1, steps=6, avg_loss=2.0, before=before, aggregate_sha256="ab" * 32, seconds=1.5
    )
    records = (LOGS.record(0).model_copy(update={"learning": said}), LOGS.record(1))
    rounds = progress(*map(line, records)).rounds.frame
    assert rounds[["aggregate_loss", "learn_seconds"]].values[0].tolist() == [4.5, 1.5]
    assert rounds[["aggregate_loss", "learn_seconds"]].iloc[1].isna().all()
    assert sentences.server_learning(rounds) == (
        "After every aggregation the server trains the global adapter on its learn split. Round 1: validation loss "
        "4.500 before, 3.000 after (nats per response token); it took 1.5 s."
    )
    assert sentences.server_learning(rounds[1:]) == ""


def test_the_bytes_of_adapters_are_those_of_all_clients_of_the_round():
    """A client that did not answer the round before reads the adapter whole."""
    sent = SentBytes(codec="int8", up=60, down=20, whole=100)

    def said(number, answered, **changes):
        arrived = tuple(ArrivedUpdate(client_id=client, sha256="ab" * 32) for client in answered)
        return LOGS.record(number).model_copy(update={"sent": sent, "arrived": arrived, **changes})

    records = said(0, (0, 2)), said(1, (0, 1, 2)), said(2, (0, 1, 2)), said(3, (), sent=None)
    log = ProgressLog("run")
    for record in records:  # as a reader gets them, one after the other
        log.feed([line(record)])
    found = log.rounds.frame[["bytes_up", "bytes_down", "bytes_whole"]]
    clients = len(records[0].selected)
    whole = [100 * (answered + clients) for answered in (2, 3, 3)]
    assert found[:3].values.tolist() == [[60, 60, whole[0]], [60, 140, whole[1]], [60, 60, whole[2]]]
    assert found[3:].isna().all(axis=None)
    assert sentences.saved(log.rounds.frame) == bytes_line(records) != ""


def test_a_source_without_a_prior_or_a_memory_has_none():
    log = progress(line(LOGS.record(0).model_copy(update={"verification": Verification(examples=32, seconds=1.5)})))
    assert log.shares.frame[["prior", "standing"]].isna().all(axis=None)
    assert log.rounds.frame["verify_seconds"].tolist() == [1.5]


def test_a_run_without_validation_has_no_loss():
    log = progress(changed(RECORD, validation=None))
    assert log.rounds.frame[["validation_loss", "preference_accuracy"]].isna().all(axis=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"round": "2"},
        {"round": True},
        {"round": 2.0},
        {"round": None},
        {"round": -1},
        {"round": LARGE},
        {"time": "now"},
        {"time": math.nan},
        {"seconds": math.inf},
        {"seconds": 10**400},
        {"phase": "rlhf"},
        {"phase": 1},
        {"adapter_sha256": 7},
        {"weights": [0.5]},
        {"scores": []},
        {"clients": [0, 1, 2]},
        {"clients": [0, LARGE]},
        {"contributions": []},
        {"contributions": [{"avg_loss": 1.0, "num_samples": 0, "seconds": 1.0}] * 2},
        {"contributions": [{"avg_loss": 1.0, "num_samples": LARGE, "seconds": 1.0}] * 2},
        {"excluded": [{"client_id": -LARGE - 1, "reason": "x"}]},
        {"excluded": [{"client_id": 1}]},
        {"counted": [1.0]},
        {"verification": {"examples": 32, "prior": [1.0]}},
        {"verification": {"examples": 32, "standing": [1.0]}},
        {"verification": {"examples": 32, "standing": [1.0, math.nan]}},
        {"verification": {"examples": LARGE}},
        {"verification": {"examples": 32, "loss_prior": math.inf}},
        {"lora_error": math.nan},
        {"validation": {"loss": math.nan, "preference_accuracy": None, "examples": 9}},
        {"one": "field too many"},
        {"event": "lunch"},
        {"run_id": 5},
    ],
)
def test_a_round_that_is_not_as_it_should_be_is_counted_and_in_no_table(changes):
    log = progress(changed(RECORD, **changes))
    assert log.unreadable == 1
    assert is_empty(log)


@pytest.mark.parametrize("field", sorted(set(METRIC) - {"first_loss"}))
@pytest.mark.parametrize("value", [None, True, [], math.nan, -math.inf, 10**400, "missing"])
def test_a_line_of_metrics_that_is_not_as_it_should_be_is_counted_and_in_no_table(field, value):
    row = METRIC | {field: value}
    if value == "missing":
        del row[field]
    log = metrics(json.dumps(row).encode())
    assert (log.unreadable, len(log.metrics.frame)) == (1, 0)


@pytest.mark.parametrize("field", [name for name in METRIC if isinstance(METRIC[name], int)])
def test_a_number_that_no_column_holds_leaves_the_lines_beside_it(field):
    good = line(LOGS.metrics(1, 1))
    log = metrics(good, changed(METRIC, **{field: LARGE}), good, changed(METRIC, **{field: LARGE - 1}))
    assert (log.unreadable, len(log.metrics.frame)) == (1, 3)


def test_an_event_that_no_number_holds_is_no_event():
    event = {"event": "started", "run_id": "run", "time": 1.0, "round": LARGE, "message": "", "validation": None}
    assert progress(json.dumps(event).encode()).unreadable == 1
    assert progress(json.dumps(event | {"round": 0}).encode()).events[0].event == "started"


def test_lines_of_another_run_are_passed_over_and_not_counted():
    log = progress(changed(RECORD, run_id="other"), line(LOGS.record(0)))
    assert (log.unreadable, len(log.rounds.frame)) == (0, 1)
    other = metrics(changed(METRIC, run_id="other"))
    assert (other.unreadable, len(other.metrics.frame)) == (0, 0)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_is_counted_and_changes_nothing(garbage):
    log, other = progress(*garbage), metrics(*garbage)
    assert is_empty(log)
    assert other.metrics.frame.empty
    assert log.unreadable == other.unreadable == sum(bool(text.strip()) for text in garbage)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_record_is_read_as_a_record_or_counted(data):
    log, good = MetricsLog("run"), line(LOGS.metrics(3, 2)).strip()
    place = data.draw(st.integers(0, len(good)))
    damaged = good[:place] + data.draw(st.binary(max_size=3)) + good[place + data.draw(st.integers(0, 3)) :]
    log.feed([damaged, good])
    frame = log.metrics.frame
    assert frame["client"].iloc[-1] == 2
    assert log.unreadable + len(frame) in (1, 2)  # 1: another run's, since its id was changed, or nothing but blanks
    assert np.isfinite(frame.select_dtypes("number")).all(axis=None)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"event":' * 100_000, b"1" * 100_000])
def test_deep_and_long_garbage(deep):
    assert progress(deep).unreadable == metrics(deep).unreadable == 1


def test_a_frame_that_was_handed_out_does_not_change():
    log = progress(line(LOGS.record(0)))
    first = log.rounds.frame
    assert log.rounds.frame is first
    kept = first.copy()
    log.feed([line(LOGS.record(1))])
    assert len(log.rounds.frame) == 2
    pd.testing.assert_frame_equal(first, kept)
    log.clear()
    assert is_empty(log)
    pd.testing.assert_frame_equal(first, kept)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(-9, 9), st.text(max_size=3), st.floats(allow_nan=False)), max_size=5), max_size=6
    )
)
def test_a_table_is_its_rows_however_they_came(pieces):
    table = GrowingFrame({"a": "int64", "b": "str", "c": "float64"})
    for piece in pieces:
        table.add(piece)
    rows = [row for piece in pieces for row in piece]
    assert list(table.frame.itertuples(index=False, name=None)) == rows
