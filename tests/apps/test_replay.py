"""`fccl replay`: what it shows, what it writes and where, and what it refuses in one line."""

import json
import shutil

import pytest

from fccl.adapters.adapter import load_adapter
from fccl.apps.main import main
from fccl.library.federated_run import FederatedRun
from fccl.library.past_run import past_run
from fccl.paths import LogPaths
from fccl.records.after import ClientMatrix, Influence, Replay
from fccl.records.run import RunInfo
from fccl.storage.reading import read_value


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    """A copy of a finished run of three clients and one round of each phase: `data/` and `logs/`."""
    folder = tmp_path_factory.mktemp("after") / "run"
    shutil.copytree(small_run, folder)
    return folder


def fccl(run, command, *arguments):
    data = () if command == "verify" else ("--data-dir", str(run / "data"))
    return main([command, "--log-dir", str(run / "logs"), *data, *arguments])


def after(run):
    logs = LogPaths(run / "logs")
    return logs.after(read_value(logs.run, RunInfo).run_id)


def files(folder):
    """Everything in a run's folder but the answers, with its time."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "after" not in path.parts}


def replay_in(folder):
    return read_value(folder / "record.json", Replay)


def test_with_nothing_changed_every_round_has_its_bytes_and_the_run_is_left_alone(run, capsys):
    before = files(run / "logs")
    assert fccl(run, "replay") == 0
    found = replay_in(after(run).replay("as-it-was"))
    assert [each.same for each in found.rounds] == [True, True]
    assert [each.replayed for each in found.rounds] == [each.recorded for each in found.rounds]
    assert load_adapter(after(run).final(after(run).replay("as-it-was"))).sha256 == found.adapter_sha256
    assert found.adapter_sha256 == load_adapter(LogPaths(run / "logs").global_final).sha256
    assert files(run / "logs") == before
    assert "Nothing was changed" in capsys.readouterr().out


def test_without_a_client_the_output_says_what_the_figures_are_not(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert fccl(run, "replay", "--without-client", "1", "--out", str(out)) == 0
    found = replay_in(out)
    assert {each.clients for each in found.rounds} == {(0, 2)}
    said = " ".join(capsys.readouterr().out.split())
    for text in (found.says, said):
        assert "trained from the run's own global adapters" in text
        assert "--retrain ROUND" in text


def test_another_source_and_rule_are_what_the_arguments_name(run):
    arguments = ("--contribution-source", "data_size", "--contribution-temperature", "0.5")
    assert fccl(run, "replay", *arguments, "--aggregation", "fedavgm") == 0
    (folder,) = after(run).root.glob("replay-aggregation-fedavgm*")
    found = replay_in(folder)
    expected = {"contribution_source": "data_size", "contribution_temperature": "0.5", "aggregation": "fedavgm"}
    assert found.changes == expected
    assert not any(each.same for each in found.rounds)


def test_the_environment_changes_no_replay(run, monkeypatch):
    monkeypatch.setenv("AGGREGATION", "median")
    assert fccl(run, "replay") == 0
    assert replay_in(after(run).replay("as-it-was")).changes == {}


def test_trained_anew_from_round_1_with_nothing_changed_it_is_the_run(run):
    assert fccl(run, "replay", "--retrain", "1") == 0
    found = replay_in(after(run).replay("retrain-1"))
    assert [each.same for each in found.rounds] == [True, True]
    assert [each.trained for each in found.rounds] == [True, True]


@pytest.mark.slow
def test_evaluate_puts_both_finals_beside_each_other_in_the_replays_folder(run):
    before = files(run / "logs")
    assert fccl(run, "replay", "--without-client", "0", "--by-round", "--evaluate") == 0
    report = json.loads((after(run).replay("without-0_by-round") / "evaluation.json").read_text())
    assert [model["name"] for model in report["models"]] == ["base", "the run", "the replay"]
    assert files(run / "logs") == before


def test_influence_is_a_table_for_each_loss_and_a_file(run, capsys):
    assert fccl(run, "replay", "--influence") == 0
    found = read_value(after(run).influence, Influence)
    assert [each.measure for each in found.measures] == ["instructions", "pairs"]
    assert [client.client_id for client in found.measures[0].clients] == [0, 1, 2]
    for each in found.measures:
        assert sum(client.shapley for client in each.clients) == pytest.approx(each.before - each.after)
    said = capsys.readouterr().out
    assert "Influence on instructions" in said
    assert "Shapley" in said


@pytest.mark.slow
def test_the_matrix_is_of_the_examples_that_clients_keep_apart(tmp_path, capsys):
    settings = {"max_sft_examples": 90, "max_va_examples": 45, "client_test_share": 0.3, "fed_rounds": 1}
    FederatedRun(data_dir=tmp_path / "data", log_dir=tmp_path / "logs", **settings).train()
    assert fccl(tmp_path, "replay", "--matrix") == 0
    found = read_value(after(tmp_path).matrix, ClientMatrix)
    assert [each.phase for each in found.phases] == ["sft", "va"]
    assert found.phases[0].updates == (0, 1, 2)
    assert all(fall > 0 for row in found.phases[0].falls for fall in row), "any update helps an untrained adapter"
    assert "Whose update helps whom" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--without-client", "7"), "the run has no client 7"),
        (("--without-client", "0", "--without-client", "1", "--without-client", "2"), "without all of its clients"),
        (("--retrain", "9"), "--retrain 9: the run has rounds 1 to 2"),
        (("--aggregation", "scaffold"), "its clients train in another way"),
        (("--lora-aggregation", "freeze_a"), "its clients train in another way"),
        (("--krum-keep", "2"), "--krum-keep has no effect"),
        (("--orders", "3"), "--orders has no effect without --influence"),
        (("--influence", "--without-client", "1"), "--influence is a question of its own"),
        (("no-such-run",), "no-such-run"),
        (("--matrix",), "no client's held-out examples are here"),
        (("--matrix", "--influence"), "two questions"),
    ],
)
def test_what_cannot_be_is_one_line_with_a_hint(run, arguments, said, capsys):
    before = files(run)
    assert fccl(run, "replay", *arguments) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert "hint:" in error
    assert error.count("\n") == 2
    assert files(run) == before


def test_a_run_of_somebodys_class_is_replayed_when_the_command_names_it(run, tmp_path, monkeypatch, capsys):
    """The class is never imported on the word of a record or of the environment."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = LogPaths(copy / "logs").run
    info = read_value(path, RunInfo)
    settings = info.settings | {"contribution_source": "tests.own_rules:NoSuchRule"}
    path.write_text(info.model_copy(update={"settings": settings}).model_dump_json())
    monkeypatch.setenv("CONTRIBUTION_SOURCE", "tests.own_rules:NoSuchRule")
    assert fccl(copy, "replay") == 2
    error = capsys.readouterr().err
    assert "needs the class tests.own_rules:NoSuchRule as its CONTRIBUTION_SOURCE" in error
    assert "--contribution-source tests.own_rules:NoSuchRule" in error
    assert fccl(copy, "verify", "--contribution-source", "data_size") == 2
    assert fccl(copy, "replay", "--contribution-source", "data_size") == 0


def test_a_run_is_found_by_its_folder_and_by_its_id(run, tmp_path):
    info = read_value(LogPaths(run / "logs").run, RunInfo)
    for name in (info.run_id, str(run / "logs")):
        assert past_run(run / "logs", name, "replay", {}).logs.run.is_file()
    assert past_run(tmp_path, str(run / "logs"), "replay", {}).logs.root == run / "logs"
    archived = tmp_path / "logs" / "runs" / info.run_id
    shutil.copytree(run / "logs", archived)
    before = files(tmp_path / "logs")
    assert main(["replay", info.run_id, "--log-dir", str(tmp_path / "logs"), "--data-dir", str(run / "data")]) == 0
    assert (tmp_path / "logs" / "after" / info.run_id / "replay-as-it-was" / "record.json").is_file()
    assert files(tmp_path / "logs") == before


def test_rounds_that_are_not_kept_are_said(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(LogPaths(copy / "logs").kept)
    assert fccl(copy, "replay") == 1
    error = capsys.readouterr().err
    assert "no round is kept there" in error
    assert "KEEP_UPDATES_MB" in error


def test_the_same_question_again_says_what_becomes_of_the_earlier_answer(run, tmp_path, capsys):
    place, asked = after(run).replay("as-it-was"), ("replay",)
    assert fccl(run, *asked) == 0
    (place / "evaluation.json").write_text("{}")
    capsys.readouterr()
    assert fccl(run, *asked) == 0
    assert "and gave the same adapter: what was evaluated of it stays" in " ".join(capsys.readouterr().out.split())
    assert (place / "evaluation.json").is_file()
    record = replay_in(place)
    (place / "record.json").write_text(record.model_copy(update={"adapter_sha256": "0" * 64}).model_dump_json())
    assert fccl(run, *asked) == 0
    assert "gave another adapter: that, and what was evaluated of it, is replaced" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not (place / "evaluation.json").exists()


def test_no_order_is_no_question(run, capsys):
    assert fccl(run, "replay", "--influence", "--orders", "0") == 2
    assert "'0' is not a whole number from 1 to 100,000" in capsys.readouterr().err
