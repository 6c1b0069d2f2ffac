"""The child that begins to import beside a command: where it is worth it, and for how many processes."""

import os

import pytest

from fccl.apps.head_start import head_start
from fccl.config import Settings, load_settings


@pytest.fixture(autouse=True)
def without_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("cores", "given", "lines"),
    [
        ("2", {}, 3),
        ("2", {"num_clients": 100}, 4),
        ("2", {"num_clients": 1}, 0),
        ("2", {"clients_per_round": 2}, 2),
        ("2", {"client_processes": 1}, 0),
        ("1", {}, 0),
        ("1", {"client_processes": 2}, 2),
        ("100", {"num_clients": 1000}, 64),
    ],
)
def test_it_has_a_line_for_each_process_that_a_run_may_take(monkeypatch, cores, given, lines):
    monkeypatch.setenv("OMP_NUM_THREADS", cores)
    launch = head_start("run", load_settings(given))
    assert (launch.lines if launch else 0) == lines
    if launch:
        launch.end()


@pytest.mark.parametrize("text", ["", "0", "2,1"])
def test_a_number_of_threads_that_says_nothing_leaves_the_cores_of_the_machine(monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    launch = head_start("run", load_settings({}))
    assert launch is not None
    assert launch.lines == 3
    launch.end()


@pytest.mark.parametrize(
    ("there", "given", "lines"), [(True, {}, 4), (True, {"client_processes": 1}, 0), (False, {}, 0)]
)
def test_an_evaluation_has_lines_for_two_a_core_where_there_is_a_run(tmp_path, monkeypatch, there, given, lines):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    if there:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "run.json").touch()
    launch = head_start("evaluate", load_settings(given))
    assert (launch.lines if launch else 0) == lines
    if launch:
        launch.end()


def test_other_commands_have_none():
    assert head_start("export", load_settings({})) is None
