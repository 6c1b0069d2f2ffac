"""Kept rounds: with the recorded weights they give the recorded next adapter again, to the byte."""

import dataclasses
import errno
import os
import shutil
import stat
from contextlib import contextmanager
from itertools import islice

import pytest

from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.contribution.protocol import Weighing
from fccl.contribution.stretch import as_weighed, weights_and_stretch
from fccl.errors import FcclError, FederationError
from fccl.federation import keeper as keeper_module
from fccl.federation.keeper import MB, Keeper
from fccl.federation.kept_rounds import kept_round, kept_rounds
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.state import FederationState
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.run import RoundRecord
from fccl.storage.files import sha256_of, write_text
from fccl.storage.reading import read_records
from fccl.testing import lora_toy
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.tracking.listener import RunListener
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport
from tests.transports.exchange.test_server_contract import client_threads

CLIENTS, ROUNDS = 4, 4
RULES = ["fedavg", "fedadam", "scaffold", "median", "trimmed_mean"]


class Lines(RunListener):
    """Collects what a person reads."""

    def __init__(self):
        self.lines = []

    def told(self, line):
        self.lines.append(line)


@contextmanager
def transport_to(learner, how, root):
    if how == "in_process":
        yield InProcessTransport(learner, shard)
        return
    exchange = ExchangeTransport(ExchangePaths(root / "exchange"), exchange_spec(CLIENTS), root / "logs" / "received")
    with client_threads(root / "exchange", dict.fromkeys(range(CLIENTS), learner), grace_s=0.0), exchange:
        yield exchange


def conduct(root, fed=None, start=START, learner=None, how="in_process", **changes):
    """A whole run. Returns the results of its rounds."""
    run = Run(fed or federation(), RunFolder.at(root / "logs"), lambda: start.adapter, **changes)
    with transport_to(learner or ToyLearner(), how, root) as transport:
        results = list(run.rounds(transport))
        run.finish(transport)
    return results


def read_all(logs, rule):
    kept = kept_round(logs, 3)
    return again(kept, rule), kept.task


def again(kept, rule):
    parts = Parts(kept.record.weights, as_weighed(kept.task, kept.updates(), kept.record.stretch))
    return rule.aggregate(kept.adapter, parts, kept.server).adapter


@pytest.mark.parametrize("how", ["in_process", "exchange"])
@pytest.mark.parametrize("name", RULES)
def test_the_kept_updates_with_the_recorded_weights_give_the_recorded_adapter(tmp_path, name, how):
    rule = aggregation(name)
    results = conduct(tmp_path, federation(aggregation=rule), how=how)
    logs = LogPaths(tmp_path / "logs")
    assert kept_rounds(logs) == tuple(range(ROUNDS))
    for number, result in enumerate(results):
        kept = kept_round(logs, number)
        assert again(kept, rule).to_bytes() == result.state.adapter.to_bytes()
        assert again(kept, rule).sha256 == kept.record.adapter_sha256
        assert kept.adapter.sha256 == (results[number - 1].state if number else START).adapter.sha256
        assert (kept.reference is None) == (kept.record.phase == "sft")
        controls = [update.control is not None for update in kept.updates()]
        assert controls == [name == "scaffold"] * len(kept.record.clients)


@pytest.mark.parametrize("how", ["in_process", "exchange"])
def test_updates_of_lower_ranks_under_a_growing_adapter_are_kept_as_they_came(tmp_path, how):
    fed, learner = lora_toy.lora_federation("exact"), lora_toy.LoraLearner((3, 1, 2))
    results = conduct(tmp_path, fed, lora_toy.START, learner, how)
    for number, result in enumerate(results):
        kept = kept_round(LogPaths(tmp_path / "logs"), number)
        assert again(kept, fed.aggregation).to_bytes() == result.state.adapter.to_bytes()
        assert [update.rank for update in kept.inputs.updates] == [3, 1, 2, 3]


class Coefficients:
    """Other coefficients for every client, one below zero: they are no weights of a mean."""

    def weigh(self, task, updates):
        coefficients = [0.25 * update.client_id - 0.3 for update in updates]
        weights, stretch = weights_and_stretch(coefficients)
        return Weighing(weights, tuple(coefficients), stretch=stretch)


@pytest.mark.parametrize("how", ["in_process", "exchange"])
@pytest.mark.parametrize("lora", ["factors", "svd", "exact"])
def test_a_round_whose_changes_were_stretched_is_made_again_from_its_record(tmp_path, lora, how):
    ranks = (3,) if lora == "factors" else (3, 1, 2)
    fed = dataclasses.replace(lora_toy.lora_federation(lora), rule=Coefficients())
    results = conduct(tmp_path, fed, lora_toy.START, lora_toy.LoraLearner(ranks), how)
    for number, result in enumerate(results):
        kept = kept_round(LogPaths(tmp_path / "logs"), number)
        assert min(kept.record.stretch) < 0 < max(kept.record.stretch)
        assert again(kept, fed.aggregation).to_bytes() == result.state.adapter.to_bytes()


def test_both_transports_keep_the_same_bytes_under_the_same_hashes(tmp_path):
    found = []
    for how in ("in_process", "exchange"):
        results = conduct(tmp_path / how, federation(aggregation=aggregation("scaffold")), how=how)
        logs = LogPaths(tmp_path / how / "logs")
        files = {path.relative_to(logs.kept): sha256_of(path) for path in logs.kept.rglob("*.safetensors")}
        found.append(([result.record.arrived for result in results], files))
    assert found[0] == found[1]
    assert len(found[0][1]) == ROUNDS * (2 * CLIENTS + 1)
    hashes = {each.sha256 for arrived in found[0][0] for each in arrived}
    assert hashes <= set(found[0][1].values())


def test_an_update_is_what_the_client_sent_and_says_what_it_said(tmp_path):
    results = conduct(tmp_path)
    for number, result in enumerate(results):
        kept = kept_round(LogPaths(tmp_path / "logs"), number)
        task = kept.task
        sent = [ToyLearner().fit(task, shard(client), lambda status: None) for client in range(CLIENTS)]
        for update, expected in zip(kept.arrived(), sent, strict=True):
            assert update.adapter.load().to_bytes() == expected.adapter.to_bytes()
            assert update.contribution.num_samples == expected.contribution.num_samples
            assert (update.run_id, update.round, update.phase) == (task.run_id, number, result.record.phase)
        assert kept.inputs.norms == (results[number - 1].state if number else START).norms


class OneUnfit:
    """Weighs all alike, finds client 1 unfit, and has looked at three examples."""

    def weigh(self, task, updates):
        ids = [update.client_id for update in updates]
        good = len(ids) - (1 in ids)
        unfit = tuple(index for index, client in enumerate(ids) if client == 1)
        return Weighing((1 / good,) * good, (0.0,) * good, unfit=unfit, examples=(2, 3, 5))


def test_an_update_that_was_excluded_later_is_kept_too_and_so_are_the_examples(tmp_path):
    conduct(tmp_path, dataclasses.replace(federation(), rule=OneUnfit()))
    kept = kept_round(LogPaths(tmp_path / "logs"), 0)
    assert [update.client_id for update in kept.updates()] == [0, 2, 3]
    assert [update.client_id for update in kept.arrived()] == [0, 1, 2, 3]
    assert kept.arrived()[1].adapter.load().tensors
    assert kept.examples == (2, 3, 5)


def test_kept_files_are_their_owners_alone(tmp_path):
    before = os.umask(0o022)
    try:
        conduct(tmp_path, federation(aggregation=aggregation("fedadam")))
    finally:
        os.umask(before)
    kept = LogPaths(tmp_path / "logs").kept
    modes = {stat.S_IMODE(path.stat().st_mode) for path in kept.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (kept, *kept.glob("round_*"))} == {0o700}


# --- SCAFFOLD


def scaffold_run(root, how="in_process"):
    """Two of four clients a round, so most c_i are older than the last round."""
    fed = federation(rounds=3, aggregation=aggregation("scaffold"), per_round=2)
    return fed, conduct(root, fed, how=how)


@pytest.mark.parametrize("how", ["in_process", "exchange"])
def test_clients_that_get_a_kept_task_train_as_they_did(tmp_path, how):
    _, results = scaffold_run(tmp_path, how)
    for number, result in enumerate(results):
        kept = kept_round(LogPaths(tmp_path / "logs"), number)
        assert {client: one.share for client, one in kept.controls.items()} == {
            client: one.share for client, one in result.inputs.controls.items()
        }
        for update in kept.arrived():
            again = ToyLearner().fit(kept.task, shard(update.client_id), lambda status: None)
            assert again.adapter.to_bytes() == update.adapter.load().to_bytes()
            assert again.control.to_bytes() == update.control.load().to_bytes()


def test_a_federation_that_goes_on_from_a_kept_round_ends_as_it_did(tmp_path):
    fed, results = scaffold_run(tmp_path)
    for number in range(len(results)):
        kept = kept_round(LogPaths(tmp_path / "logs"), number)
        state = FederationState(number, kept.adapter, kept.reference, kept.server, kept.controls, kept.inputs.norms)
        *_, last = fed.run(state, InProcessTransport(ToyLearner(), shard))
        assert last.state.adapter.to_bytes() == results[-1].state.adapter.to_bytes()


def test_a_control_variate_of_a_round_that_is_gone_is_one_line_where_it_is_needed(tmp_path):
    _, results = scaffold_run(tmp_path)
    logs = LogPaths(tmp_path / "logs")
    held = next(n for n in range(3) if results[n].inputs.controls)
    shutil.rmtree(logs.kept_round(0).root)
    shutil.rmtree(logs.controls)
    kept = kept_round(logs, held)
    assert again(kept, aggregation("scaffold")).sha256 == kept.record.adapter_sha256
    with pytest.raises(FederationError, match=rf"control variate of before round {held + 1} is in no kept") as error:
        kept.task.corrections.of(0)
    assert "KEEP_UPDATES_MB" in error.value.hint


def test_other_rules_have_no_corrections(tmp_path):
    conduct(tmp_path)
    kept = kept_round(LogPaths(tmp_path / "logs"), 1)
    assert (kept.task.corrections, kept.inputs.controls, kept.controls) == (None, None, {})


# --- how much is kept


def length_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_megabytes(tmp_path, monkeypatch):
    """So that a round of toys takes a bit less than one."""
    conduct(tmp_path / "measured")
    lengths = [length_of(path) for path in LogPaths(tmp_path / "measured" / "logs").kept.iterdir()]
    monkeypatch.setattr(keeper_module, "MB", max(lengths) + 100)


def test_whole_rounds_go_the_oldest_first(tmp_path, small_megabytes):
    conduct(tmp_path, keep_updates_mb=2)
    logs = LogPaths(tmp_path / "logs")
    assert kept_rounds(logs) == (2, 3)
    assert length_of(logs.kept) <= 2 * keeper_module.MB
    with pytest.raises(FederationError, match=r"the updates of round 1 are not in .*: kept are rounds 3, 4") as error:
        kept_round(logs, 0)
    assert "KEEP_UPDATES_MB" in error.value.hint


def test_rounds_of_earlier_runs_count_and_go_first(tmp_path, small_megabytes):
    conduct(tmp_path, keep_updates_mb=6)
    first = RunFolder.at(tmp_path / "logs").info().run_id
    conduct(tmp_path, keep_updates_mb=6)
    logs = LogPaths(tmp_path / "logs")
    assert kept_rounds(logs) == (0, 1, 2, 3)
    assert kept_rounds(LogPaths(logs.archive / first)) == (2, 3)
    assert again(kept_round(LogPaths(logs.archive / first), 3), aggregation("fedavg")).tensors


def test_a_round_that_is_larger_than_the_bound_is_not_kept_and_said_once(tmp_path, monkeypatch):
    heard = Lines()
    monkeypatch.setattr(keeper_module, "MB", 100)
    results = conduct(tmp_path, listener=heard, keep_updates_mb=1)
    assert ["are not kept: they take" in line for line in heard.lines] == [False, True]
    assert kept_rounds(LogPaths(tmp_path / "logs")) == ()
    assert len(results) == ROUNDS


def test_nothing_is_kept_where_that_is_asked_for_and_hashes_are_recorded_nevertheless(tmp_path):
    heard = Lines()
    conduct(tmp_path, listener=heard, keep_updates_mb=0)
    logs = LogPaths(tmp_path / "logs")
    assert not logs.kept.exists()
    assert heard.lines == ["KEEP_UPDATES_MB=0: no update is kept, so no round of this run can be computed again later."]
    records = read_records(logs.progress, RoundRecord, lambda row: row.get("event") == "round")
    assert [len(record.arrived) for record in records] == [CLIENTS] * ROUNDS
    with pytest.raises(FederationError, match="no round is kept there"):
        kept_round(logs, 0)


def test_the_start_says_once_what_is_kept_and_where(tmp_path):
    heard = Lines()
    conduct(tmp_path, listener=heard)
    assert heard.lines == [
        f"Updates are kept in {tmp_path}/logs/kept/, so that rounds can be computed again later "
        "(KEEP_UPDATES_MB=2000: room for all 4 rounds)."
    ]


# --- trouble


def test_a_full_disk_keeps_nothing_says_so_once_and_the_run_goes_on(tmp_path, monkeypatch):
    heard, write = Lines(), keeper_module.write_bytes

    def full(path, content, mode):
        if path.name == "round.json":
            raise keeper_module.StorageError(f"cannot write {path}: the disk is full")
        write(path, content, mode)

    monkeypatch.setattr(keeper_module, "write_bytes", full)
    results = conduct(tmp_path, listener=heard)
    logs = LogPaths(tmp_path / "logs")
    assert ["the disk is full" in line for line in heard.lines] == [False, True]
    assert list(logs.kept.iterdir()) == []
    monkeypatch.undo()
    assert results[-1].state.adapter.to_bytes() == conduct(tmp_path / "whole")[-1].state.adapter.to_bytes()


def test_a_disk_that_refuses_an_update_is_the_same(tmp_path, monkeypatch):
    heard, real = Lines(), os.fsync

    def fsync(descriptor):
        if "kept" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert len(conduct(tmp_path, listener=heard)) == ROUNDS
    assert "are not kept: cannot write" in heard.lines[1]
    assert "the disk is full" in heard.lines[1]
    assert list(LogPaths(tmp_path / "logs").kept.iterdir()) == []


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path):
    heard, logs = Lines(), LogPaths(tmp_path / "logs")
    run = Run(federation(), RunFolder.at(logs.root), lambda: START.adapter, listener=heard)
    transport = InProcessTransport(ToyLearner(), shard)
    for result in run.rounds(transport):
        if result.record.round == 0:
            shutil.rmtree(logs.kept)
            (tmp_path / "elsewhere").mkdir()
            logs.kept.symlink_to(tmp_path / "elsewhere")
    assert "it is a link or a file" in heard.lines[1]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_round_that_was_kept_but_not_committed_is_swept_when_the_run_goes_on(tmp_path):
    folder = RunFolder.at(tmp_path / "logs")
    run, transport = Run(federation(), folder, lambda: START.adapter), InProcessTransport(ToyLearner(), shard)
    list(islice(run.rounds(transport), 2))
    shutil.copytree(folder.paths.kept_round(1).root, folder.paths.kept_round(2).root)
    (folder.paths.kept / ".round_0.0123456789abcdef.tmp").mkdir()
    rounds = Run(federation(), folder, lambda: START.adapter).rounds(transport, resume=True)
    assert next(rounds).record.round == 2
    assert sorted(path.name for path in folder.paths.kept.iterdir()) == ["round_0", "round_1", "round_2"]
    assert again(kept_round(folder.paths, 2), aggregation("fedavg")).tensors


@pytest.mark.parametrize("what", ["update", "adapter", "server_state", "round.json", "global_sft"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_kept_file_that_is_damaged_or_gone_is_one_line(tmp_path, what, how):
    rule = aggregation("fedadam")
    conduct(tmp_path, federation(aggregation=rule))
    logs = LogPaths(tmp_path / "logs")
    path = next(logs.kept_round(3).root.glob(f"{what}*")) if what != "global_sft" else logs.global_sft
    if how == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(FcclError) as error:
        read_all(logs, rule)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_a_kept_round_of_another_record_is_refused(tmp_path):
    conduct(tmp_path)
    logs = LogPaths(tmp_path / "logs")
    rows = logs.progress.read_text().replace(RunFolder.at(logs.root).info().run_id, "another")
    write_text(logs.progress, rows)
    with pytest.raises(FederationError, match=r"round\.json is damaged, or not of the round that"):
        kept_round(logs, 0)


def test_a_folder_without_kept_rounds_has_none(tmp_path):
    assert kept_rounds(LogPaths(tmp_path / "none")) == ()
    assert Keeper(LogPaths(tmp_path / "none")).most_mb * MB == 2_000_000_000


@pytest.mark.parametrize(("most_mb", "room"), [(1, "about the last 1 of 4"), (4, "all 4")])
def test_the_promise_counts_the_updates_and_the_adapter_of_each_round(tmp_path, monkeypatch, most_mb, room):
    monkeypatch.setattr(keeper_module, "MB", len(START.adapter.to_bytes()) * (CLIENTS + 1))
    said = Keeper(LogPaths(tmp_path), most_mb).promise(START.adapter, federation().plan)
    assert said.endswith(f"(KEEP_UPDATES_MB={most_mb}: room for {room} rounds).")
