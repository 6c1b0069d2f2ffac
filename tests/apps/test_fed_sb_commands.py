"""Fed-SB over processes and kills: the same bytes everywhere."""

import pytest

from fccl.paths import LogPaths
from fccl.records.journal import read_rounds
from tests.apps.commands import finished, killed_within_round_2, run_as_processes, short_run, start

FED_SB = (*short_run(1), "--lora-aggregation", "fed_sb", "--lora-r", "16", "--update-codec", "int8")


def said(folder):
    logs = LogPaths(folder / "logs")
    return logs.global_final.read_bytes(), [(each.weights, each.arrived, each.sent) for each in read_rounds(logs)]


@pytest.mark.slow
def test_one_process_many_processes_and_a_killed_run_give_the_same_bytes(tmp_path):
    folders = {name: tmp_path / name for name in ("one", "many", "killed")}
    for folder in folders.values():
        folder.mkdir()
    status, output = finished(start(folders["one"], "run", *FED_SB))
    assert status == 0, output
    run_as_processes(folders["many"], FED_SB)
    killed_within_round_2(start(folders["killed"], "run", *FED_SB), folders["killed"])
    status, output = finished(start(folders["killed"], "run", "--resume"))
    assert status == 0, output
    assert said(folders["many"]) == said(folders["one"])
    assert said(folders["killed"]) == said(folders["one"])
