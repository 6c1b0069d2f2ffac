"""Which GPU each of several processes sees."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.processes.gpus import VISIBLE, gpu_names, own_gpu
from tests.examples import few


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (0, None, ()),
        (3, None, ("0", "1", "2")),
        (0, "", ()),
        (1, "5", ("5",)),
        (2, "3, 1", ("3", "1")),
        (2, "GPU-8f2c,MIG-77aa", ("GPU-8f2c", "MIG-77aa")),
        (1, "2,-1,3", ("2",)),  # the driver stops at the first that is no GPU
    ],
)
def test_gpus_have_the_names_that_this_process_was_given(count, visible, names):
    assert gpu_names(count, visible) == names


@settings(max_examples=few(50))
@given(count=st.integers(2, 16), processes=st.integers(1, 40))
def test_processes_take_the_gpus_in_turn_so_none_has_two_more_than_another(count, processes):
    names = gpu_names(count, None)
    taken = [own_gpu(number, names)[VISIBLE] for number in range(processes)]
    shares = [taken.count(name) for name in names]
    assert sum(shares) == processes
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("names", [(), ("0",), ("GPU-8f2c",)])
def test_where_there_are_not_several_nothing_is_said(names):
    assert own_gpu(3, names) == {}
