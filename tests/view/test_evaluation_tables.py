import pytest

from fccl.records.evaluation import Estimate
from fccl.view import evaluation_tables as tables


def estimate(value, n=30):
    return Estimate(value=value, low=value / 2, high=value * 2, n=n)


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "1.23"), (99.99, "99.99"), (123.45, "123.5"), (12345.6, "12,346"), (2.5e7, "2.50e+07")]
)
def test_numbers_have_about_three_figures(value, text):
    assert tables.plain(value) == text


def test_the_best_is_the_lowest_or_the_highest():
    values = [estimate(3.0), None, estimate(2.0), estimate(2.001)]
    lowest = tables._row("a", "", values, tables.plain, lower=True)
    highest = tables._row("a", "", values, tables.plain)
    assert [cell.best for cell in lowest.cells] == [False, False, True, True]  # what looks alike is alike
    assert [cell.best for cell in highest.cells] == [True, False, False, False]


def test_where_all_look_alike_none_is_best():
    assert not any(cell.best for cell in tables._row("a", "", [estimate(2.0), estimate(2.001)], tables.plain).cells)


def test_one_example_has_no_interval():
    (one, many) = tables._row("a", "", [estimate(0.5, n=1), estimate(0.5)], tables.percent).cells
    assert (one.text, one.interval) == ("50.0 %", "")
    assert many.interval == "25.0 to 100.0 %"
