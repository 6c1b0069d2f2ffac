"""Whole runs by classes of one's own: left or killed, and gone on with by a command that names them again."""

import shutil
import sys
from itertools import count, islice

import pytest

import fccl
from fccl.apps.main import main
from fccl.errors import SettingsError
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord, RunInfo
from fccl.storage.files import sha256_of
from fccl.storage.reading import read_records, read_value
from tests.apps.commands import finished, killed_while_held, start
from tests.own_rules import HOLD, RULES, write

SMALL = {"max_sft_examples": 60, "max_va_examples": 30, "fed_rounds": 1, "threads": 1}
NUMBERS = count()


@pytest.fixture
def own(small_run, tmp_path, monkeypatch):
    """A folder with prepared data and a module of rules. Returns the settings that name both of its classes."""
    shutil.copytree(small_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = write(tmp_path, f"rules_of_runs_{next(NUMBERS)}")
    return {"contribution_source": f"{module}:Asks", "aggregation": f"{module}:Rolling"}


@pytest.fixture
def left(own):
    """The run of these rules in `logs`, left after its first round."""
    assert [result.record.round for result in islice(fccl.FederatedRun(**SMALL, **own), 1)] == [0]
    return LogPaths(fccl.FederatedRun(**SMALL, **own).log_dir)


def file_of(rules):
    return rules["aggregation"].partition(":")[0] + ".py"


def arguments(settings):
    return [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), str(value))]


def said(logs):
    records = read_records(logs.progress, RoundRecord, lambda row: row.get("event") == "round")
    return logs.global_final.read_bytes(), [(record.weights, record.adapter_sha256) for record in records]


def test_a_run_says_which_classes_it_needs_and_with_them_ends_as_if_it_had_never_stopped(own, left, capsys):
    source, rule = (f"the class {own[name]} as its {name.upper()}" for name in ("contribution_source", "aggregation"))
    both = f"the run to resume needs {source} and {rule}"
    with pytest.raises(SettingsError) as caught:
        fccl.FederatedRun(resume=True)
    assert str(caught.value) == both
    assert main(["run", "--resume"]) == 2
    hint = "  hint: name them again if you trust them: " + " ".join(arguments(own))
    assert capsys.readouterr().err.splitlines() == [f"error: {both}", hint]
    with pytest.raises(SettingsError) as caught:
        fccl.FederatedRun(resume=True, contribution_source=own["contribution_source"])
    assert str(caught.value) == f"the run to resume needs {rule}"
    assert main(["run", "--resume", "--no-evaluate", *arguments(own)]) == 0
    whole = fccl.FederatedRun(**SMALL, **own, log_dir="whole")
    whole.train()
    assert said(left) == said(LogPaths(whole.log_dir))


def test_the_record_has_the_hash_of_the_file_and_a_changed_file_is_said(own, left, capsys):
    sha256, path = sha256_of(left.root.parent / file_of(own)), own["contribution_source"]
    assert read_value(left.run, RunInfo).rules == dict.fromkeys(own.values(), sha256)
    before = said_so_far(left)
    write(left.root.parent, path.partition(":")[0], RULES + "\n# changed\n")
    assert main(["run", "--resume", *arguments(own)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: the file of {path} was changed since the run began",
        "  hint: put it back as it was, or start a new run: a resumed run ends as if it had never stopped",
    ]
    assert said_so_far(left) == before
    write(left.root.parent, path.partition(":")[0])
    assert [result.record.round for result in islice(fccl.FederatedRun(resume=True, **own), 1)] == [1]


def said_so_far(logs):
    return sorted((path.name, path.read_bytes()) for path in logs.root.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_killed_process_goes_on_by_a_command_that_names_the_classes(own, tmp_path):
    longer = SMALL | {"fed_rounds": 2}  # so that the aggregation's state is carried over the kill
    (tmp_path / HOLD).touch()
    killed_while_held(start(tmp_path, "run", *arguments(longer), *arguments(own), "--no-evaluate"), tmp_path)
    status, output = finished(start(tmp_path, "run", "--resume"))
    assert status == 2
    assert f"error: the run to resume needs the class {own['contribution_source']}" in output
    status, output = finished(start(tmp_path, "run", "--resume", "--no-evaluate", *arguments(own)))
    assert status == 0, output
    fccl.FederatedRun(**longer, **own, log_dir="whole").train()
    assert said(LogPaths(tmp_path / "logs")) == said(LogPaths(tmp_path / "whole"))
