"""Everything is killed at random moments, and the result is the undisturbed run's.

`make chaos` does it a hundred times.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "chaos.py"


def chaos(*arguments):
    result = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_hundred_kills_and_ten_of_the_commands_themselves():
    output = chaos("--kills", "100", "--micro-kills", "10", "--seed", "1")
    assert "toy: kills: 100 (" in output
    assert output.count("identical: yes") == 2
