"""A finished run that is given more rounds, from Python and by the commands: the bytes of one longer run."""

import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

import fccl
from fccl.adapters.adapter import load_adapter
from fccl.apps.main import main
from fccl.errors import SettingsError
from fccl.keys import create_keys
from fccl.paths import KeyPaths, LogPaths, StatePaths
from fccl.records.run import RoundRecord, RunEvent
from fccl.storage.reading import read_records
from tests.apps.commands import PATIENT, finished, short_run, start
from tests.library.test_orchestrator import CLIENTS, Nudge
from tests.library.test_orchestrator import PATIENT as SLOW

SMALL = {"max_sft_examples": 60, "max_va_examples": 30, "fed_rounds": 1, "threads": 1}
LOGS = LogPaths(Path("logs"))


@pytest.fixture
def folder(small_run, tmp_path, monkeypatch):
    shutil.copytree(small_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hashes(logs=LOGS):
    records = read_records(logs.progress, RoundRecord, lambda row: row.get("event") == "round")
    return [(record.round, record.phase, record.adapter_sha256) for record in records]


def test_va_rounds_by_the_command_and_sft_rounds_from_python(folder, small_run, capsys):
    long = fccl.FederatedRun(**SMALL, va_rounds=2, log_dir="logs-long").train()
    other = fccl.FederatedRun(**SMALL, sft_rounds=2, log_dir="logs-other").train()
    shutil.copytree(small_run / "logs", LOGS.root)
    assert main(["run", "--resume", "--va-rounds", "2"]) == 0
    assert "The run has 1 SFT and 2 VA rounds from now on; it had 1 SFT and 1 VA." in capsys.readouterr().out
    assert LOGS.global_final.read_bytes() == long.to_bytes()
    assert hashes() == hashes(LogPaths(Path("logs-long")))
    with pytest.raises(SettingsError, match="SFT_ROUNDS=2: 2 VA rounds are done") as caught:
        fccl.FederatedRun(resume=True, sft_rounds=2)
    assert "redo" in caught.value.hint
    run = fccl.FederatedRun(resume=True, sft_rounds=2, va_rounds=1, redo_va=True)
    assert not run.finished
    assert run.train().sha256 == other.sha256
    assert (run.finished, fccl.FederatedRun(resume=True).finished) == (True, True)
    events = [event.event for event in read_records(LOGS.progress, RunEvent) if event.event != "round"]
    assert events == ["started", "finished", "extended", "resumed", "finished", "extended", "resumed", "finished"]
    kept = [load_adapter(LogPaths(path).global_final).sha256 for path in sorted(LOGS.archive.iterdir())]
    assert long.sha256 in kept
    assert len(kept) == 2


def test_redo_va_is_for_a_run_that_goes_on(folder):
    with pytest.raises(SettingsError, match="--redo-va goes with --resume"):
        fccl.FederatedRun(**SMALL, redo_va=True)


def test_patience_and_the_best_round_in_a_run_that_is_left_and_goes_on(folder):
    asked = SMALL | {"sft_rounds": 3, "va_rounds": 3, "patience": 1, "result_round": "best", "sft_lr": 0.05}
    whole = fccl.FederatedRun(**asked, log_dir="logs-whole")
    final = whole.train()
    records = read_records(LogPaths(Path("logs-whole")).progress, RoundRecord, lambda row: row.get("event") == "round")
    ends = [record.phase_end for record in records if record.phase_end]
    assert len(ends) == 2
    assert ends[-1].adapter_sha256 == final.sha256 == whole.adapter.sha256
    for _ in fccl.FederatedRun(**asked):
        break
    rest = fccl.FederatedRun(resume=True)
    assert rest.train().sha256 == final.sha256
    assert hashes() == hashes(LogPaths(Path("logs-whole")))
    assert rest.plan.total_rounds == len(hashes())


def clients_of(**settings):
    """One in a thread for each number, each at work until the run's end."""
    threads = [
        threading.Thread(target=fccl.Client(client_id=number, learner=Nudge(), **settings).run)
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    return threads


def served(clients, **settings):
    """The run over the exchange directory, to its end."""
    try:
        return fccl.Orchestrator(**SMALL, **SLOW, **settings).train()
    finally:
        for client in clients:
            client.join()


def test_va_is_done_anew_over_the_exchange_directory(folder):
    served(clients_of(), va_rounds=2)
    again = served(clients_of(), resume=True, sft_rounds=2, va_rounds=2, redo_va=True)
    whole = fccl.FederatedRun(
        **SMALL | {"sft_rounds": 2, "va_rounds": 2}, learner=Nudge(), log_dir="logs-whole"
    ).train()
    assert again.sha256 == whole.sha256
    assert hashes() == hashes(LogPaths(Path("logs-whole")))


class Refused(Exception):
    """A client has said that it goes back no further."""


def listening(line):
    if "delete" in line:
        raise Refused(line)


def test_with_keys_a_client_goes_back_only_without_its_memory_and_says_so(folder):
    create_keys(KeyPaths(Path("keys")), CLIENTS)
    served(clients_of(keys_dir="keys"), keys_dir="keys", va_rounds=2)
    anew = {"resume": True, "sft_rounds": 2, "va_rounds": 2, "redo_va": True, "keys_dir": "keys"}
    found = []
    server = threading.Thread(target=lambda: found.append(fccl.Orchestrator(**SMALL, **SLOW, **anew).train()))
    server.start()
    for number in range(CLIENTS):
        memory = StatePaths(Path("state")).answered(number)
        with pytest.raises(Refused, match=r"has answered round 3 of this run; .* delete .*answered\.json"):
            fccl.Client(client_id=number, learner=Nudge(), keys_dir="keys", tell=listening).run()
        memory.unlink()
    for thread in [*clients_of(keys_dir="keys"), server]:
        thread.join()
    whole = fccl.FederatedRun(
        **SMALL | {"sft_rounds": 2, "va_rounds": 2}, learner=Nudge(), log_dir="logs-whole"
    ).train()
    assert found[0].sha256 == whole.sha256


def killed_after(run, rounds):
    """Killed somewhere inside the round after so many lines of rounds."""
    for line in run.stdout:
        rounds -= line.startswith("round ")
        if rounds == 0:
            break
    time.sleep(0.3)
    run.send_signal(signal.SIGKILL)
    assert finished(run)[0] == -signal.SIGKILL


@pytest.mark.slow
def test_a_longer_run_and_runs_that_were_extended_and_killed_have_the_same_bytes_over_every_transport(tmp_path):
    """With momentum, so that state is carried; killed in the first run and in what was added; the last by processes."""
    folders = {name: tmp_path / name for name in ("long", "extended", "processes")}
    for each in folders.values():
        each.mkdir()
    rule = (*short_run(1), "--aggregation", "fedavgm", "--result-round", "best")
    status, output = finished(start(folders["long"], "run", *rule, "--va-rounds", "4"))
    assert status == 0, output

    killed_after(start(folders["extended"], "run", *rule), 1)
    assert finished(start(folders["extended"], "run", "--resume"))[0] == 0
    killed_after(start(folders["extended"], "run", "--resume", "--va-rounds", "4"), 1)
    status, output = finished(start(folders["extended"], "run", "--resume"))
    assert status == 0, output

    for more in ((), ("--resume", "--va-rounds", "4")):
        clients = [start(folders["processes"], "client", "--client-id", str(number)) for number in range(3)]
        server = start(folders["processes"], "orchestrator", *rule, *PATIENT, *more)
        status, output = finished(server)
        assert status == 0, output
        assert [finished(client)[0] for client in clients] == [0, 0, 0]

    logs = {name: LogPaths(each / "logs") for name, each in folders.items()}
    assert len(hashes(logs["long"])) == 5
    for name in ("extended", "processes"):
        assert hashes(logs[name]) == hashes(logs["long"]), name
        assert logs[name].global_final.read_bytes() == logs["long"].global_final.read_bytes()
