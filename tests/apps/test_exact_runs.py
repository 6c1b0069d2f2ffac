"""`LORA_AGGREGATION=exact` and clients of different rank, as people start them."""

import pytest
import torch
from peft import PeftConfig

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.ranks import rank_of
from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.library.client import require_own_rank
from fccl.library.narrow import require_client_ranks
from fccl.messages import FitTask
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from fccl.training.learner import GenericLearner
from tests.apps.commands import PATIENT, finished, killed_within_round_2, run_as_processes, short_run, start

SHORT = short_run(1)
EXACT = (*SHORT, "--lora-aggregation", "exact", "--contribution-source", "verified")
RANKS = ("--client-lora-r", "8,4,2")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"client_lora_r": "4"}, "CLIENT_LORA_R=4 does not go with LORA_AGGREGATION=factors"),
        ({"client_lora_r": "8,4,8", "lora_aggregation": "freeze_a"}, "does not go with LORA_AGGREGATION=freeze_a"),
        ({"client_lora_r": "16", "lora_aggregation": "svd"}, "at most LORA_R=8 is possible"),
        ({"client_lora_r": "8,4", "lora_aggregation": "exact"}, "has 2 ranks, NUM_CLIENTS is 3"),
    ],
)
def test_ranks_that_do_not_go_with_the_federation_are_one_error(given, message):
    with pytest.raises(SettingsError, match=message) as caught:
        require_client_ranks(load_settings(given))
    assert caught.value.hint


def test_ranks_that_go():
    for given in (
        {},
        {"client_lora_r": "8"},
        {"client_lora_r": "8, 4,2", "lora_aggregation": "svd"},
        {"client_lora_r": "1", "lora_aggregation": "exact"},
    ):
        require_client_ranks(load_settings(given))
    assert load_settings({"client_lora_r": "8, 4,2"}).client_ranks == (8, 4, 2)


def test_a_client_takes_its_own_rank_of_the_list(monkeypatch):
    """What the learner of a client process is told, and which directions it trains by that."""
    model = load_settings({"lora_r": "8", "lora_aggregation": "svd"})
    start = Adapter({"m.lora_A.weight": torch.zeros(8, 3), "m.lora_B.weight": torch.zeros(2, 8)})
    task = FitTask("run", 0, "sft", start, None, model.model_spec(), model.train_spec("sft"), 1)

    def rank(**settings):
        found = load_settings(settings)
        require_own_rank(found)
        return GenericLearner(ranks=found.client_ranks).rank(task, found.client_id)

    assert [rank(client_lora_r="8,4,2", client_id=number) for number in range(3)] == [8, 4, 2]
    assert rank(client_lora_r="4", client_id=7) == 4
    assert rank(client_id=7) == 8
    with pytest.raises(SettingsError, match="CLIENT_LORA_R=8,4 has no rank for client 2"):
        rank(client_lora_r="8,4", client_id=2)


# --- whole runs


def said(folder):
    records = read_records(LogPaths(folder / "logs").progress, RoundRecord, lambda row: row.get("event") == "round")
    kept = [(folder / "logs" / "clients" / f"client_{number}_va.safetensors").read_bytes() for number in range(3)]
    return (
        (folder / "logs" / "global_final.safetensors").read_bytes(),
        kept,
        [(record.weights, record.lora_error, record.excluded) for record in records],
    )


@pytest.mark.slow
def test_one_process_many_processes_and_a_killed_run_give_the_same_bytes(tmp_path):
    """Clients of rank 8, 4 and 2, told to a run by one list, to client processes each by its own number or by
    the list."""
    folders = {name: tmp_path / name for name in ("one", "many", "killed")}
    for folder in folders.values():
        folder.mkdir()
    status, output = finished(start(folders["one"], "run", *EXACT, *RANKS))
    assert status == 0, output

    own = ({}, {"CLIENT_LORA_R": "4"}, {"CLIENT_LORA_R": "8,4,2"})
    run_as_processes(folders["many"], EXACT, own)

    killed_within_round_2(start(folders["killed"], "run", *EXACT, *RANKS), folders["killed"])
    status, output = finished(start(folders["killed"], "run", "--resume"))
    assert status == 0, output

    final = load_adapter(folders["one"] / "logs" / "global_final.safetensors")
    assert 14 < rank_of(final.form) <= 28
    config = PeftConfig.from_pretrained(folders["one"] / "logs" / "adapter")
    assert (config.r, config.lora_alpha / config.r) == (rank_of(final.form), 2.0)
    assert said(folders["many"]) == said(folders["one"])
    assert said(folders["killed"]) == said(folders["one"])


@pytest.mark.slow
def test_a_client_of_a_rank_that_is_not_allowed_says_so_and_the_others_go_on(tmp_path):
    clients = [
        start(tmp_path, "client", "--client-id", str(number), *(("--client-lora-r", "4") if number == 2 else ()))
        for number in range(3)
    ]
    status, output = finished(start(tmp_path, "orchestrator", *SHORT, *PATIENT, "--min-clients", "2"))
    assert status == 0, output
    assert [finished(client)[0] for client in clients] == [0, 0, 0]
    records = read_records(LogPaths(tmp_path / "logs").progress, RoundRecord, lambda row: row.get("event") == "round")
    assert [record.clients for record in records] == [(0, 1), (0, 1)]
    assert (
        records[0].excluded[0].reason == "rank 4 is less than LORA_R=8, which only LORA_AGGREGATION=svd and exact allow"
    )
