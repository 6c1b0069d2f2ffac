import pytest
from pydantic import ValidationError

from fccl.records.comparison import Comparison
from tests.compare.made_up import comparison, row


def test_json_both_ways():
    assert Comparison.model_validate_json(comparison().model_dump_json()) == comparison()


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": (row("shuffled", "fedavg", 1.0), row("shuffled", "fedavg", 2.0))},
        {"rows": (row("elsewhere", "fedavg", 1.0),)},
        {"rows": (row("shuffled", "magic", 1.0),)},
        {"scenarios": comparison().scenarios * 2},
        {"methods": comparison().methods * 2},
    ],
)
def test_rows_are_of_what_was_compared_and_each_is_there_once(changes):
    with pytest.raises(ValidationError):
        comparison(**changes)


def test_a_row_is_found_by_scenario_and_method():
    assert comparison().row("shuffled", "verified").verdict == "better"
    assert comparison().row("flipped", "oracle") is None
