"""The split and the adapters that evaluation is tested on; empty folders for a run's logs and an exchange directory."""

import pytest

from tests.evaluation.conftest import an_adapter, boot, options, split, taught
from tests.view.logs import Logs

__all__ = ["an_adapter", "boot", "options", "split", "taught"]


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path / "logs")


@pytest.fixture
def exchange(tmp_path):
    (tmp_path / "exchange").mkdir()
    return tmp_path / "exchange"
