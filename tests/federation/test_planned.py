"""A plan waits in LOG_DIR for the run that it was made for, and goes with no other."""

import pytest

from fccl.federation.planned import take_plan
from fccl.paths import LogPaths
from fccl.records.forecast import Forecast
from fccl.storage.reading import read_value


@pytest.fixture
def logs(tmp_path):
    logs = LogPaths(tmp_path)
    plan = Forecast(created=1.0, settings={"seed": "7", "log_dir": "there", "fed_rounds": "3"}, rounds=())
    logs.planned.write_text(plan.model_dump_json())
    return logs


def test_a_run_with_its_settings_takes_it_along_wherever_its_folder_is(logs):
    take_plan(logs, {"seed": "7", "log_dir": "here", "fed_rounds": "3"})
    assert read_value(logs.plan, Forecast).settings["seed"] == "7"
    assert not logs.planned.exists()


@pytest.mark.parametrize("settings", [{"seed": "8", "fed_rounds": "3"}, {"seed": "7"}, {}])
def test_another_run_leaves_it(logs, settings):
    take_plan(logs, settings)
    assert logs.planned.is_file()
    assert not logs.plan.exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": 2}'])
def test_a_plan_that_cannot_be_read_is_none(logs, content):
    logs.planned.write_text(content)
    take_plan(logs, {"seed": "7", "fed_rounds": "3"})
    assert not logs.plan.exists()
