"""Differential privacy at the commands: a run of each kind, its ledger, what can be done with it afterwards."""

import json
from pathlib import Path

import pytest

from fccl.apps.main import main
from fccl.paths import LogPaths
from fccl.privacy.accountant import accounting_of
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import Release, Spent, epsilon_of
from fccl.records.forecast import Usage
from fccl.records.privacy import ClientSpent, RoundPrivacy
from fccl.storage.reading import read_value
from tests.view.logs import Logs

SMALL = ("--max-sft-examples", "60", "--max-va-examples", "30", "--fed-rounds", "1", "--threads", "1")
ALONE = (*SMALL, "--client-processes", "1", "--no-evaluate")
SAID = RoundPrivacy(
    where="client",
    clip=0.5,
    noise=4.0,
    sampling="fixed",
    amplified=False,
    accountant="PLD",
    relation="replace one",
    delta=1e-5,
    budget=8.0,
    epsilon=2.943,
    releases=2,
    clients=(ClientSpent(client_id=0, releases=1, epsilon=1.993), ClientSpent(client_id=2, releases=2, epsilon=2.943)),
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_privacy_shows_what_a_run_has_spent_by_round_and_by_client(tmp_path, capsys):
    logs = Logs(tmp_path / "logs").begin()
    record = logs.record(0).model_copy(update={"contributions": (), "privacy": SAID})
    logs.append(logs.paths.progress, record)
    assert main(["privacy"]) == 0
    shown = said(capsys)
    assert "After 2 noised releases a client's ε is at most 2.943 at δ = 1e-05, of a budget of 8" in shown
    assert "1 FedIT (SFT) 0.5 2.943 2.943 5.057" in shown
    assert "2 2 2.943 5.057 0 1 1.993 6.007" in shown


def test_privacy_of_a_run_without_any_says_so_and_without_a_run_is_an_error(tmp_path, capsys):
    assert main(["privacy"]) == 1
    assert "no run" in capsys.readouterr().err
    Logs(tmp_path / "logs").begin().round(0)
    assert main(["privacy"]) == 0
    assert "it has none (DP_WHERE=none)" in said(capsys)


def test_privacy_of_a_client_is_its_own_ledger_over_all_runs(tmp_path, capsys):
    assert main(["privacy", "--client-id", "1"]) == 1
    assert "no noised update has left this client" in capsys.readouterr().err
    folder = tmp_path / "state" / "client_1"
    folder.mkdir(parents=True)
    spent = Spent(folder)
    for run, number in (("one", 0), ("one", 1), ("other", 0)):
        spent.add(Release(run_id=run, round=number, secret="s", tag="t", noise=4.0))
    assert main(["privacy", "--client-id", "1"]) == 0
    spec = PrivacySpec(where="client", clip=1.0, noise=4.0, epsilon=8.0, delta=1e-5)
    ones, all_of_them = (accounting_of(spec, 1, 1).epsilon(count) for count in (2, 3))
    shown = said(capsys)
    assert f"one client 2 {ones:.3f}" in shown
    assert f"all client 3 {all_of_them:.3f}" in shown
    by_example = Release(run_id="last", round=0, secret="s", tag="t", noise=1.0, unit="example", rate=0.1, steps=30)
    spent.add(by_example)
    assert main(["privacy", "--client-id", "1"]) == 0
    alone, with_all = (epsilon_of(each, "example", 1e-5) for each in ([by_example], spent.releases))
    shown = said(capsys)
    assert f"last example 1 {alone:.3f}" in shown
    assert f"all example 4 {with_all:.3f}" in shown


def records():
    rows = map(json.loads, Path("logs/progress.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["event"] == "round"]


@pytest.mark.slow
def test_a_run_whose_clients_add_noise_can_be_verified_and_given_more_rounds(tmp_path, capsys):
    private = ("--dp-where", "client", "--dp-clip", "0.1", "--dp-noise", "4")
    assert main(["run", *ALONE, *private]) == 0
    assert "Differential privacy of whole clients, noise at the client" in said(capsys)
    assert [record["privacy"]["releases"] for record in records()] == [1, 2]
    assert all(record["contributions"] == [] for record in records())
    assert not (tmp_path / "logs" / "client_metrics.jsonl").exists()
    assert main(["privacy"]) == 0
    assert "ε is at most 2.943" in said(capsys)
    assert main(["verify"]) == 0
    assert main(["run", "--resume", "--va-rounds", "2", "--no-evaluate"]) == 0
    assert [record["privacy"]["releases"] for record in records()] == [1, 2, 3]


@pytest.mark.slow
def test_a_run_whose_clients_train_by_dp_sgd_goes_on_and_its_ledger_says_the_unit(tmp_path, capsys):
    private = ("--dp-where", "client", "--dp-unit", "example", "--dp-noise", "1", "--dp-epsilon", "50")
    assert main(["run", *ALONE, *private]) == 0
    assert "single examples: clients train by DP-SGD" in said(capsys)
    first = records()[-1]["privacy"]
    assert (first["unit"], first["relation"], first["releases"]) == ("example", "add or remove one", 2)
    assert not (tmp_path / "logs" / "client_metrics.jsonl").exists()
    assert main(["privacy"]) == 0
    shown = said(capsys)
    assert f"an example's ε is at most {first['epsilon']:.3f}" in shown
    assert "Neighbours differ in one instruction and one pair of a client" in shown
    mine = next(each for each in first["clients"] if each["client_id"] == 1)
    assert main(["privacy", "--client-id", "1"]) == 0
    assert f"all example 2 {mine['epsilon']:.3f}" in said(capsys), "the client's own ledger agrees"
    assert main(["verify"]) == 0
    assert main(["run", "--resume", "--va-rounds", "2", "--no-evaluate"]) == 0
    assert [record["privacy"]["releases"] for record in records()] == [1, 2, 3]
    assert records()[-1]["privacy"]["epsilon"] > first["epsilon"]


@pytest.mark.slow
def test_a_run_whose_server_adds_noise_writes_down_nothing_of_a_client(tmp_path, capsys):
    private = ("--dp-where", "server", "--contribution-mode", "uniform", "--dp-noise", "4", "--dp-clip", "0.1")
    sampled = ("--client-sampling", "poisson", "--clients-per-round", "2")
    assert main(["run", *ALONE, *private, *sampled]) == 0
    shown = said(capsys)
    assert "poisson sampling in secret" in shown
    assert "client 0" not in shown
    assert {name for record in records() for name in record if name in ("clients", "weights") and record[name]} == set()
    found = {path.name for path in (tmp_path / "logs").iterdir()}
    assert not found & {"clients", "kept", "received", "client_metrics.jsonl", "status_0.json"}
    usage = read_value(LogPaths(tmp_path / "logs").usage, Usage)  # peaks of memory would say who was drawn
    assert (usage.server, usage.workers) == (None, ())
    assert main(["verify"]) == 0
    assert main(["forget", "--client", "1"]) > 0
    assert capsys.readouterr().err.startswith("error: ")


def test_noise_at_the_server_with_verified_weights_is_refused_before_anything_is_there(tmp_path, capsys):
    assert main(["run", "--dp-where", "server", "--dp-noise", "4"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: CONTRIBUTION_SOURCE=verified does not go with DP_WHERE=server: weights are an output"
    )
    assert "hint: use CONTRIBUTION_MODE=uniform" in error
    assert list(tmp_path.iterdir()) == []


def test_the_help_says_what_is_shown_without_a_client(capsys):
    with pytest.raises(SystemExit):
        main(["privacy", "--help"])
    assert "over all runs (default: that of the run in LOG_DIR, of all clients)" in said(capsys)
