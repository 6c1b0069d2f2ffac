import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.records.evaluation import FEWEST_FOR_A_VERDICT, Estimate, verdict

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.3, -0.1, True, "worse"),
        (-0.3, -0.1, False, "better"),
        (-0.1, 0.3, True, "no significant difference"),
        (0.0, 0.3, True, "no significant difference"),
        (0.0, 0.0, True, "no significant difference"),
    ],
)
def test_verdict_follows_the_interval(low, high, higher, expected):
    assert verdict(Estimate(value=(low + high) / 2, low=low, high=high, n=50), 0.0, higher) == expected


@given(st.integers(1, FEWEST_FOR_A_VERDICT - 1))
def test_a_handful_of_examples_proves_nothing(count):
    assert verdict(Estimate(value=1, low=1, high=1, n=count), 0.0, True) == "too few examples"


def test_fewer_could_all_point_one_way_by_chance():
    """The two-sided sign test at 5 %."""
    assert 2 * 0.5**FEWEST_FOR_A_VERDICT < 0.05 < 2 * 0.5 ** (FEWEST_FOR_A_VERDICT - 1)
    assert verdict(Estimate(value=1, low=1, high=1, n=FEWEST_FOR_A_VERDICT), 0.0, True) == "better"


def test_reading_a_report_needs_no_torch():
    code = "import sys; import fccl.records.evaluation, fccl.view.evaluation_markdown; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
