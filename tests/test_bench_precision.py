"""`benchmarks/bench_precision.py`: whole quickstarts at two precisions, and the summary of their ratios."""

import math

import pytest
from scipy import stats

from benchmarks.bench_precision import quickstarts, times
from benchmarks.kept import Kept


def test_ratios_have_their_geometric_mean_and_students_interval():
    ratios = [1.01, 0.99, 1.03, 1.0, 1.02]
    low, high = stats.ttest_1samp([math.log(ratio) for ratio in ratios], 0.0).confidence_interval(0.95)
    assert times(ratios) == f"{math.prod(ratios) ** 0.2:.4f} [{math.exp(low):.4f}, {math.exp(high):.4f}]"


@pytest.mark.parametrize("ratio", [0.5, 1.25])
def test_one_ratio_has_no_interval(ratio):
    assert times([ratio]) == f"{ratio:.4f}"


@pytest.mark.slow
def test_quickstarts_end_with_a_ratio_for_each_precision(capsys):
    quickstarts([1], ["fp32", "int8"], Kept(None), fed_rounds=1, max_sft_examples=60, max_va_examples=30)
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[2].strip(): line.split("|")[3:-1] for line in lines if line.startswith("| 1 |")}
    assert list(rows) == ["fp32, 1", "int8, 1", "fp32, 2"]
    assert rows["fp32, 1"][:2] == rows["fp32, 1"][2:], "judged as trained"
    ratio = float(rows["int8, 1"][0]) / float(rows["fp32, 1"][0])
    _, name, told, *_ = (cell.strip() for cell in lines[-2].split("|"))
    assert (name, float(told)) == ("int8, 1", pytest.approx(ratio, abs=1e-3))  # of losses that are printed rounded


def test_quickstarts_that_are_kept_do_not_run_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.bench_precision.quickstart", lambda folder, seed, *how: (seed, 2.0, seed, 2.0))
    quickstarts([1, 2], ["fp32", "int8"], Kept(tmp_path / "kept.jsonl"))
    first = capsys.readouterr().out
    monkeypatch.setattr("benchmarks.bench_precision.quickstart", lambda *how: pytest.fail("it ran again"))
    quickstarts([1, 2], ["fp32", "int8"], Kept(tmp_path / "kept.jsonl"))
    assert capsys.readouterr().out == first
    assert "| int8, 1 | 1.0000 [1.0000, 1.0000] |" in first
