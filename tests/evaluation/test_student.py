import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fccl.evaluation.student import holm, p_value, student

NUMBERS = st.lists(st.floats(-100, 100), min_size=2, max_size=12).filter(lambda values: np.std(values) > 1e-3)


@given(NUMBERS)
def test_the_interval_is_the_mean_and_so_many_standard_errors(values):
    """Against scipy's distribution, which inverts the incomplete beta function by itself."""
    found, error = student(values), np.std(values, ddof=1) / math.sqrt(len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert found.n == len(values)


@given(NUMBERS)
def test_the_p_value_is_that_of_the_t_test(values):
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=1e-6, abs=1e-12)


@given(NUMBERS)
def test_the_interval_leaves_out_zero_where_p_is_below_five_in_a_hundred(values):
    found, p = student(values), p_value(values)
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (not found.low <= 0 <= found.high)


def test_intervals_hold_the_truth_in_nineteen_of_twenty_draws_of_three_seeds():
    rng = np.random.default_rng(1)
    found = [student(list(rng.normal(0.4, 2.0, 3))) for _ in range(2000)]
    assert np.mean([one.low <= 0.4 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)


def test_equal_values_have_no_width():
    assert (student([0.3, 0.3]).low, student([0.3, 0.3]).high) == (0.3, 0.3)
    assert (p_value([0.0, 0.0, 0.0]), p_value([0.5, 0.5])) == (1.0, 0.0)


@pytest.mark.parametrize("function", [student, p_value])
def test_one_value_has_no_interval(function):
    with pytest.raises(ValueError, match="at least two values, not 1"):
        function([1.0])


def rejected(p_values, level):
    """Holm's procedure as the paper states it: reject from the smallest on, stop at the first that is too large."""
    found = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        found.add(place)
    return found


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.5))
def test_adjusted_p_values_are_below_the_level_where_holms_procedure_rejects(p_values, level):
    adjusted = holm(p_values)
    if all(abs(one - level) > 1e-9 for one in adjusted):
        assert {place for place, one in enumerate(adjusted) if one <= level} == rejected(p_values, level)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_correction_only_raises_and_the_smallest_is_bonferronis(p_values):
    adjusted = holm(p_values)
    assert all(plain <= one <= 1 for plain, one in zip(p_values, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_the_family_errs_in_one_of_twenty_at_most():
    """Ten pairs without any difference, a thousand families: how often any of them is called different."""
    rng = np.random.default_rng(2)
    wrong = [min(holm([p_value(list(pair)) for pair in rng.normal(0, 1, (10, 5))])) < 0.05 for _ in range(500)]
    assert np.mean(wrong) < 0.08
