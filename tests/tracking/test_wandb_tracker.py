"""W&B in its offline mode: real files, read back record by record."""

import json
import struct
import time

import pytest

from fccl.tracking.figures import base_figures, evaluation_figures, round_figures, step_of
from fccl.tracking.tracker import tracker_for
from tests.view.logs import BASE

BLOCK = 2**15
FULL, FIRST, LAST = 1, 2, 4


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def records(told, sessions=1):
    """What the transaction logs of all sessions hold, oldest first, as soon as each has its end:

    W&B's own process writes them.
    """
    give_up = time.monotonic() + 60
    while True:
        found = list(there(told))
        if sum(record.WhichOneof("record_type") == "exit" for record in found) == sessions:
            return found
        assert time.monotonic() < give_up, "no end was written"
        time.sleep(0.1)


def there(told):
    from wandb.proto import wandb_internal_pb2  # here: collecting the tests need not wait for it

    for file in sorted(told.paths.root.glob("wandb/offline-run-*/run-*.wandb")):
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record


def log_records(content):
    """The records of a log in LevelDB's format: blocks of 32 KiB, pieces of (checksum, length, type) and data.

    The first 7 bytes are W&B's own. The last record may be there in part.
    """
    at, record = 7, b""
    assert content[:4] in (b":W&B", b"")
    while at < len(content):
        left = BLOCK - at % BLOCK
        if left < 7:  # too short for a piece: filled up
            at += left
            continue
        if at + 7 > len(content):
            return  # it is being written
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if at + 7 + length > len(content):
            return
        record = (b"" if kind in (FULL, FIRST) else record) + content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            yield record


def history(told, sessions=1):
    """(name, step) -> every value that was logged."""
    found = {}
    for record in records(told, sessions):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = row.get("_step", record.history.step.num)
            for name, value in row.items():
                if not name.startswith("_"):
                    found.setdefault((name, step), []).append(value)
    return found


def expected(told, until=4):
    found = {(name, 0): value for name, value in base_figures(BASE).items()}
    for record, metrics in told.rounds(until):
        found |= {(name, step_of(record)): value for name, value in round_figures(record, metrics).items()}
    return {key: [pytest.approx(value)] for key, value in found.items()}


def test_the_files_hold_every_figure_and_what_the_run_is(told):
    tracker = tracker_for("wandb", told.paths)
    told.tell(tracker)
    tracker.evaluated(told.report)
    tracker.ended("finished")
    assert history(told) == expected(told)
    run = next(record.run for record in records(told) if record.WhichOneof("record_type") == "run")
    assert (run.run_id, run.project) == (told.info.run_id, "fccl")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed"] == 7
    assert config["data_sha256"] == told.info.data_sha256
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records(told)
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert {name: summary[name] for name in evaluation_figures(told.report)} == pytest.approx(
        evaluation_figures(told.report)
    )
    ends = [record.exit.exit_code for record in records(told) if record.WhichOneof("record_type") == "exit"]
    assert ends == [0]


def test_a_resumed_run_has_every_round_once_and_its_mark_is_none_of_another_run(told):
    first = tracker_for("wandb", told.paths)
    told.tell(first, until=2)
    first.ended("interrupted")
    second = tracker_for("wandb", told.paths)
    told.tell(second)
    second.ended("finished")
    assert history(told, sessions=2) == expected(told)
    ids = {record.run.run_id for record in records(told, sessions=2) if record.WhichOneof("record_type") == "run"}
    assert ids == {told.info.run_id}
    told.logs.run_id = "another"
    third = tracker_for("wandb", told.paths)
    told.tell(third, until=1)
    third.ended("finished")
    assert len(history(told, sessions=3)["round/seconds", 1]) == 2
