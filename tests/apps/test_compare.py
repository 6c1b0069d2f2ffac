import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from fccl.apps import compare
from fccl.apps.compare_choice import Choice, unread_line
from fccl.apps.main import main
from fccl.compare.methods import METHODS
from fccl.compare.trial import Trial
from fccl.compare.values import TrialResult
from fccl.paths import ComparePaths
from fccl.records.comparison import Comparison
from tests.compare.test_verdicts import SPEC
from tests.own_rules import write

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("bird", "apple", "cherry", "tree", "fruit", "words", "hot", "cold", "red", "old")
SMALL = (
    "--num-clients",
    "4",
    "--lora-r",
    "4",
    "--max-length",
    "128",
    "--verify-examples",
    "4",
    "--bootstrap-samples",
    "200",
    "--jobs",
    "1",
)


@pytest.fixture(scope="module")
def command(tmp_path_factory, tiny_model_path):
    """A comparison of seconds."""
    rows = tmp_path_factory.mktemp("rows") / "sft.json"
    rows.write_text(
        json.dumps(
            [
                {"instruction": f"Say {WORDS[n % 10]} {n}", "output": f"It is {WORDS[n % 10]}.", "topic": "ab"[n % 2]}
                for n in range(60)
            ]
        )
    )
    return [
        "compare",
        *SMALL,
        "--model-name",
        str(tiny_model_path),
        "--sft-data",
        str(rows),
        "--va-data",
        "synthetic",
        "--seeds",
        "1",
    ]


def times(paths):
    return {path.name: path.stat().st_mtime_ns for path in paths.trials.glob("*.json")}


@pytest.mark.slow
def test_a_whole_comparison(command, tmp_path, capsys):
    out, paths = tmp_path / "out", ComparePaths(tmp_path / "out")
    arguments = [
        *command,
        "--fed-rounds",
        "1",
        "--scenarios",
        "sign-flip,flipped",
        "--methods",
        "verified,oracle",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for words in (
        "sign-flipped updates, 1 of 4 clients",
        "preferences, flipped",
        "FCCL, verified",
        "FedAvg",
        "gap to the oracle",
        "(yardstick)",
    ):
        assert words in shown
    found = Comparison.model_validate_json(paths.results.read_bytes())
    assert [(row.scenario, row.method) for row in found.rows] == [
        (scenario, method) for scenario in ("sign-flip", "flipped") for method in ("fedavg", "verified", "oracle")
    ]
    assert all(row.loss is not None for row in found.rows)
    assert found.row("sign-flip", "oracle").bad_weight == (0.0,)
    for path in (
        paths.table,
        paths.summary,
        paths.page,
        paths.weights("sign-flip"),
        paths.loss("sign-flip"),
        paths.weights("flipped"),
    ):
        assert path.stat().st_size > 500
    before = times(paths)
    assert len(before) == 6
    assert main(arguments) == 0
    assert "6 different trials, 6 finished before" in capsys.readouterr().out
    assert times(paths) == before
    assert Comparison.model_validate_json(paths.results.read_bytes()) == found


@pytest.mark.slow
def test_one_more_method_runs_that_alone_and_a_changed_setting_runs_anew(command, tmp_path, capsys):
    arguments = [*command, "--fed-rounds", "1", "--scenarios", "sign-flip", "--out", str(tmp_path)]
    assert main([*arguments, "--methods", "fedavg"]) == 0
    before = times(ComparePaths(tmp_path))
    assert main([*arguments, "--methods", "base"]) == 0
    assert "2 different trials, 1 finished before" in capsys.readouterr().out
    assert main([*arguments, "--methods", "fedavg", "--sft-lr", "0.001"]) == 0
    assert "1 different trial, 0 finished before" in capsys.readouterr().out
    assert times(ComparePaths(tmp_path)).items() >= before.items()


def test_ctrl_c_says_how_to_go_on(command, tmp_path, capsys, monkeypatch):
    from fccl.compare import workers as crew

    run, done = crew.results_of, []

    def interrupted(resources, trial):
        if done:
            raise KeyboardInterrupt
        done.append(trial)
        return run(resources, trial)

    monkeypatch.setattr(crew, "results_of", interrupted)
    arguments = [
        *command,
        "--fed-rounds",
        "1",
        "--scenarios",
        "sign-flip",
        "--methods",
        "base,fedavg",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().out
    before = times(ComparePaths(tmp_path))
    assert len(before) == 1
    assert main([*arguments[:-1], str(tmp_path / "empty"), "--tables-only"]) == 2
    assert not (tmp_path / "empty" / "data").exists()
    assert main([*arguments, "--tables-only"]) == 2
    assert "has no scenario that is finished under every method" in capsys.readouterr().err
    monkeypatch.setattr(crew, "results_of", run)
    assert main(arguments) == 0
    assert "2 different trials, 1 finished before" in capsys.readouterr().out
    assert times(ComparePaths(tmp_path)).items() >= before.items()
    monkeypatch.setattr(crew, "results_of", interrupted)
    whole = ComparePaths(tmp_path).results.read_bytes()
    ComparePaths(tmp_path).results.unlink()
    assert main([*arguments, "--tables-only"]) == 0
    assert ComparePaths(tmp_path).results.read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["--scenarios", "shufled"], "unknown scenario shufled", "did you mean shuffled?"),
        (["--methods", "verifed"], "unknown method verifed", "did you mean verified?"),
        (["--methods", "qqqq"], "unknown method qqqq", "there are base, alone"),
        (["--num-clients", "1"], "at least 2 clients", ""),
        (["--noisy-clients", "1"], "--noisy-clients: the scenarios and methods decide this", "--scenarios"),
        (["--contribution-source", "verified"], "--contribution-source: the scenarios", "--methods"),
        (["--data-dir", "data"], "--data-dir: a comparison has no use for it", "--out"),
        (["--seeds", "many"], "not a whole number", ""),
        (["--set", "evidence", "--seeds", "2"], "--seeds beside --set evidence: its scenarios", "leave one"),
        (["--set", "evidence", "--until-flat"], "--until-flat beside --set evidence", "leave one"),
        (["--set", "evidenz"], "evidence", ""),
        (["--seeds", "\N{SUPERSCRIPT TWO}"], "is not a whole number from 0 to 1,000", ""),
        (["--seeds", "1000000000"], "is not a whole number from 0 to 1,000", ""),
        (["--scenario", "shuffled"], "unknown argument --scenario", "did you mean --scenarios?"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(arguments, error, hint, tmp_path, capsys):
    assert main(["compare", "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert error in said
    assert hint in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_trials_is_run_again(command, tmp_path, capsys):
    arguments = [
        *command,
        "--fed-rounds",
        "1",
        "--scenarios",
        "duplicated",
        "--methods",
        "base",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    first, second = sorted(ComparePaths(tmp_path).trials.glob("*.json"))
    content = first.read_bytes()
    first.write_bytes(content[:50])
    capsys.readouterr()
    assert main(arguments) == 0
    assert "2 different trials, 1 finished before" in capsys.readouterr().out
    again = json.loads(first.read_bytes())
    assert again["losses"] == json.loads(content)["losses"]
    assert second.is_file()
    assert len(list((tmp_path / "data").iterdir())) == 1  # what is written of it needs no other data


def test_a_line_says_what_a_trial_came_to():
    said = io.StringIO()
    result = TrialResult(
        spec=SPEC, seconds=2, training_seconds=1, weighing_seconds=0, losses=(1.0, 3.0), units=(2.0, 2.0)
    )
    with compare._progress(Console(file=said, width=200), 3) as tell:
        tell(Trial("shuffled", "fedavg", 1, SPEC, Path()), result)
        tell(Trial("shuffled", "alone", 1, SPEC, Path()), result.model_copy(update={"by_client": {0: 0.75, 2: 1.25}}))
        tell(
            Trial("shuffled", "median", 1, SPEC, Path()),
            result.model_copy(update={"losses": (), "units": (), "trouble": ("round 2 broke",)}),
        )
    assert [line.strip() for line in said.getvalue().splitlines()] == [
        "1/3 shuffled · fedavg · seed 1: test loss 1.0000, 2 s",
        "2/3 shuffled · alone · seed 1: test loss 1.0000 (of each client 0.7500 to 1.2500), 2 s",
        "3/3 shuffled · median · seed 1: not finite, 2 s (round 2 broke)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_comparison_goes_on(tmp_path, jobs):
    """SIGKILL between trials and in the middle of them; what is finished is not touched, and the end is the undisturbed
    one's.
    """
    arguments = [
        sys.executable,
        "-m",
        "fccl",
        "compare",
        "--scenarios",
        "shuffled,sign-flip",
        "--methods",
        "base,verified,oracle",
        "--seeds",
        "1",
        "--fed-rounds",
        "1",
        "--max-sft-examples",
        "160",
        "--max-va-examples",
        "40",
        "--num-clients",
        "4",
        "--threads",
        "1",
        "--jobs",
        str(jobs),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed, whole = ComparePaths(tmp_path / "killed"), ComparePaths(tmp_path / "whole")
    for wanted in (1, 4):
        with subprocess.Popen(
            [*arguments, "--out", str(killed.root)], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 300
            while len(times(killed)) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        before = times(killed)
        assert len(before) >= wanted
    for folder in (killed, whole):
        subprocess.run(
            [*arguments, "--out", str(folder.root)],
            cwd=tmp_path,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=600,
        )
    assert times(killed).items() >= before.items()
    one, other = (Comparison.model_validate_json(folder.results.read_bytes()) for folder in (killed, whole))
    assert [row.model_copy(update={"seconds": 0.0}) for row in one.rows] == [
        row.model_copy(update={"seconds": 0.0}) for row in other.rows
    ]
    assert times(killed).keys() == times(whole).keys()


def test_classes_of_ones_own_stand_beside_ours(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = write(tmp_path, "own_rules_beside_ours")
    own = [f"{module}:Last", f"{module}:First"]
    arguments = [*command, "--fed-rounds", "1", "--scenarios", "sign-flip", "--out", "out"]
    assert main([*arguments, "--methods", ",".join(["fedavg", *own])]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("FedAvg", *own))
    found = Comparison.model_validate_json(ComparePaths(Path("out")).results.read_bytes())
    assert [row.method for row in found.rows] == ["fedavg", *own]
    assert found.row("sign-flip", own[0]).weights == ((0.0, 0.0, 0.0, 1.0),)
    assert found.row("sign-flip", own[1]).weights == ((1.0, 0.0, 0.0, 0.0),)


def test_settings_that_no_method_reads_are_said_and_not_refused(command, tmp_path, monkeypatch):
    monkeypatch.setenv("KRUM_KEEP", "2")
    choice = Choice((), (METHODS["fedavg"],), (42,), 1)
    assert unread_line({"prox_mu": "1", "seed": "3"}, choice) == (
        "Settings that none of these methods reads: KRUM_KEEP, PROX_MU."
    )
    assert unread_line({}, Choice((), (METHODS["multi-krum"],), (42,), 1)) == ""


@pytest.mark.slow
def test_tuning_says_which_value_to_judge_on_seeds_that_no_judgement_uses(command, tmp_path, capsys):
    arguments = [*command, "--fed-rounds", "1", "--scenarios", "sign-flip", "--out", str(tmp_path)]
    assert main([*arguments, "--tune", "--methods", "fedexp"]) == 0
    shown = capsys.readouterr().out
    assert "FEDEXP_EPSILON" in shown
    assert "To judge them: fccl compare --methods fedexp@0." in shown
    kept = [TrialResult.model_validate_json(path.read_bytes()) for path in ComparePaths(tmp_path).trials.glob("*.json")]
    assert len(kept) == 4
    assert {result.spec.plan.seed for result in kept} == {7}
    assert not ComparePaths(tmp_path).page.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tune", "--methods", "krum,median"), "--tune: none of these methods has a knob"),
        (("--methods", "fedadam@0.1", "--seed", "6", "--seeds", "3"), "seed 7 is one that methods are tuned on"),
        (("--methods", "krum@2"), "krum@2: krum has no knob to tune"),
    ],
)
def test_what_cannot_be_tuned_or_judged_is_one_line(arguments, says, tmp_path, capsys):
    assert main(["compare", *arguments, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
