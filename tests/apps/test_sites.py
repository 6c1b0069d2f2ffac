"""Federations of clients that exist: named by a column, or at home with their own files, as people start them."""

import json
from contextlib import nullcontext

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.data.builtin.dataset import builtin_sft, builtin_va
from fccl.data.examples import write_examples
from fccl.data.own_files import OwnFiles
from fccl.data.shards import read_manifest
from fccl.evaluation.own_test import OwnTester
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import begun
from fccl.library.natural import with_named_clients
from fccl.library.setup import prepared_run, workable
from fccl.model.loading import Models
from fccl.paths import DataPaths, LogPaths
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from fccl.tracking.listener import RunListener
from fccl.training.declaring import Declarer
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport
from tests.apps.commands import PATIENT, finished, start

SERVER = ("--server-only", "--test-examples", "20", "--learn-examples", "12", "--validation-examples", "12")
APART = 0.4  # of a site's data, for its own test
ROUNDS = ("--fed-rounds", "1", "--threads", "1", "--no-evaluate", "--num-clients", "3")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["client", "--sft-data", "none.jsonl"], "error: none.jsonl is not there"),
        (["client", "--va-data", "builtin"], "error: builtin is no data of a client's own"),
        (["client", "--sft-data", ""], "error: SFT_DATA="),
        (["client", "--client-test-share", "0.2"], "error: --client-test-share has no effect without --sft-data"),
        (["client", "--skip-bad-rows"], "error: --skip-bad-rows has no effect without --sft-data or --va-data"),
        (["run", "--server-only"], "error: SERVER_ONLY=true: the clients of a run in one process have no data"),
        (
            ["prepare", "--server-only", "--client-column", "user"],
            "error: CLIENT_COLUMN=user does not go with SERVER_ONLY",
        ),
        (["prepare", "--server-only", "--noisy-clients", "1"], "error: NOISY_CLIENTS=1 does not go with SERVER_ONLY"),
        (["prepare", "--client-column", "user"], "error: CLIENT_COLUMN=user: the built-in data has no columns"),
        (["run", "--small-clients", "drop"], "error: --small-clients has no effect without CLIENT_COLUMN"),
        (["run", "--max-client-samples", "9"], "error: --max-client-samples has no effect without SERVER_ONLY or"),
        (
            ["run", "--client-column", "user", "--size-skew", "2"],
            "error: --size-skew has no effect beside CLIENT_COLUMN",
        ),
        (
            ["run", "--own-data-clients", "1"],
            "error: OWN_DATA_CLIENTS=1: the clients of a run in one process have no data",
        ),
        (["prepare", "--own-data-clients", "3"], "error: OWN_DATA_CLIENTS=3: of NUM_CLIENTS=3 nobody is left"),
        (
            ["prepare", "--own-data-clients", "1", "--server-only"],
            "error: OWN_DATA_CLIENTS=1 does not go with SERVER_ONLY=true",
        ),
        (
            ["prepare", "--own-data-clients", "1", "--client-column", "user"],
            "error: OWN_DATA_CLIENTS=1 does not go with CLIENT_COLUMN=user",
        ),
        (["compare", "--client-column", "user"], "error: --client-column: a comparison deals the data by its own"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, monkeypatch, capsys, arguments, error):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) != 0
    said = capsys.readouterr().err
    assert said.startswith(error)
    assert said.count("\n") <= 2


def test_the_server_prepares_its_splits_and_no_shard(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *SERVER]) == 0
    assert "Clients bring their own data" in capsys.readouterr().out
    manifest = read_manifest(DataPaths(tmp_path / "data"))
    sizes = {"sft": 20, "va": 20}, {"sft": 12, "va": 12}, {"sft": 0, "va": 0}
    assert [manifest.counts[split] for split in ("test", "learn", "train")] == list(sizes)
    assert {name.split("/")[0] for name in manifest.files} == {"server"}
    assert list((tmp_path / "data" / "clients").iterdir()) == []
    assert main(["prepare", "--keep", *SERVER, "--num-clients", "5"]) == 0
    assert "is ready" in capsys.readouterr().out


def test_few_examples_of_the_server_are_shared_among_its_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_examples(tmp_path / "few.jsonl", builtin_sft()[::500])
    assert main(["prepare", "--server-only", "--sft-data", "few.jsonl", "--va-data", "synthetic"]) == 0
    counts = read_manifest(DataPaths(tmp_path / "data")).counts
    assert [counts[split]["sft"] for split in ("test", "learn", "validation")] == [6, 1, 1]


def test_clients_that_a_column_names_are_the_run_s_number_of_clients(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = (
        {"instruction": each.instruction, "response": each.response, "user": n % 4}
        for n, each in enumerate(builtin_sft()[::40])
    )
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"sft_data": "chats.jsonl", "va_data": "synthetic", "client_column": "user"}
    settings = with_named_clients(load_settings(data))
    assert settings.num_clients == 4
    assert with_named_clients(settings) == settings
    assert main(["prepare", "--keep", *(f"--{name.replace('_', '-')}={value}" for name, value in data.items())]) == 0


def site_files(folder):
    """Three sites with files of their own; the last has no pairs."""
    sft, va = builtin_sft()[3::40], builtin_va()[3::40]
    found = {}
    for client in range(3):
        files = {"sft_data": folder / f"site_{client}.jsonl", "va_data": folder / f"pairs_{client}.jsonl"}
        write_examples(files["sft_data"], sft[client::3][: 18 + 4 * client])
        write_examples(files["va_data"], va[client::3][:12])
        found[client] = {name: str(path) for name, path in files.items() if client < 2 or name == "sft_data"}
    return found


@pytest.mark.slow
def test_three_sites_as_processes_give_the_bytes_of_one_process_with_their_shards(tmp_path):
    sites, folder = site_files(tmp_path), tmp_path / "apart"
    folder.mkdir()
    clients = [
        start(
            folder,
            "client",
            "--client-id",
            str(client),
            *(f"--{name.replace('_', '-')}={path}" for name, path in files.items()),
            f"--client-test-share={APART}",
        )
        for client, files in sites.items()
    ]
    status, output = finished(start(folder, "orchestrator", *SERVER, *ROUNDS, *PATIENT))
    assert status == 0, output
    assert [finished(client)[0] for client in clients] == [0, 0, 0]
    together, last = in_one_process(sites, tmp_path / "together")
    assert f"client 2 declares {len(last.sft)} instructions and 0 pairs" in output
    apart = LogPaths(folder / "logs")
    assert apart.global_final.read_bytes() == together.global_final.read_bytes()
    rounds = [
        read_records(logs.progress, RoundRecord, lambda row: row.get("event") == "round") for logs in (apart, together)
    ]
    assert [each.declared for each in rounds[0]] == [each.declared for each in rounds[1]]
    assert [each.clients for each in rounds[0]] == [(0, 1, 2), (0, 1)]
    assert [each.own_tests for each in rounds[0]] == [each.own_tests for each in rounds[1]]
    assert [[said.client_id for said in each.own_tests] for each in rounds[0]] == [[0, 1, 2], [0, 1]]
    assert rounds[0][0].own_tests[2].examples == len(last.test_sft)
    assert not list((folder / "data" / "clients").iterdir())


@pytest.mark.slow
def test_two_clients_with_shards_and_one_with_its_own_files_are_one_federation(tmp_path):
    """The last declares; the same files as a third shard would give the same bytes."""
    files = site_files(tmp_path)[0]
    little = ("--max-sft-examples", "120", "--max-va-examples", "60", "--own-data-clients", "1")
    clients = [start(tmp_path, "client", "--client-id", str(client)) for client in range(2)]
    own = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]
    clients.append(start(tmp_path, "client", "--client-id", "2", *own, "--client-test-share", "0"))
    status, output = finished(start(tmp_path, "orchestrator", *little, *ROUNDS, *PATIENT, "--client-test-share", "0"))
    assert status == 0, output
    assert [finished(client)[0] for client in clients] == [0, 0, 0]
    assert output.count("declares") == 1
    assert "client 2 declares 18 instructions and 12 pairs" in output
    manifest = read_manifest(DataPaths(tmp_path / "data"))
    assert {name for name in manifest.files if name.startswith("clients/")} == {
        f"clients/client_{client}_{phase}.jsonl" for client in range(2) for phase in ("sft", "va")
    }
    records = read_records(tmp_path / "logs" / "progress.jsonl", RoundRecord, lambda row: row.get("event") == "round")
    assert [each.clients for each in records] == [(0, 1, 2)] * 2
    assert [[said.client_id for said in each.declared] for each in records] == [[2], [2]]


def in_one_process(sites, folder):
    """The same federation with the sites' shards in this process. Returns where its records are, and the last shard."""
    names = {"fed_rounds": 1, "threads": 1, "num_clients": 3, "server_only": True}
    splits = {"test_examples": 20, "learn_examples": 12, "validation_examples": 12}
    asked = load_settings(names | splits | {"data_dir": folder / "data", "log_dir": folder / "logs"})
    settings, logs, models = begun(asked, lambda line: None), RunFolder.at(folder / "logs"), Models()
    model, tracker = models.of(settings.model_spec()), workable(settings, logs)
    shards = {client: OwnFiles(**files, test_share=APART).load(client) for client, files in sites.items()}
    learner = learner_for(models)
    with (
        prepared_run(settings, logs, model, tracker, nullcontext(RunListener())) as work,
        InProcessTransport(learner, shards.__getitem__, [Declarer(), OwnTester(models, learner)]) as transport,
    ):
        for _ in work.run.rounds(transport):
            pass
        work.run.finish(transport)
    return logs.paths, shards[2]


@pytest.mark.slow
def test_own_tests_are_the_same_in_one_process_and_in_two(tmp_path):
    found = []
    for count in ("1", "2"):
        (folder := tmp_path / count).mkdir()
        little = ("--max-sft-examples", "200", "--max-va-examples", "100", "--client-test-share", "0.3")
        status, output = finished(start(folder, "run", *little, *ROUNDS, "--client-processes", count))
        assert status == 0, output
        records = read_records(folder / "logs" / "progress.jsonl", RoundRecord, lambda row: row.get("event") == "round")
        found.append([each.own_tests for each in records])
    assert found[0] == found[1]
    assert [[said.client_id for said in each] for each in found[0]] == [[0, 1, 2], [0, 1, 2]]
