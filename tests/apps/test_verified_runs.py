"""`CONTRIBUTION_SOURCE=verified` and its two companions, as people start them."""

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.contribution.leave_one_out import LeaveOneOut
from fccl.contribution.reported import ContributionRule
from fccl.contribution.validation_loss import ValidationLoss
from fccl.contribution.verified import Verified
from fccl.library.narrow import settled, weigher
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from tests.apps.commands import finished, killed_within_round_2, run_as_processes, short_run, start

SHORT = short_run(1)
VERIFIED = (*SHORT, "--contribution-source", "verified")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(**settings):
    return weigher(load_settings(settings), None)


def test_settings_name_the_weigher():
    assert isinstance(of(), Verified)
    assert of(contribution_source="data_size") == ContributionRule()
    rule = of(contribution_source="verified", verify_steps=3, verify_temperature=2.0, verify_prior="uniform")
    assert isinstance(rule, Verified)
    assert (rule.steps, rule.temperature, rule.prior) == (3, 2.0, "uniform")
    rule = of(contribution_source="leave_one_out", verify_temperature=2.0, verify_prior="uniform")
    assert isinstance(rule, LeaveOneOut)
    assert (rule.temperature, rule.prior) == (2.0, "uniform")
    rule = of(contribution_source="validation_loss", contribution_temperature=3.0, contribution_normalize="none")
    assert isinstance(rule, ValidationLoss)
    assert (rule.temperature, rule.normalize) == (3.0, "none")
    assert of(contribution_source="loss_inverse", contribution_temperature=3.0) == ContributionRule(
        source="loss_inverse", temperature=3.0
    )


@pytest.mark.parametrize("mode", ["uniform", "fedavg"])
def test_the_modes_to_compare_with_have_no_source(mode):
    assert of(contribution_mode=mode, contribution_source="verified") == ContributionRule(mode=mode)


def test_a_rule_that_treats_all_alike_is_told_so_once_and_has_no_weights_to_make():
    told = []
    settings = settled(load_settings({"aggregation": "median"}), told.append, {})
    assert weigher(settings, None) == ContributionRule(mode="uniform")
    assert settled(settings, told.append, {}) == settings
    said = "AGGREGATION=median treats all updates alike: contributions are not weighed (CONTRIBUTION_MODE=uniform)."
    assert told == [said]


# --- whole runs


def said(folder):
    rows = read_records(LogPaths(folder / "logs").progress, RoundRecord, lambda row: row.get("event") == "round")
    records = list(rows)
    found = [record.verification.model_copy(update={"seconds": 0.0}) for record in records]
    return (
        (folder / "logs" / "global_final.safetensors").read_bytes(),
        [(record.weights, record.scores) for record in records],
        found,
        [record.learning and record.learning.aggregate_sha256 for record in records],
    )


@pytest.mark.slow
def test_one_process_many_processes_and_a_killed_run_give_the_same_bytes(tmp_path):
    """Also when the processes would use another number of threads by themselves: the run's own counts. The server
    verifies, and learns after every aggregation.
    """
    learning = [*VERIFIED, "--learn-epochs", "1"]
    folders = {name: tmp_path / name for name in ("one", "many", "killed")}
    for folder in folders.values():
        folder.mkdir()
    status, output = finished(start(folders["one"], "run", *learning, OMP_NUM_THREADS="1"))
    assert status == 0, output

    run_as_processes(folders["many"], learning, ({"OMP_NUM_THREADS": "1"},) * 3, OMP_NUM_THREADS="2")

    killed_within_round_2(start(folders["killed"], "run", *learning, OMP_NUM_THREADS="2"), folders["killed"])
    status, output = finished(start(folders["killed"], "run", "--resume", OMP_NUM_THREADS="1"))
    assert status == 0, output

    assert all(said(folders["one"])[-1])
    assert said(folders["many"]) == said(folders["one"])
    assert said(folders["killed"]) == said(folders["one"])


@pytest.mark.slow
@pytest.mark.parametrize("source", ["validation_loss", "leave_one_out"])
def test_the_sources_to_compare_with_run_too(tmp_path, source):
    status, output = finished(start(tmp_path, "run", *SHORT, "--contribution-source", source))
    assert status == 0, output
    assert all(verification.examples > 0 for verification in said(tmp_path)[2])


@pytest.mark.slow
def test_under_a_rule_that_takes_no_weights_nothing_is_verified(tmp_path):
    status, output = finished(start(tmp_path, "run", *SHORT, "--aggregation", "median"))
    assert status == 0, output
    assert "AGGREGATION=median treats all updates alike" in output
    records = list(
        read_records(LogPaths(tmp_path / "logs").progress, RoundRecord, lambda row: row.get("event") == "round")
    )
    assert [record.verification for record in records] == [None, None]
    assert {record.weights for record in records} == {(1 / 3,) * 3}


def test_a_rule_that_needs_more_clients_than_there_are_ends_the_command_before_it_does_anything(tmp_path, capsys):
    assert main(["run", "--aggregation", "krum"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: AGGREGATION=krum with MAX_BAD_CLIENTS=1 needs at least 5 updates a round, and there are 3\n  "
        "hint: lower"
    )
    assert list(tmp_path.iterdir()) == []
