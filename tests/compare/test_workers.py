import os
from functools import partial

import pytest

from fccl.compare.workers import run_all
from fccl.errors import FederationError


@pytest.mark.slow
def test_a_process_that_dies_is_one_line_and_not_a_hang():
    with pytest.raises(FederationError, match="a process of the comparison died"):
        list(run_all([1, 2], partial(os._exit, 1), jobs=2))
