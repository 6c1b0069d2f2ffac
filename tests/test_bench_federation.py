"""The parts of `benchmarks/bench_federation.py` that decide what is compared with what."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import bench_federation as bench
from benchmarks import federation_contestants as contestants
from fccl.adapters.adapter import Adapter
from fccl.aggregation.mean import weighted_mean
from fccl.data.examples import prompt_of


def test_trl_reads_the_prompt_and_the_answers_that_a_client_of_this_system_trains_on():
    sft = contestants.trl_row({"instruction": "Say it.", "response": "It.", "topic": "x"}, prompt_of)
    va = contestants.trl_row({"instruction": "Say it.", "preferred": "It.", "dispreferred": "No."}, prompt_of)
    assert sft == {"prompt": prompt_of("Say it."), "completion": " It."}
    assert va == {"prompt": prompt_of("Say it."), "chosen": " It.", "rejected": " No."}


@given(st.lists(st.tuples(st.floats(-10, 10, width=32), st.integers(1, 100)), min_size=1, max_size=5))
def test_the_loops_average_is_this_systems_weighted_mean(answers):
    states = [({"a": torch.full((2, 3), number)}, count) for number, count in answers]
    total = sum(count for _, count in answers)
    expected = weighted_mean([(count / total, Adapter(state)) for state, count in states])
    assert torch.allclose(contestants.mean_state(states)["a"], expected.tensors["a"], rtol=1e-6, atol=1e-6)


def record(*training, verification, seconds):
    said = [SimpleNamespace(seconds=each) for each in training]
    return SimpleNamespace(contributions=said, verification=SimpleNamespace(seconds=verification), seconds=seconds)


def test_the_parts_of_a_runs_time_add_up_to_its_rounds():
    found = contestants.split(
        [record(1.0, 2.0, verification=0.5, seconds=4.0), record(3.0, verification=0.25, seconds=4.0)]
    )
    assert found == {"training": 6.0, "verification": 0.75, "validation, aggregation, messages": 1.25}
    assert sum(found.values()) == 8.0


def test_a_contestant_says_where_its_time_went_with_the_rest():
    assert bench.shares(bench.Outcome("trl", 10.0, 1.0, {"training": 7.0, "FedAvg": 1.0})) == (
        "training 70%, FedAvg 10%, the rest 20%"
    )
    assert bench.shares(bench.Outcome("flower", 10.0, 1.0, {})) == ""


def test_the_table_has_the_ratio_to_the_first():
    outcomes = [bench.Outcome("auto", 2.0, 1e9, {}), bench.Outcome("trl", 5.0, 3e9, {})]
    columns = bench.table_of("micro", outcomes).columns
    assert [list(column.cells) for column in columns[1:4]] == [["2.0", "5.0"], ["1.00", "2.50"], ["1.00 GB", "3.00 GB"]]


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(bench.NEEDS, "flower", ("json", "no_such_package_at_all"))
    assert bench.lacking("flower") == ["no_such_package_at_all"]


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_texts_are_rows_that_the_project_reads_no_two_alike(tmp_path, phase):
    rows = [json.loads(line) for line in bench.write_texts(tmp_path, phase, 20).read_text().splitlines()]
    assert len(rows) >= 20
    answers = {"response"} if phase == "sft" else {"preferred", "dispreferred"}
    assert all(row.keys() == {"instruction", "topic"} | answers for row in rows)
    assert len({row["instruction"] for row in rows}) == len(rows)


def test_a_smaller_job_is_expected_to_take_less_and_flower_what_its_loop_takes():
    assert bench.expected_seconds("gpt2", "trl", 8, 3, 10) == 2 * bench.expected_seconds("gpt2", "trl", 8, 3, 5)
    assert bench.expected_seconds("gpt2", "flower", 8, 3, 10) == bench.expected_seconds("gpt2", "trl", 8, 3, 10)


def test_fast_is_small_and_can_be_widened():
    assert vars(bench.read_options([], fast=True)) | {"threads": 0} == {
        "sizes": ["micro"],
        "only": list(bench.NAMES),
        "clients": 2,
        "rounds": 1,
        "steps": 2,
        "batch": 8,
        "threads": 0,
        "fast": True,
    }
    assert bench.read_options(["--sizes", "gpt2", "--clients", "3"], fast=True).sizes == ["gpt2"]


def test_both_sides_read_the_same_job(tmp_path):
    job = contestants.Job("name", "folder", "data", {"sft_data": "x"}, 8, 3, "c_attn", 2)
    (tmp_path / "job.json").write_text(json.dumps(bench.asdict(job)))
    assert contestants.read_job(tmp_path / "job.json") == job
