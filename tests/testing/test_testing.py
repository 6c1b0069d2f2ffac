"""`fccl.testing` is for third parties too: it says at once which library it lacks."""

import subprocess
import sys

import pytest

from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport


@pytest.mark.parametrize("library", ["pytest", "hypothesis"])
def test_without_a_test_library_one_line_says_what_to_install(library):
    hidden = f"""
import sys
sys.modules[{library!r}] = None
try:
    import fccl.testing
except ModuleNotFoundError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=True)
    assert process.stdout == f'fccl.testing needs {library}: pip install "fccl[testing]"\n'


def test_the_toy_federation_has_as_many_rounds_as_it_is_told():
    results = list(federation(clients=4, rounds=3, per_round=2).run(START, InProcessTransport(ToyLearner(), shard)))
    assert [result.record.phase for result in results] == ["sft"] * 3 + ["va"] * 3
    assert all(len(result.record.selected) == 2 for result in results)
