"""The summary of `benchmarks/bench_precision.py`: ratios over seeds."""

import math

import pytest
from scipy import stats

from benchmarks.bench_precision import times


def test_ratios_have_their_geometric_mean_and_students_interval():
    ratios = [1.01, 0.99, 1.03, 1.0, 1.02]
    low, high = stats.ttest_1samp([math.log(ratio) for ratio in ratios], 0.0).confidence_interval(0.95)
    assert times(ratios) == f"{math.prod(ratios) ** 0.2:.4f} [{math.exp(low):.4f}, {math.exp(high):.4f}]"


@pytest.mark.parametrize("ratio", [0.5, 1.25])
def test_one_ratio_has_no_interval(ratio):
    assert times([ratio]) == f"{ratio:.4f}"
