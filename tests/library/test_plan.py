"""A plan of a real run: its steps, its bytes and its disk are those of the run, and the probe leaves nothing behind."""

import shutil

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.library.probe import Measure, measure_of, probe_settings
from fccl.paths import LogPaths
from fccl.records.forecast import Forecast
from fccl.records.run import ClientMetrics
from fccl.storage.reading import read_records, read_value
from fccl.view.taken import actual_of, forecast_of

LITTLE = ("--max-sft-examples", "120", "--max-va-examples", "60", "--threads", "1", "--num-clients", "3")
ROUNDS = ("--sft-rounds", "3", "--va-rounds", "1", "--clients-per-round", "2", "--client-processes", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run that was planned before, and the names of what the plan alone had left there."""
    folder = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TMPDIR", str(folder / "temporary"))
        patch.setattr("tempfile.tempdir", None)
        (folder / "temporary").mkdir()
        assert main(["plan", *LITTLE, *ROUNDS, "--no-evaluate"]) == 0
        (folder / "left.txt").write_text(" ".join(sorted(str(path) for path in folder.rglob("*") if path.is_file())))
        assert main(["run", *LITTLE, *ROUNDS, "--no-evaluate"]) == 0
    return folder


@pytest.mark.slow  # a probe and a run of a real model: some 15 seconds
class TestAPlannedRun:
    def test_the_probe_leaves_the_plan_and_nothing_else(self, folder):
        assert (folder / "left.txt").read_text() == str(folder / "logs" / "planned.json")
        assert not (folder / "logs" / "planned.json").exists()

    def test_steps_tokens_and_clients_are_those_of_the_run(self, folder):
        logs = LogPaths(folder / "logs")
        metrics = read_records(logs.client_metrics, ClientMetrics)
        for each in forecast_of(logs).rounds:
            mine = [row for row in metrics if row.round == each.round]
            assert each.clients == tuple(sorted(row.client_id for row in mine))
            assert (each.steps, each.tokens) == (sum(row.steps for row in mine), sum(row.tokens for row in mine))

    def test_the_bytes_of_adapters_and_updates_on_the_disk_are_those_of_the_run(self, folder):
        logs = LogPaths(folder / "logs")
        space = [each for each in forecast_of(logs).space if each.exact and each.name != "prepared data"]
        assert sum(each.size for each in space) == actual_of(logs).exact_size > 0

    def test_a_client_receives_and_sends_the_files_that_the_run_has_kept(self, folder):
        logs = LogPaths(folder / "logs")
        for each, number in zip(forecast_of(logs).traffic, (1, 3), strict=True):
            kept = logs.kept_round(number)
            assert kept.adapter.stat().st_size == each.down
            assert {path.stat().st_size for path in kept.root.glob("update_*")} == {each.up}
        assert logs.reference.stat().st_size == forecast_of(logs).traffic[1].once

    def test_every_second_and_the_memory_are_forecast_and_measured(self, folder):
        logs = LogPaths(folder / "logs")
        forecast, actual = forecast_of(logs), actual_of(logs)
        assert forecast.seconds > 0
        assert forecast.processes[0].peak > 10**8
        for record in actual.rounds:
            assert record.spent.total == pytest.approx(record.seconds, abs=0.5)
        assert (actual.usage.server > 10**8, actual.usage.workers, actual.ends > 0) == (True, (), True)

    def test_it_prints_the_plan_beside_the_run_again_when_asked(self, folder, monkeypatch, capsys):
        monkeypatch.chdir(folder)
        assert main(["plan", "--after"]) == 0
        assert "disk, adapters and updates" in capsys.readouterr().out


def test_a_run_that_nobody_has_planned_and_a_run_that_is_not_there_are_said(small_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(small_run / "logs", tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--after"]) == 1
    assert "no plan was made for the run in logs" in capsys.readouterr().err
    assert main(["plan", "--after", "nobody"]) == 1
    assert "logs holds no run nobody" in capsys.readouterr().err
    assert main(["plan", "--after", "--log-dir", "elsewhere"]) == 1
    assert "elsewhere holds no run" in capsys.readouterr().err


def test_a_plan_needs_the_clients_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--server-only"]) == 2
    assert "SERVER_ONLY" in capsys.readouterr().err


@pytest.mark.parametrize(("weights", "batches"), [(10**6, 16), (10**8, 1), (10**11, 1)])
def test_a_large_model_is_tried_for_one_batch_a_client(weights, batches):
    lengths = {"sft": {0: [50] * 100}, "va": {0: [100] * 50}}
    settings = load_settings({"num_clients": 9})
    measure = measure_of(settings, weights, lengths)
    assert measure == Measure(clients=4, examples=batches * settings.batch_size)


def test_a_probe_has_few_rounds_of_the_phases_that_the_run_has_and_folders_of_its_own(tmp_path):
    settings = load_settings({"sft_rounds": 50, "va_rounds": 0, "num_clients": 9, "client_lora_r": "8,8,8,4,4,4,2,2,2"})
    own = probe_settings(settings, Measure(2, 24), tmp_path)
    assert (own.sft_rounds, own.va_rounds, own.num_clients, own.client_ranks) == (3, 0, 2, (8, 8))
    assert {own.data_dir.parent, own.log_dir.parent} == {tmp_path}


@pytest.mark.slow  # a probe of a real model
def test_a_run_that_keeps_nothing_of_single_clients_is_planned_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = ("--dp-where", "server", "--contribution-mode", "uniform", "--dp-noise", "4")
    assert main(["plan", *LITTLE, "--fed-rounds", "1", "--no-evaluate", *noise]) == 0
    told = read_value(LogPaths(tmp_path / "logs").planned, Forecast)
    assert [each.up for each in told.traffic] == [each.down for each in told.traffic]
    assert all(each.up > 0 for each in told.traffic)


@pytest.mark.slow  # a probe of a real model
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_records_no_losses_of_clients_is_planned_too(tmp_path, monkeypatch, processes):
    monkeypatch.chdir(tmp_path)
    noise = ("--dp-where", "client", "--contribution-mode", "uniform", "--dp-epsilon", "1e6")
    more = ("--sft-rounds", "2", "--va-rounds", "1", "--client-processes", processes)
    assert main(["plan", *LITTLE, *more, "--no-evaluate", *noise]) == 0
    told = read_value(LogPaths(tmp_path / "logs").planned, Forecast)
    assert all(each.seconds.training > 0 for each in told.rounds)


def test_more_rounds_than_can_be_counted_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *LITTLE, "--fed-rounds", "1000000000", "--no-evaluate"]) == 2
    assert "every round's draw is counted, of at most 10,000" in capsys.readouterr().err


@pytest.mark.slow  # a probe of a real model
def test_a_plan_that_does_not_fit_ends_with_another_status(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *LITTLE, *ROUNDS, "--no-evaluate", "--keep-updates-mb", "1"]) == 1
    assert "KEEP_UPDATES_MB=" in capsys.readouterr().out
