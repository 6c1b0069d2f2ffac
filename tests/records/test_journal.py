import json

from hypothesis import given
from hypothesis import strategies as st

from fccl.paths import LogPaths
from fccl.records.journal import Journal
from fccl.records.run import ClientStatus, RoundRecord, RunState
from fccl.storage.reading import read_records, read_rows, read_value
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport

RECORD = federation().run_round(START, InProcessTransport(ToyLearner(), shard)).record


def test_a_round_record_is_the_same_after_json():
    assert RoundRecord.model_validate_json(RECORD.model_dump_json()) == RECORD


@given(st.integers(0, 400))
def test_a_cut_last_line_hides_nothing_before_it(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("j") / "progress.jsonl"
    line = RECORD.model_dump_json()
    path.write_text(line + "\n" + line[: min(cut, len(line) - 1)])
    assert read_records(path, RoundRecord) == [RECORD]


def test_rows_that_are_no_records_are_passed_over(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('[]\n1\nnull\n{"event": "round"}\n\n' + "[" * 100_000 + "\n" + RECORD.model_dump_json() + "\n")
    assert read_records(path, RoundRecord) == [RECORD]
    assert len(list(read_rows(path))) == 2
    assert list(read_rows(tmp_path / "none.jsonl")) == []


def test_a_broken_value_is_none(tmp_path):
    path = tmp_path / "state.json"
    for text in (
        "",
        "{",
        "[]",
        '{"run_id": "x"}',
        '{"run_id": "x", "next_round": -1, "total_rounds": 4, "adapter_sha256": ""}',
    ):
        path.write_text(text)
        assert read_value(path, RunState) is None
    path.write_text('{"run_id": "x", "run_id": "x", "next_round": 1, "total_rounds": 4, "adapter_sha256": ""}')
    assert read_value(path, RunState) is None
    path.write_bytes(b"\xff\xfe")
    assert read_value(path, RunState) is None
    assert read_value(tmp_path / "none.json", RunState) is None


def test_heartbeats_are_throttled_while_training_but_never_the_last(tmp_path):
    journal = Journal(LogPaths(tmp_path))
    status = ClientStatus(client_id=1, state="training", run_id="r", round=0, phase="sft")
    for step in range(5):
        journal.heartbeat(status.model_copy(update={"step": step}))
    assert json.loads((tmp_path / "status_1.json").read_text())["step"] == 0
    journal.heartbeat(status.model_copy(update={"state": "done", "step": 5}))
    assert json.loads((tmp_path / "status_1.json").read_text())["state"] == "done"
