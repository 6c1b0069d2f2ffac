"""An audit runs a federation of its own, says what was found beside chance, and leaves its result alone behind."""

import re

import pytest

import fccl
from fccl.apps.main import main
from fccl.config import load_settings
from fccl.library.audit import protections
from fccl.pages.report.build import build
from fccl.paths import LogPaths
from fccl.records.audit import Audit
from fccl.storage.reading import read_value
from fccl.view.audit_tables import CAUTION, attacks_table, audit_tables, closed_lines
from fccl.view.runs import RunReader
from tests.view.logs import Logs

LITTLE = ("--max-sft-examples", "620", "--max-va-examples", "60", "--num-clients", "1", "--sft-rounds", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TMPDIR", str(folder / "temporary"))
        patch.setattr("tempfile.tempdir", None)
        (folder / "temporary").mkdir()
        assert main(["audit", *LITTLE, "--threads", "1", "--client-processes", "1"]) == 0
    return folder


@pytest.mark.slow  # a federation of a real model, and its attacks: some 25 seconds
class TestAnAudit:
    def test_it_leaves_its_result_and_nothing_else(self, folder):
        left = [path for path in folder.rglob("*") if path.is_file()]
        assert left == [folder / "logs" / "audit.json"]

    def test_adapter_and_single_updates_are_attacked_each_beside_chance(self, folder):
        audit = read_value(LogPaths(folder / "logs").audit, Audit)
        (run,) = audit.runs
        assert [(each.target, each.by) for each in run.attacks] == [
            ("released adapter", "loss"),
            ("update of round 1", "loss"),
            ("update of round 1", "gradient signs"),
            ("update of round 2", "loss"),
            ("update of round 2", "gradient signs"),
        ]
        for attack in run.attacks:
            assert min(attack.membership.members, attack.membership.others) >= 200
            assert [each.repeats for each in attack.exposures] == ([1, 4, 16] if attack.by == "loss" else [])
        assert (audit.canaries, audit.unused, audit.rounds, run.name) == (32, 1000, 2, "none")

    def test_the_table_begins_with_chance_and_says_what_a_failure_does_not_prove(self, folder):
        table, losses = audit_tables(read_value(LogPaths(folder / "logs").audit, Audit))
        assert [cell.text for cell in table.cells[0]][2:7] == ["0.50", "1 %", "1.44", "1.44", "1.44"]
        assert len(table.rows) == 6
        assert [cell.text for cell in losses.cells[0]][:1] == ["none"]
        assert CAUTION in table.note

    def test_the_report_of_a_run_beside_it_has_it(self, folder):
        Logs(folder / "logs").begin()
        sections = build(RunReader(LogPaths(folder / "logs")).refresh(), None, 0.0).sections
        assert next(each for each in sections if each.anchor == "audit").tables[0].title == "Audit"


@pytest.mark.slow  # a federation of a real model, the others' training again, and the attacks
def test_of_a_client_that_is_taken_out_attacks_find_what_they_find_of_one_that_never_was_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = ("--num-clients", "2", "--non-iid-alpha", "inf", "--max-sft-examples", "1200", "--max-va-examples", "60")
    alone = ("--threads", "1", "--client-processes", "1", "--sft-rounds", "1", "--sft-local-epochs", "3")
    assert main(["audit", *two, *alone, "--contribution-mode", "fedavg", "--forget"]) == 0
    audit = read_value(LogPaths(tmp_path / "logs").audit, Audit)
    bare, left = audit.runs
    assert (left.name, [each.target for each in left.attacks]) == ("client 0 taken out", ["released adapter"])
    known, gone = bare.attacks[0], left.attacks[0]
    assert known.exposures[-1].mean.low > known.exposures[-1].chance, "or there is nothing to be found"
    assert all(each.mean.low <= each.chance <= each.mean.high for each in gone.exposures)
    assert gone.membership.auc.low <= 0.5 <= gone.membership.auc.high


@pytest.mark.slow  # a federation of a real model and the attacks
def test_a_client_that_was_never_drawn_is_not_taken_out_and_what_was_found_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    two = ("--num-clients", "2", "--non-iid-alpha", "inf", "--max-sft-examples", "1200", "--max-va-examples", "60")
    drawn = ("--clients-per-round", "1", "--sft-rounds", "1", "--seed", "42", "--client", "1")
    assert main(["audit", *two, *drawn, "--threads", "1", "--client-processes", "1", "--forget"]) == 0
    said = "Client 1 is not taken out: no update of client 1 is in this run"
    assert said in " ".join(capsys.readouterr().out.split())
    assert [run.name for run in read_value(LogPaths(tmp_path / "logs").audit, Audit).runs] == ["none"]


def test_of_one_client_nothing_is_left_when_it_is_taken_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *LITTLE, "--threads", "1", "--forget"]) == 2
    assert "--forget: without its one client there is no federation" in capsys.readouterr().err


def test_a_client_with_too_few_examples_and_one_that_is_not_there_are_said(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ("--data-dir", str(small_run / "data"), "--threads", "1")
    few = ("--max-sft-examples", "60", "--max-va-examples", "30", *data)
    assert main(["audit", *few]) == 1
    said = capsys.readouterr()
    assert "different instructions; an audit needs 400, half of them to be held out" in said.err
    assert "no client has enough" in said.err
    assert "Training" not in said.out
    assert main(["audit", *few, "--client", "7"]) == 2
    assert "--client 7: there is no such client" in capsys.readouterr().err
    assert main(["audit", *few, "--sft-rounds", "0"]) == 2
    assert "SFT_ROUNDS=0" in capsys.readouterr().err


def test_settings_that_do_not_protect_are_no_protection():
    assert protections(load_settings({"seed": 1, "aggregation": "median"})) == {}


def test_a_run_whose_updates_are_not_kept_has_its_closed_attacks_in_words():
    audit = Audit.model_validate(
        {
            "created": 1.0,
            "client": 0,
            "canaries": 1,
            "unused": 1,
            "rounds": 1,
            "settings": {},
            "runs": [{"name": "none", "attacks": [], "closed": ["update of round 1: it is not kept"]}],
        }
    )
    assert closed_lines(audit) == ("Not tried, protection none: update of round 1: it is not kept.",)


def test_a_client_with_too_few_is_told_of_one_that_has_enough(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = fccl.prepare(max_sft_examples=900, max_va_examples=30, num_clients=2, size_skew=6.0)
    few, many = sorted((0, 1), key=lambda client: len(data.shard(client).sft))
    much = ("--max-sft-examples", "900", "--max-va-examples", "30", "--num-clients", "2", "--size-skew", "6")
    assert main(["audit", *much, "--client", str(few), "--threads", "1"]) == 1
    said = capsys.readouterr()
    assert re.search(rf"client {few} has \d+ different instructions; .*\n  hint: --client {many} has \d+", said.err)
    assert "Training" not in said.out


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("update-codec", "must be NAME=VALUE of settings that protect"),
        ("seed=3", "must be NAME=VALUE of settings that protect"),
        ("update-codec=int9", "UPDATE_CODEC"),
        ("dp-where=server,update-codec=int8", "does not go with DP_WHERE=server"),
    ],
)
def test_a_federation_beside_is_of_settings_that_protect(named, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *LITTLE, "--threads", "1", "--beside", named]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow  # two federations of a real model, and their attacks
def test_what_stands_beside_is_in_the_one_table_with_its_own_losses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ("--threads", "1", "--client-processes", "1", "--beside", "update-codec=topk,topk-share=0.1")
    assert main(["audit", *LITTLE, "--sft-rounds", "1", *arguments]) == 0
    audit = read_value(LogPaths(tmp_path / "logs").audit, Audit)
    assert [run.name for run in audit.runs] == ["none", "UPDATE_CODEC=topk, TOPK_SHARE=0.1"]
    assert [row[0].text for row in attacks_table(audit).cells] == ["chance", *["none"] * 3, *[audit.runs[1].name] * 3]
    assert audit.runs[0].loss != audit.runs[1].loss
    assert [row[0].text for row in audit_tables(audit)[1].cells] == [run.name for run in audit.runs]


@pytest.mark.slow  # two federations of a real model, and attacks on two adapters
def test_under_masks_the_released_adapter_is_audited_and_single_updates_are_said_to_be_closed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    two = ("--num-clients", "2", "--non-iid-alpha", "inf", "--max-sft-examples", "1200", "--max-va-examples", "60")
    masks = ("--secure-aggregation", "--contribution-mode", "fedavg", "--sft-rounds", "1", "--threads", "1")
    assert main(["audit", *two, *masks, "--client-processes", "1"]) == 0
    audit = read_value(LogPaths(tmp_path / "logs").audit, Audit)
    bare, masked = audit.runs
    assert {each.target for each in bare.attacks} == {"released adapter", "update of round 1"}
    assert bare.closed == ()
    (found,) = masked.attacks
    assert (masked.name, found.target, found.by) == ("SECURE_AGGREGATION=True", "released adapter", "loss")
    assert min(found.membership.members, found.membership.others) >= 200
    assert [each.repeats for each in found.exposures] == [1, 4, 16]
    assert "Not tried, protection SECURE_AGGREGATION=True: updates: masked, and known by their sum alone." in (
        capsys.readouterr().out
    )
