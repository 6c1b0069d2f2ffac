"""Personal adapters as people meet them: the table, the client's folder, the export, the same bytes on every way."""

import json
import shutil
import signal

import pytest

from fccl.adapters.adapter import load_adapter
from fccl.apps.main import main
from fccl.paths import LogPaths, StatePaths, run_digits
from fccl.records.journal import read_rounds
from fccl.records.personal import PersonalRecord
from fccl.records.run import RunInfo
from fccl.storage.reading import read_value
from tests.apps.commands import LITTLE_DATA, PATIENT, finished, start

LITTLE = (*LITTLE_DATA, "--client-test-share", "0.2", "--no-evaluate", "--threads", "1")
DITTO = (*LITTLE, "--sft-rounds", "2", "--va-rounds", "1", "--personalize", "ditto", "--ditto-lambda", "0.5")


def own_adapters(folder, phase="sft"):
    """The hash of each client's personal adapter of the run in a folder, by what the client's record says."""
    run_id = read_value(LogPaths(folder / "logs").run, RunInfo).run_id
    places = (StatePaths(folder / "state").personal(client) for client in range(3))
    records = [read_value(each.record(run_digits(run_id), phase), PersonalRecord) for each in places]
    return [each.adapter_sha256 for each in records]


def personal_means(folder):
    return [[each.personal for each in record.own_tests] for record in read_rounds(LogPaths(folder / "logs"))]


@pytest.fixture(scope="module")
def ditto(tmp_path_factory):
    """A run with Ditto in one process, and what it printed."""
    folder = tmp_path_factory.mktemp("ditto")
    status, output = finished(start(folder, "run", *DITTO, "--client-processes", "1"))
    assert status == 0, output
    return folder, output


@pytest.mark.slow  # three runs of a real model
class TestDitto:
    def test_the_screen_says_whom_a_personal_adapter_helps_and_the_record_has_its_means(self, ditto):
        folder, output = ditto
        assert "Whom the federation helped, and whom a personal adapter helps" in output
        assert "personal against global" in output
        first, second, last = personal_means(folder)
        assert first == []
        assert len(second) == len(last) == 3
        assert all(isinstance(mean, float) for mean in (*second, *last))

    def test_clients_in_processes_of_their_own_one_of_them_killed_give_the_same_bytes(self, ditto, tmp_path):
        folder, _ = ditto
        clients = {number: start(tmp_path, "client", "--client-id", str(number)) for number in range(3)}
        orchestrator = start(tmp_path, "orchestrator", *DITTO, *PATIENT)
        for line in orchestrator.stdout:
            if line.startswith("round "):
                break
        clients[1].send_signal(signal.SIGKILL)
        finished(clients[1])
        clients[1] = start(tmp_path, "client", "--client-id", "1")
        status, output = finished(orchestrator)
        assert status == 0, output
        for client in clients.values():
            assert finished(client)[0] == 0
        for phase in ("sft", "va"):
            assert own_adapters(tmp_path, phase) == own_adapters(folder, phase)
        assert personal_means(tmp_path) == personal_means(folder)

    def test_two_processes_give_the_bytes_of_one_and_a_run_without_the_federation_s(self, ditto, tmp_path):
        folder, _ = ditto
        status, output = finished(start(tmp_path, "run", *DITTO, "--client-processes", "2"))
        assert status == 0, output
        assert own_adapters(tmp_path) == own_adapters(folder)
        status, output = finished(start(tmp_path, "run", *DITTO[:-4], "--client-processes", "1"))
        assert status == 0, output
        final = LogPaths(folder / "logs").global_final
        assert LogPaths(tmp_path / "logs").global_final.read_bytes() == final.read_bytes()

    def test_the_client_gets_its_adapter_in_peft_s_format_from_its_folder_alone(self, ditto, tmp_path, capsys):
        folder, _ = ditto
        shutil.copytree(folder / "state" / "client_1", tmp_path / "state" / "client_1")
        there = ("--state-dir", str(tmp_path / "state"))
        for phase in ("sft", "va"):
            out = tmp_path / phase
            assert main(["export", str(out), "--personal", "1", "--phase", phase, *there]) == 0
            assert load_adapter(out / "adapter_model.safetensors").sha256 == own_adapters(folder, phase)[1]
            assert json.loads((out / "adapter_config.json").read_text())["r"] == 8
            assert "# A personal LoRA adapter of client 1" in (out / "README.md").read_text()
        assert "the personal adapter of client 1" in capsys.readouterr().out
        assert main(["export", str(tmp_path / "last"), "--personal", "1", *there]) == 0
        assert load_adapter(tmp_path / "last" / "adapter_model.safetensors").sha256 == own_adapters(folder, "va")[1]
        assert main(["export", str(tmp_path / "none"), "--personal", "2", *there]) == 1
        assert "client 2 has no personal adapter in" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finetuned_one_is_made_when_the_phase_ends(tmp_path):
    arguments = (*LITTLE, "--sft-rounds", "1", "--va-rounds", "0", "--personalize", "finetune")
    status, output = finished(start(tmp_path, "run", *arguments, "--client-processes", "1"))
    assert status == 0, output
    ((*means,),) = personal_means(tmp_path)
    assert len(means) == 3
    made = own_adapters(tmp_path)
    assert len({*made, load_adapter(LogPaths(tmp_path / "logs").global_final).sha256}) == 4


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("--personalize", "ditto", "--client-test-share", "0"), "CLIENT_TEST_SHARE is 0", "0.1 is kept apart then"),
        (("--personalize", "ditto", "--lora-aggregation", "svd"), "does not go with LORA_AGGREGATION=svd", "finetune"),
        (("--personalize", "ditto", "--lora-aggregation", "exact"), "of other directions than the last's", "finetune"),
        (("--ditto-lambda", "1"), "--ditto-lambda has no effect", "PERSONALIZE=ditto"),
        (("--personalize", "finetune", "--ditto-lambda", "1"), "--ditto-lambda has no effect", "PERSONALIZE=ditto"),
        (("--personalize", "sometimes"), "allowed is one of off, finetune, ditto", ""),
        (("--personalize", "finetune", "--dp-where", "client"), "does not go with DP_WHERE=client", "PERSONALIZE"),
    ],
)
def test_what_does_not_go_with_it_is_one_line_before_anything_starts(
    arguments, said, hint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert hint in error
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_a_folder_and_with_two_wishes_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "out", "--personal", "1"]) == 1
    assert "client 1 has no personal adapter in state/client_1/personal" in capsys.readouterr().err
    assert main(["export", "out", "--personal", "1", "--base"]) == 2
    assert main(["export", "out", "--run", "x"]) == 2
    assert "--run has no effect without --personal" in capsys.readouterr().err
