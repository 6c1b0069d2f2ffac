import dataclasses
import json
import os
import shutil

import pytest
import safetensors.torch

from fccl.adapters.adapter import load_adapter
from fccl.adapters.torch_files import torch_bytes
from fccl.aggregation.rules import aggregation
from fccl.errors import AdapterError, FederationError, StorageError
from fccl.federation.run_folder import RunFolder
from fccl.paths import LogPaths, of_earlier_versions
from fccl.records.journal import Journal
from fccl.records.run import RoundRecord, RunInfo, RunState
from fccl.storage.files import write_text
from fccl.storage.reading import read_records, read_rows
from fccl.storage.temporary import make_file, make_folder
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.transports.in_process import InProcessTransport

INFO = RunInfo(run_id="run", created=1.0, settings={}, data_sha256="", versions={})


@pytest.fixture
def folder(tmp_path):
    paths = LogPaths(tmp_path / "logs")
    return RunFolder(paths, Journal(paths))


def run(folder, state, stop=99, **changes):
    fed = dataclasses.replace(federation(**changes), keep_control=folder.keep_control)
    for result in fed.run(state, InProcessTransport(ToyLearner(), shard)):
        folder.commit(result, fed.plan)
        state = result.state
        if state.next_round == stop:
            break
    return state


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_stopped_run_resumes_to_the_same_bytes(folder, tmp_path, stop):
    whole = RunFolder(LogPaths(tmp_path / "whole"), Journal(LogPaths(tmp_path / "whole")))
    expected = run(whole, whole.start(INFO, federation().plan, START.adapter))
    run(folder, folder.start(INFO, federation().plan, START.adapter), stop)
    state = folder.resume()
    assert state.next_round == stop
    final = run(folder, state)
    assert final.adapter.to_bytes() == expected.adapter.to_bytes()
    assert [record.round for record in read_records(folder.paths.progress, RoundRecord)] == [0, 1, 2, 3]
    assert folder.state().finished


@pytest.mark.parametrize("name", ["fedavgm", "fedyogi", "fedadam", "fedadagrad"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_what_the_server_carries_survives_a_stop(folder, tmp_path, name, stop):
    rule = aggregation(name)
    whole = RunFolder(LogPaths(tmp_path / "whole"), Journal(LogPaths(tmp_path / "whole")))
    expected = run(whole, whole.start(INFO, federation().plan, START.adapter), aggregation=rule)
    stopped = run(folder, folder.start(INFO, federation().plan, START.adapter), stop, aggregation=rule)
    state = folder.resume()
    assert state.server.sha256 == stopped.server.sha256
    final = run(folder, state, aggregation=rule)
    assert (final.adapter.sha256, final.server.sha256) == (expected.adapter.sha256, expected.server.sha256)
    kept = folder.paths.server_state(0).parent.glob("server_state_*.safetensors")
    assert sorted(path.stem for path in kept) == ["server_state_2", "server_state_3", "server_state_4"]  # 2: SFT's last


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_control_variates_survive_a_stop(folder, tmp_path, stop):
    """Two of four clients a round, so some c_i are older than the last round; the VA rounds begin without any."""
    rule, whole = (
        aggregation("scaffold"),
        RunFolder(LogPaths(tmp_path / "whole"), Journal(LogPaths(tmp_path / "whole"))),
    )
    expected = run(whole, whole.start(INFO, federation().plan, START.adapter), aggregation=rule, per_round=2)
    stopped = run(folder, folder.start(INFO, federation().plan, START.adapter), stop, aggregation=rule, per_round=2)
    folder.paths.control(3, "0" * 64).write_bytes(b"of a round that was never committed") if stop != 2 else None
    state = folder.resume()
    assert {client: (kept.share, kept.adapter.sha256) for client, kept in state.controls.items()} == {
        client: (kept.share, kept.adapter.sha256) for client, kept in stopped.controls.items()
    }
    assert state.controls  # after the last SFT round too: it may not stay the last
    final = run(folder, state, aggregation=rule, per_round=2)
    assert final.adapter.sha256 == expected.adapter.sha256
    assert sorted(path.name for path in folder.paths.controls.iterdir()) == sorted(
        path.name for path in whole.paths.controls.iterdir()
    )
    states = folder.state(), RunState.model_validate_json(folder.paths.state_sft.read_text())
    named = {(kept.client_id, kept.sha256) for each in states for kept in each.controls}
    assert len(list(folder.paths.controls.iterdir())) == len(named) >= len(final.controls)


def test_a_control_variate_that_is_gone_or_changed_is_one_error(folder):
    plan, rule = federation().plan, aggregation("scaffold")
    run(folder, folder.start(INFO, plan, START.adapter), stop=1, aggregation=rule)
    path = next(folder.paths.controls.iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(FederationError, match=r"control variate, of which .* speaks, is not there"):
        folder.resume()
    path.unlink()
    with pytest.raises(FederationError, match=r"control variate, of which .* speaks, is not there"):
        folder.resume()


def test_another_reference_is_refused(folder):
    plan = federation().plan
    run(folder, folder.start(INFO, plan, START.adapter), stop=3)
    assert folder.resume().reference.sha256 == load_adapter(folder.paths.global_sft).sha256
    load_adapter(folder.paths.global_adapter(3)).save(folder.paths.global_sft)
    with pytest.raises(FederationError, match=r"global_sft\.safetensors is not the adapter that"):
        folder.resume()


def made_by_an_earlier_version(root):
    """The folder with every adapter in a file of `torch.save`, as versions before the protocol's second wrote them."""
    for path in root.rglob("*.safetensors"):
        of_earlier_versions(path).write_bytes(torch_bytes(safetensors.torch.load_file(path)))
        path.unlink()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_of_an_earlier_version_goes_on_to_the_same_bytes(folder, tmp_path, stop):
    whole = RunFolder(LogPaths(tmp_path / "whole"), Journal(LogPaths(tmp_path / "whole")))
    expected = run(whole, whole.start(INFO, federation().plan, START.adapter))
    run(folder, folder.start(INFO, federation().plan, START.adapter), stop)
    made_by_an_earlier_version(folder.paths.root)
    final = run(folder, folder.resume())
    assert final.adapter.sha256 == expected.adapter.sha256
    left = {path.stem for path in folder.paths.global_adapter(0).parent.glob("*.pt")}
    assert left <= {"global_round_2", "global_round_3"}, (  # 2: after the last SFT round
        "old rounds go"
    )


@pytest.mark.parametrize("name", ["fedadam", "fedavgm", "scaffold"])
def test_what_an_earlier_version_carried_from_round_to_round_is_refused_in_one_line(folder, name):
    rule, plan = aggregation(name), federation().plan
    run(folder, folder.start(INFO, plan, START.adapter), stop=1, aggregation=rule)
    made_by_an_earlier_version(folder.paths.root)
    with pytest.raises(FederationError) as error:
        folder.resume()
    assert "\n" not in str(error.value)
    assert str(folder.paths.root) in str(error.value)


def test_a_run_of_an_earlier_version_is_archived_whole(folder):
    run(folder, folder.start(INFO, federation().plan, START.adapter))
    load_adapter(folder.paths.global_sft).save(folder.paths.global_final)
    made_by_an_earlier_version(folder.paths.root)
    folder.archive()
    assert [path.name for path in folder.paths.root.iterdir()] == ["runs"]


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff\xfe"])
def test_a_run_whose_record_is_damaged_is_kept_too(folder, damaged):
    run(folder, folder.start(INFO, federation().plan, START.adapter), stop=1)
    folder.paths.run.write_bytes(damaged)
    progress = folder.paths.progress.read_bytes()
    name = folder.archive()
    assert name.startswith("unknown-")
    assert (folder.paths.archive / name / "progress.jsonl").read_bytes() == progress
    assert folder.paths.own_entries() == []


def test_another_server_state_is_refused(folder):
    plan, rule = federation().plan, aggregation("fedadam")
    run(folder, folder.start(INFO, plan, START.adapter), stop=1, aggregation=rule)
    path = folder.paths.server_state(1)
    path.write_bytes(rule.initial(START.adapter).to_bytes())
    with pytest.raises(FederationError, match="is not the state that"):
        folder.resume()
    path.unlink()
    with pytest.raises(StorageError, match="does not exist"):
        folder.resume()


def test_a_round_that_was_written_but_not_committed_is_forgotten(folder):
    plan = federation().plan
    run(folder, folder.start(INFO, plan, START.adapter), stop=2)
    last = list(read_rows(folder.paths.progress))[-1]
    folder.journal.write(RoundRecord.model_validate_json(json.dumps(last | {"round": 2})))
    assert folder.resume().next_round == 2
    assert [row["round"] for row in read_rows(folder.paths.progress)] == [0, 1]


def test_a_new_run_keeps_the_old_one(folder):
    plan = federation().plan
    run(folder, folder.start(INFO, plan, START.adapter))
    (folder.paths.root / "mine.txt").write_text("not the run's")
    assert folder.archive() == "run"
    assert folder.state() is None
    kept = RunFolder(LogPaths(folder.paths.archive / "run"), folder.journal)
    assert kept.state().finished
    assert load_adapter(kept.paths.global_sft).tensors
    assert sorted(path.name for path in folder.paths.root.iterdir()) == ["mine.txt", "runs"]
    assert folder.archive() is None


def test_an_adapter_that_is_not_the_states_is_refused(folder):
    plan = federation().plan
    run(folder, folder.start(INFO, plan, START.adapter), stop=1)
    adapter(9.0, 9.0, 9.0).save(folder.paths.global_adapter(1))
    with pytest.raises(FederationError, match="is not the adapter"):
        folder.resume()
    folder.paths.global_adapter(1).write_bytes(b"broken")
    with pytest.raises(AdapterError):
        folder.resume()


def test_nothing_to_resume(folder):
    with pytest.raises(FederationError, match="holds no run"):
        folder.resume()
    write_text(folder.paths.state, "{")
    with pytest.raises(FederationError, match="is damaged"):
        folder.resume()


def test_only_the_last_rounds_adapters_and_that_after_sft_stay(folder):
    run(folder, folder.start(INFO, federation().plan, START.adapter))
    assert sorted(path.name for path in folder.paths.global_adapter(0).parent.iterdir()) == [
        "global_round_2.safetensors",
        "global_round_3.safetensors",
        "global_round_4.safetensors",
    ]


def test_a_log_folder_that_cannot_be_is_one_error(tmp_path):
    (tmp_path / "file").write_text("x")
    paths = LogPaths(tmp_path / "file" / "logs")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        RunFolder(paths, Journal(paths)).start(INFO, federation().plan, START.adapter)


def lose(folder, what):
    if what == "the folder":
        shutil.rmtree(folder.paths.root)
    elif what == "another run":
        write_text(folder.paths.run, INFO.model_copy(update={"run_id": "another"}).model_dump_json())
    else:
        (folder.paths.root / what).unlink()


@pytest.mark.parametrize("what", ["the folder", "another run", "run.json", "state.json", "progress.jsonl"])
def test_a_run_whose_folder_goes_while_it_is_at_work_ends_with_an_error(folder, what):
    state = run(folder, folder.start(INFO, federation().plan, START.adapter), stop=2)
    lose(folder, what)
    with pytest.raises(
        StorageError,
        match=r"no longer holds run run: somebody removed or replaced it|was removed or cut while the run was at work",
    ):
        run(folder, state)


@pytest.mark.parametrize("left", [0, 10, 200])
def test_a_record_that_was_cut_while_the_run_was_at_work_is_an_error(folder, left):
    state = run(folder, folder.start(INFO, federation().plan, START.adapter), stop=2)
    os.truncate(folder.paths.progress, left)
    with pytest.raises(StorageError, match=r"progress\.jsonl was removed or cut while the run was at work"):
        run(folder, state)


def test_what_killed_processes_left_is_cleared_away_and_a_folder_set_aside_comes_back(folder):
    paths = folder.paths
    run(folder, folder.start(INFO, federation().plan, START.adapter), stop=2)
    kept = sorted(path.relative_to(paths.root) for path in paths.root.rglob("*"))
    for path in (
        paths.state,
        paths.global_adapter(2),
        paths.client_adapter(0, "sft"),
        paths.control(0, "0" * 64),
        paths.received / "x",
        paths.report,
    ):
        path.parent.mkdir(exist_ok=True)
        os.close(make_file(path)[0])
    os.close(make_folder(paths.adapter)[0])
    (paths.root / ".adapter.old").mkdir()
    folder.tidy()
    found = sorted(path.relative_to(paths.root) for path in paths.root.rglob("*"))
    assert found == sorted(
        [*kept, *(path.relative_to(paths.root) for path in (paths.adapter, paths.controls, paths.received))]
    )
