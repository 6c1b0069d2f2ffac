"""Checks of a finished run: a sound one passes, and a byte that was changed anywhere is found."""

import dataclasses
import json
import os
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.aggregation.rules import aggregation
from fccl.contribution.reported import ContributionRule
from fccl.federation.kept_rounds import kept_round
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.seal import seal_run, sealed_files
from fccl.federation.verify import Claims, RunChecker, files_of
from fccl.keys import create_keys, read_public, server_keys
from fccl.paths import ExchangePaths, KeyPaths, LogPaths
from fccl.records.seal import Seal
from fccl.storage.files import write_text
from fccl.storage.reading import read_value
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, federation
from fccl.transports.exchange.server import ExchangeTransport
from tests.examples import few
from tests.federation.toy_runs import ROUNDS, conduct
from tests.transports.exchange.test_server_contract import client_threads

SETTINGS = {"seed": "7", "sft_lr": "0.1"}
KEYS = 3


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    paths = KeyPaths(tmp_path_factory.mktemp("keys") / "keys")
    create_keys(paths, KEYS)
    return server_keys(paths), read_public(paths), paths


@pytest.fixture(scope="module")
def sound(tmp_path_factory, keys):
    """A finished run that the server has signed."""
    logs, _ = conduct(tmp_path_factory.mktemp("run"), settings=SETTINGS, sign=keys[0].sign)
    return logs


def claims(**changes):
    said = {
        "plan": federation().plan,
        "model": MODEL,
        "train": {"sft": TRAIN, "va": TRAIN},
        "aggregation": aggregation("fedavg"),
        "weights": ContributionRule(),
    }
    return Claims(**{**said, **changes})


def check(logs, public=None, **changes):
    info = RunFolder.at(logs.root).info()
    return RunChecker(logs, info, claims(**changes), public).check()


def outcomes(found):
    return {finding.name: finding.outcome for finding in found.findings}


def copied(sound, tmp_path):
    shutil.copytree(sound.root, tmp_path / "logs")
    return LogPaths(tmp_path / "logs")


def test_a_sound_run_passes_every_check(sound, keys):
    found = check(sound, keys[1])
    assert found.sound
    rounds = {f"round {number + 1}": "ok" for number in range(ROUNDS)}
    said = dict.fromkeys(("record", "seal", "signature", "adapters", "settings", "weights"), "ok")
    assert outcomes(found) == {**said, **rounds, "manifest": "not checked", "PEFT": "not checked"}


@pytest.mark.parametrize("instead", [None, "signature", "pipe"])
def test_whoever_names_keys_is_told_of_a_seal_or_a_signature_that_is_gone(sound, tmp_path, keys, instead):
    logs = copied(sound, tmp_path)
    if instead == "signature":
        seal = read_value(logs.seal, Seal)
        logs.seal.write_bytes(seal.model_copy(update={"signature": ""}).written())
    else:
        logs.seal.unlink()
    if instead == "pipe":
        os.mkfifo(logs.seal)
    assert not check(logs, keys[1]).sound
    assert check(logs).sound == (instead != "pipe"), "without keys there may be none"


def test_a_check_writes_nothing_into_the_run(sound, keys):
    before = {path: path.stat().st_mtime_ns for path in sound.root.rglob("*")}
    check(sound, keys[1])
    assert {path: path.stat().st_mtime_ns for path in sound.root.rglob("*")} == before


def all_files(logs):
    kept = (path for number in range(ROUNDS) for path in logs.kept_round(number).root.iterdir())
    return sorted({*sealed_files(logs), *kept, logs.seal})


@given(place=st.integers(0, 10**9), at=st.integers(0, 10**9), to=st.integers(1, 255))
@settings(max_examples=few(300))
def test_a_byte_that_was_changed_anywhere_is_found(sound, place, at, to):
    """Updates, adapters, record, seal, settings, kept rounds: whichever file, wherever in it, to whatever."""
    files = all_files(sound)
    path = files[place % len(files)]
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[at % len(whole)] ^= to
    try:
        path.write_bytes(changed)
        info = RunFolder.at(sound.root).info()
        if info is None:  # run.json is no record any more: the command says so before it checks
            assert path == sound.run
        else:
            assert not check(sound).sound, (path, at % len(whole))
    finally:
        path.write_bytes(whole)


def test_a_file_that_was_cut_or_added_to_is_found(sound, tmp_path):
    logs = copied(sound, tmp_path)
    for path in all_files(logs):
        whole = path.read_bytes()
        for content in (whole[:-1], whole + b"x"):
            if path in (logs.progress, logs.client_metrics) and len(content) > len(whole):
                continue  # logs may grow
            path.write_bytes(content)
            info = RunFolder.at(logs.root).info()
            assert info is None or not check(logs).sound, path
        path.write_bytes(whole)


def sealed_again(logs):
    """As somebody without the server's key would cover up a change."""
    *_, last = logs.progress.read_text().splitlines()
    whole = logs.progress.read_text()
    write_text(logs.progress, whole.removesuffix(last + "\n"))
    seal_run(logs, read_value(logs.seal, Seal).run_id, last)
    write_text(logs.progress, whole)


def test_whoever_seals_a_changed_run_again_lacks_the_servers_signature(sound, tmp_path, keys):
    logs = copied(sound, tmp_path)
    sealed_again(logs)
    assert outcomes(check(logs, keys[1]))["signature"] == "failed", "there is none, and there should be one"
    seal = read_value(logs.seal, Seal).model_copy(update={"signature": read_value(sound.seal, Seal).signature})
    logs.seal.write_bytes(seal.model_copy(update={"files": {**seal.files, "x": seal.files["run.json"]}}).written())
    assert outcomes(check(logs, keys[1]))["signature"] == "failed"


def rewritten(logs, change):
    """Every round's line of the record, changed and sealed again."""
    lines = [json.loads(line) for line in logs.progress.read_text().splitlines()]
    text = "".join(json.dumps(change(line) if line["event"] == "round" else line) + "\n" for line in lines)
    write_text(logs.progress, text)
    sealed_again(logs)


def test_weights_that_were_changed_and_sealed_again_do_not_give_the_adapters(sound, tmp_path):
    logs = copied(sound, tmp_path)
    rewritten(logs, lambda line: {**line, "weights": [0.1, 0.2, 0.3, 0.4]})
    found = outcomes(check(logs))
    assert {found[f"round {number + 1}"] for number in range(ROUNDS)} == {"failed"}
    assert (found["weights"], found["seal"]) == ("failed", "ok")


def test_another_final_adapter_sealed_again_is_no_rounds(sound, tmp_path):
    logs = copied(sound, tmp_path)
    shutil.copyfile(logs.kept_round(1).adapter, logs.global_final)
    sealed_again(logs)
    assert outcomes(check(logs))["adapters"] == "failed"


def test_an_update_of_a_round_in_the_place_of_another_is_found_without_any_seal(sound, tmp_path):
    logs = copied(sound, tmp_path)
    first, second = (next(files_of(kept_round(logs, number))) for number in (0, 1))
    shutil.copyfile(first, second)
    logs.seal.unlink()
    found = outcomes(check(logs))
    assert (found["round 2"], found["seal"]) == ("failed", "not checked")


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"sft": TRAIN.model_copy(update={"learning_rate": 0.2}), "va": TRAIN}},
        {"model": MODEL.model_copy(update={"lora_alpha": 2.0})},
        {"plan": federation().plan.model_copy(update={"seed": 8})},
        {"aggregation": aggregation("median")},
    ],
)
def test_settings_that_are_not_those_of_the_rounds_are_found(sound, changes):
    assert outcomes(check(sound, **changes))["settings"] == "failed"


def test_rounds_that_are_no_longer_kept_are_named_and_not_called_wrong(sound, tmp_path):
    logs = copied(sound, tmp_path)
    shutil.rmtree(logs.kept_round(0).root)
    found = check(logs)
    assert found.sound
    assert outcomes(found)["round 1"] == "not checked"


def test_files_that_forget_removed_are_not_counted_among_those_that_are_as_they_were(sound, tmp_path):
    logs = copied(sound, tmp_path)
    kept = next(path for path in all_files(logs) if "update_" in path.name)
    sealed = [logs.root / name for name in read_value(logs.seal, Seal).files]
    gone = [kept, next(path for path in sealed if path.parent.name == "clients")]
    for path in gone:
        path.unlink()
    names = frozenset(path.relative_to(logs.root).as_posix() for path in gone)
    info = RunFolder.at(logs.root).info()
    found = {each.name: each for each in RunChecker(logs, info, claims(weights=None), forgotten=names).check().findings}
    assert found["seal"].outcome == "ok"
    assert found["seal"].detail == (
        f"{len(sealed) - 1} files are as when the run was finished; 2 were removed by `fccl forget`"
    )
    assert "not all updates that they weigh are here" in found["weights"].detail
    whole = {each.name: each for each in check(sound, weights=None).findings}
    assert "`fccl replay` makes them again" in whole["weights"].detail


def test_the_first_round_must_begin_with_what_the_one_before_ended_with(sound, tmp_path):
    logs = copied(sound, tmp_path)
    rewritten(logs, lambda line: {**line, "adapter_sha256": "0" * 64} if line["round"] == 0 else line)
    found = outcomes(check(logs))
    assert (found["round 1"], found["round 2"]) == ("failed", "failed")


def test_a_run_that_is_not_finished_is_said(tmp_path):
    logs, _ = conduct(tmp_path)
    state = json.loads(logs.state.read_text())
    write_text(logs.state, json.dumps({**state, "total_rounds": 9}))
    assert outcomes(check(logs))["record"] == "failed"


def test_a_seal_names_no_file_outside_the_run(sound, tmp_path):
    logs = copied(sound, tmp_path)
    seal = read_value(logs.seal, Seal)
    for name in ("../secret", "/etc/hostname"):
        logs.seal.write_bytes(seal.model_copy(update={"files": {**seal.files, name: seal.files["run.json"]}}).written())
        assert outcomes(check(logs))["seal"] == "failed"


def test_a_grown_record_is_still_sealed(sound, tmp_path):
    logs = copied(sound, tmp_path)
    with logs.progress.open("a") as file:
        file.write(logs.progress.read_text().splitlines()[-1] + "\n")
    assert outcomes(check(logs))["seal"] == "ok"


def test_random_files_are_no_seal(tmp_path):
    logs, _ = conduct(tmp_path)
    logs.seal.write_bytes(random.Random(7).randbytes(500))
    assert outcomes(check(logs))["seal"] == "failed"


# --- signatures of clients


@pytest.fixture(scope="module")
def signed(tmp_path_factory, keys):
    """A finished run over an exchange directory, whose clients and server sign."""
    root, fed = tmp_path_factory.mktemp("signed"), federation(clients=KEYS, rounds=1)
    place = keys[2]
    exchange = ExchangeTransport(
        ExchangePaths(root / "exchange"), exchange_spec(KEYS), root / "logs" / "received", server_keys(place)
    )
    run = Run(fed, RunFolder.at(root / "logs"), lambda: START.adapter, sign=keys[0].sign)
    learners = dict.fromkeys(range(KEYS), ToyLearner())
    with client_threads(root / "exchange", learners, place, grace_s=0.0), exchange:
        list(run.rounds(exchange))
        run.finish(exchange)
    return run.folder.paths


def rounds_said(logs, public):
    plan = federation(clients=KEYS, rounds=1).plan
    return [each for each in check(logs, public, plan=plan).findings if each.name.startswith("round")]


def test_a_round_is_signed_by_its_clients(signed, keys):
    assert {each.outcome for each in rounds_said(signed, keys[1])} == {"ok"}
    assert all(f"signed by its {KEYS} clients" in each.detail for each in rounds_said(signed, keys[1]))
    assert all("--keys-dir" in each.detail for each in rounds_said(signed, None))


def test_the_keys_of_others_have_not_signed_it(signed, keys, tmp_path):
    create_keys(KeyPaths(tmp_path / "others"), KEYS)
    found = rounds_said(signed, read_public(KeyPaths(tmp_path / "others")))
    assert {each.outcome for each in found} == {"failed"}
    assert all("has not signed" in each.detail for each in found)


@pytest.mark.parametrize(
    ("field", "value"), [("avg_loss", 9.0), ("num_samples", 77), ("round", 5), ("client_id", 2), ("run_id", "other")]
)
def test_a_message_that_was_changed_is_not_its_clients(signed, keys, tmp_path, field, value):
    logs = copied(signed, tmp_path)
    path = logs.kept_round(0).inputs
    inputs = json.loads(path.read_text())
    message = json.loads(inputs["updates"][0]["signed"])
    inputs["updates"][0]["signed"] = json.dumps({**message, field: value})
    if field in inputs["updates"][0]["contribution"]:  # so that both agree
        inputs["updates"][0]["contribution"][field] = value
    path.write_text(json.dumps(inputs))
    found = rounds_said(logs, keys[1])
    assert [each.outcome for each in found] == ["failed", "ok"]


def test_a_message_of_another_round_is_not_of_this_update(signed, keys, tmp_path):
    logs = copied(signed, tmp_path)
    first, second = (json.loads(logs.kept_round(number).inputs.read_text()) for number in (0, 1))
    first["updates"][0]["signed"] = second["updates"][0]["signed"]
    logs.kept_round(0).inputs.write_text(json.dumps(first))
    assert rounds_said(logs, keys[1])[0].outcome == "failed"


# --- settings that another run.json could claim


class FarOut(ToyLearner):
    """Client 3 moves two hundred times as far as the others."""

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        if shard.client_id != 3:
            return update
        changed = {name: 200 * tensor + 100 for name, tensor in update.adapter.tensors.items()}
        return dataclasses.replace(update, adapter=Adapter(changed))


@pytest.fixture(scope="module")
def far_out(tmp_path_factory):
    """A finished run whose third client was excluded in every round."""
    logs, results = conduct(tmp_path_factory.mktemp("far"), federation(max_update_ratio=10.0), learner=FarOut())
    assert [result.record.clients for result in results] == [(0, 1, 2)] * ROUNDS
    return logs


def bounded(ratio):
    return {"plan": federation(max_update_ratio=ratio).plan}


@pytest.mark.parametrize(("ratio", "said"), [(0.0, "excludes nobody"), (1e6, "excludes nobody"), (9.0, "another")])
def test_a_bound_that_would_have_excluded_others_is_not_the_round_s(far_out, ratio, said):
    found = check(far_out, **bounded(ratio))
    rounds = [each for each in found.findings if each.name.startswith("round")]
    assert {each.outcome for each in rounds} == {"failed"}
    assert all(said in each.detail for each in rounds)


def test_the_bound_that_the_round_had_is_found_again(far_out):
    found = outcomes(check(far_out, **bounded(10.0)))
    assert {found[f"round {number + 1}"] for number in range(ROUNDS)} == {"ok"}


def test_a_norm_that_is_not_the_update_s_is_found(far_out, tmp_path):
    logs = copied(far_out, tmp_path)
    inputs = json.loads(logs.kept_round(0).inputs.read_text())
    inputs["updates"][3]["change_norm"] = 0.5
    write_text(logs.kept_round(0).inputs, json.dumps(inputs))
    sealed_again(logs)
    found = check(logs, **bounded(10.0))
    assert next(each for each in found.findings if each.name == "round 1").detail.startswith(
        "client 3: its change_norm"
    )
