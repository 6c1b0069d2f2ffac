"""`fccl orchestrator`, `fccl client`, `fccl keys`: the commands as people start them."""

import os
import shutil
import signal
import stat
import time
from pathlib import Path

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import each_alone
from fccl.library.standing import standing
from fccl.paths import DataPaths, ExchangePaths, LogPaths, StatePaths
from fccl.records.journal import Journal
from fccl.records.run import RoundRecord, RunEvent, RunInfo
from fccl.storage.files import write_text
from fccl.storage.locks import exclusive
from fccl.storage.reading import read_records, read_rows
from fccl.testing.toy import START, federation
from fccl.transports.exchange.memory import Answered
from tests.apps.commands import PATIENT, finished, short_run, start

SHORT = short_run(2)


# --- wrong settings, one line each


def test_keys_are_made_and_a_second_time_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "--num-clients", "2"]) == 0
    assert "keys of the server and of 2 clients" in capsys.readouterr().out
    assert stat.S_IMODE(Path("keys/server.key").stat().st_mode) == 0o600
    assert main(["keys", "--num-clients", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: keys holds keys already\n  hint: ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["client", "--keys-dir", "none"], "error: none/public.json is not there"),
        (["orchestrator", "--keys-dir", "none"], "error: none/public.json is not there"),
        (["client", "--client-id", "-1"], "error: CLIENT_ID=-1: allowed is a whole number >= 0"),
        (
            ["orchestrator", "--exchange-watch", "stare"],
            "error: EXCHANGE_WATCH=stare: allowed is one of auto, notify, poll",
        ),
        (["client", "--num-clients", "3"], "error: fccl client does not read --num-clients"),
        (
            ["orchestrator", "--original-clients", "two"],
            "error: ORIGINAL_CLIENTS=two: must be client numbers with commas between",
        ),
        (
            ["orchestrator", "--original-clients", "1,3"],
            "error: original_clients names client 3, num_clients is 3, and the first is 0",
        ),
        (
            ["orchestrator", "--original-clients", "2", "--keys-dir", "none"],
            "error: ORIGINAL_CLIENTS=2 does not go with KEYS_DIR=none: they sign nothing\n  hint: leave one of "
            "the two out\n",
        ),
        (
            ["orchestrator", "--original-clients", "2", "--aggregation", "scaffold"],
            "error: ORIGINAL_CLIENTS=2 does not go with AGGREGATION=scaffold: ",
        ),
        (
            ["orchestrator", "--original-clients", "0,2", "--lora-aggregation", "exact"],
            "error: ORIGINAL_CLIENTS=0,2 does not go with LORA_AGGREGATION=",
        ),
        (
            ["orchestrator", "--original-clients", "2", "--lora-aggregation", "freeze_a"],
            "error: ORIGINAL_CLIENTS=2 does not go with LORA_AGGREGATION=",
        ),
        (
            ["orchestrator", "--original-clients", "2", "--lora-aggregation", "fed_sb"],
            "error: ORIGINAL_CLIENTS=2 does not go with LORA_AGGREGATION=fed_sb: they train A and B",
        ),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, monkeypatch, capsys, arguments, error):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(error)
    assert list(tmp_path.iterdir()) == []


def test_a_second_orchestrator_or_client_says_who_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = ExchangePaths(Path("exchange"))
    with exclusive(paths.server_lock, "it"), exclusive(paths.client_lock(1), "it"):
        assert main(["orchestrator"]) == 1
        assert (
            f"error: another orchestrator is at work on exchange already (process {os.getpid()} on "
            in capsys.readouterr().err
        )
        assert main(["client", "--client-id", "1"]) == 1
        assert "error: client 1 is at work on exchange already" in capsys.readouterr().err
    assert not Path("logs").exists(), "a run that is here is not touched before the directory is held"


# --- when an orchestrator goes on with a run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(LogPaths(tmp_path / "logs"), Journal(LogPaths(tmp_path / "logs")))
    begun = each_alone(load_settings(), {}, "")  # as an orchestrator records it
    settings = {name: str(value) for name, value in begun.model_dump().items()}
    folder.start(
        RunInfo(run_id="run", created=1.0, settings=settings, data_sha256="of other data", versions={}),
        federation(rounds=3).plan,
        START.adapter,
    )
    return folder


def test_it_goes_on_with_an_unfinished_run_of_the_same_settings(folder):
    assert standing(folder, load_settings()) == "unfinished"
    patience = {"client_timeout_s": 5, "exchange_dir": "elsewhere", "log_dir": "elsewhere", "keep_rounds": 7}
    assert standing(folder, load_settings(patience)) == "unfinished"
    assert standing(folder, load_settings({"seed": 1})) == "other"


def test_not_with_a_run_on_other_data(folder):
    write_text(DataPaths(Path("data")).manifest, "{}")
    assert standing(folder, load_settings()) == "other"


def test_a_run_is_finished_when_its_evaluation_is(folder, capsys):
    state = folder.state().model_copy(update={"next_round": 6})
    write_text(folder.paths.state, state.model_dump_json())
    assert standing(folder, load_settings()) == "unfinished", "killed before it could say that it was done"
    folder.journal.write(RunEvent(event="finished", run_id="run", time=1.0, round=6))
    assert standing(folder, load_settings()) == "unfinished", "killed in the evaluation"
    assert standing(folder, load_settings({"evaluate": False})) == "finished"
    write_text(folder.paths.evaluation_json, "{}")
    assert standing(folder, load_settings()) == "finished"
    assert main(["orchestrator"]) == 0
    assert "has these settings and is finished. --new begins another" in capsys.readouterr().out
    assert folder.state() == state


def test_without_a_run_there_is_nothing_to_go_on_with(tmp_path):
    assert standing(RunFolder(LogPaths(tmp_path), Journal(LogPaths(tmp_path))), load_settings()) == "other"


# --- whole runs


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in-process")
    status, output = finished(start(folder, "run", *SHORT))
    assert status == 0, output
    return LogPaths(folder / "logs")


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
def test_many_processes_give_the_bytes_of_one(tmp_path, in_process, signed):
    """Three clients and an orchestrator; one client is killed and started again, and so is the orchestrator, politely
    and not; the private folder of another client is deleted twice.
    """
    keys = ("--keys-dir", "keys") if signed else ()
    if signed:
        assert finished(start(tmp_path, "keys", *keys))[0] == 0
    clients = {number: start(tmp_path, "client", "--client-id", str(number), *keys) for number in range(3)}
    orchestrator = start(tmp_path, "orchestrator", *SHORT, *PATIENT, *keys)
    for blow in (signal.SIGTERM, signal.SIGKILL):
        for line in orchestrator.stdout:
            if line.startswith("round "):
                break
        shutil.rmtree(tmp_path / "state" / "client_2", ignore_errors=True)
        clients[1].kill()
        finished(clients[1])
        clients[1] = start(tmp_path, "client", "--client-id", "1", *keys)
        time.sleep(0.3)
        orchestrator.send_signal(blow)
        status, output = finished(orchestrator)
        assert status == (130 if blow == signal.SIGTERM else -signal.SIGKILL)
        assert blow != signal.SIGTERM or "Start the orchestrator again to go on" in output
        orchestrator = start(tmp_path, "orchestrator", *SHORT, *PATIENT, *keys)
    status, output = finished(orchestrator)
    assert status == 0, output
    for client in clients.values():
        status, output = finished(client)
        assert status == 0, output
        assert output.endswith("the run is done\n")
    logs = LogPaths(tmp_path / "logs")
    assert logs.global_final.read_bytes() == in_process.global_final.read_bytes()
    records, expected = (read_records(paths.progress, RoundRecord) for paths in (logs, in_process))
    assert [(r.round, r.weights, r.adapter_sha256) for r in records] == [
        (r.round, r.weights, r.adapter_sha256) for r in expected
    ]
    assert len(list(read_rows(logs.client_metrics))) == 12
    assert not list((tmp_path / "exchange" / "rejected").glob("*"))
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()} == {
        f"client_{i}": 0o700 for i in range(3)
    }
    assert all(len(list(StatePaths(tmp_path / "state").cache(number).iterdir())) == 1 for number in range(3))
    info, answered = (
        RunInfo.model_validate_json(logs.run.read_bytes()),
        [StatePaths(tmp_path / "state").answered(number) for number in range(3)],
    )
    newest = [Answered.model_validate_json(path.read_bytes()) for path in answered if path.exists()]
    assert [(each.run_id, each.run_created, each.round) for each in newest] == [(info.run_id, info.created, 3)] * (
        3 if signed else 0
    )


@pytest.mark.slow
def test_a_client_without_a_shard_is_left_out_and_the_run_goes_on(tmp_path):
    """Its data folder holds nothing: it says so, and with MIN_CLIENTS=2 the two others carry the round."""
    processes = [
        start(tmp_path, "client", "--client-id", str(number), *(("--data-dir", "nowhere") if number == 2 else ()))
        for number in range(3)
    ]
    status, output = finished(start(tmp_path, "orchestrator", *short_run(1), "--min-clients", "2", *PATIENT))
    assert status == 0, output
    for process in processes:
        assert finished(process)[0] == 0
    records = read_records(LogPaths(tmp_path / "logs").progress, RoundRecord)
    assert [record.clients for record in records] == [(0, 1), (0, 1)]
    assert "nowhere" in records[0].excluded[0].reason


@pytest.mark.slow
def test_too_few_clients_end_the_command_with_one_line_and_a_run_to_go_on_with(tmp_path):
    arguments = (*SHORT, "--min-clients", "2", "--round-retries", "1")
    client = start(tmp_path, "client", "--client-id", "0")
    status, output = finished(start(tmp_path, "orchestrator", *arguments, "--client-timeout-s", "6"))
    assert status == 1
    assert "trying again (1 of 1)" in output
    assert "error: round 1 has" in output
    assert "MIN_CLIENTS is 2" in output
    others = [start(tmp_path, "client", "--client-id", str(number)) for number in (1, 2)]
    status, output = finished(start(tmp_path, "orchestrator", *arguments, *PATIENT))
    assert status == 0, output
    assert "Resuming" in output
    for process in (client, *others):
        assert finished(process)[0] == 0
