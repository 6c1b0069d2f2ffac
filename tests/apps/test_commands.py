"""Each command takes the settings that it reads, and no other: against what is made of the settings."""

import pytest

from fccl.apps.commands import COMMANDS
from fccl.apps.main import main
from fccl.config import Settings, group_of, load_settings
from fccl.library import client, orchestrator
from fccl.library.ignored import QUALIFIES
from fccl.library.narrow import data_spec
from fccl.presets import BETWEEN_PROCESSES, GROUPS

PREPARED = ("run", "data", "federation")
# A valid value of each that is not its default.
OTHER = {
    "sft_data": "a.jsonl",
    "va_data": "b.jsonl",
    "max_sft_examples": 7,
    "max_va_examples": 7,
    "test_examples": 7,
    "learn_examples": 7,
    "validation_examples": 7,
    "non_iid_alpha": 7.0,
    "size_skew": 7.0,
    "topic_column": "topic",
    "num_topics": 7,
    "skip_bad_rows": True,
    "client_column": "hospital",
    "min_client_examples": 7,
    "small_clients": "drop",
    "anonymize_clients": True,
    "client_test_share": 0.2,
    "server_only": True,
    "own_data_clients": 1,
    "noisy_clients": "1",
    "noise_kind": "flipped",
    "seed": 7,
    "threads": 7,
    "evaluate": False,
    "track": "mlflow",
    "num_clients": 7,
    "clients_per_round": 2,
    "min_clients": 2,
    "max_update_ratio": 7.0,
    "keep_updates_mb": 7,
    "fed_rounds": 7,
    "sft_rounds": 7,
    "va_rounds": 7,
    "patience": 7,
    "result_round": "best",
    "late_updates": "next",
    "update_codec": "topk",
    "topk_share": 0.7,
    "open": True,
    "exchange_watch": "poll",
    "client_timeout_s": 7.0,
    "heartbeat_stale_s": 7.0,
    "round_retries": 7,
    "keep_rounds": 7,
    "original_clients": "2",
    "client_id": 1,
    "heartbeat_s": 7.0,
    "cache_mb": 7,
    "min_shard": 7,
}


def names_in(*groups):
    return {name for name, field in Settings.model_fields.items() if group_of(field) in groups}


def taken(command, *groups):
    return {
        name
        for name, field in Settings.model_fields.items()
        if group_of(field) in groups and COMMANDS[command].reads(name, group_of(field))
    }


def told(narrowed, names):
    """Those of the settings that change what is made of all of them, each with the setting that it qualifies."""
    found = set()
    for name in names & OTHER.keys():
        first = QUALIFIES[name][0] if name in QUALIFIES else ""
        qualified = {first: OTHER[first]} if first else {}
        if narrowed(load_settings({**qualified, name: OTHER[name]})) != narrowed(load_settings(qualified)):
            found.add(name)
    return found


def test_prepare_takes_what_changes_the_data():
    assert names_in(*PREPARED) - {"preset"} <= OTHER.keys()
    assert taken("prepare", *PREPARED) == told(data_spec, names_in(*PREPARED)) | {"preset"}


def test_an_orchestrator_takes_what_changes_its_side_of_the_exchange():
    assert names_in(*BETWEEN_PROCESSES) - {*orchestrator.FOLDERS, *client.FOLDERS} <= OTHER.keys()
    read = told(Settings.exchange_spec, names_in(*BETWEEN_PROCESSES))
    assert taken("orchestrator", *BETWEEN_PROCESSES) == read | {"exchange_dir", "keys_dir"}


def test_between_them_orchestrator_and_client_take_every_setting_of_the_exchange():
    both = taken("orchestrator", *BETWEEN_PROCESSES) & taken("client", *BETWEEN_PROCESSES)
    assert both == names_in("exchange")
    every = taken("orchestrator", *BETWEEN_PROCESSES) | taken("client", *BETWEEN_PROCESSES)
    assert every == names_in(*BETWEEN_PROCESSES)
    assert taken("run", *BETWEEN_PROCESSES) == taken("compare", *BETWEEN_PROCESSES) == set()
    privacy = {"dp_where", "dp_unit", "dp_clip", "dp_noise", "dp_epsilon", "dp_delta"}
    own = {"data_dir", "secure_aggregation", "secure_threshold"} | privacy
    assert taken("client", *GROUPS) - names_in(*BETWEEN_PROCESSES) == own


@pytest.mark.parametrize(
    ("command", "setting", "readers"),
    [
        ("orchestrator", "client_id", "fccl client"),
        ("orchestrator", "heartbeat_s", "fccl client"),
        ("orchestrator", "state_dir", "fccl client, fccl privacy"),
        ("orchestrator", "cache_mb", "fccl client"),
        ("client", "client_timeout_s", "fccl orchestrator, fccl flower"),
        ("client", "original_clients", "fccl orchestrator"),
        ("run", "exchange_dir", "fccl orchestrator, fccl client, fccl flower"),
        ("run", "keys_dir", "fccl orchestrator, fccl client, fccl flower, fccl keys, fccl verify"),
        ("prepare", "threads", "fccl plan, fccl run, fccl orchestrator, fccl flower, fccl compare, fccl audit"),
        ("prepare", "fed_rounds", "fccl plan, fccl run, fccl orchestrator, fccl flower, fccl compare, fccl audit"),
    ],
)
def test_an_argument_that_a_command_does_not_read_is_one_line_that_says_who_does(
    command, setting, readers, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flag = "--" + setting.replace("_", "-")
    assert main([command, flag, str(OTHER.get(setting, "elsewhere"))]) == 2
    said = f"error: fccl {command} does not read {flag}\n  hint: leave it out; it is read by {readers}\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "variable"), [("prepare", "FED_ROUNDS"), ("orchestrator", "CLIENT_ID"), ("run", "KEEP_ROUNDS")]
)
def test_an_environment_is_shared_by_commands_and_refuses_none(command, variable, tmp_path, monkeypatch, capsys):
    """The settings are accepted; the command ends at another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "1")
    assert main([command, "--data-dir", "same", "--log-dir", "same"]) == 2
    assert "DATA_DIR=same and LOG_DIR=same are the same folder" in capsys.readouterr().err


def test_prepare_refuses_a_kind_of_noise_where_no_client_is_noisy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "--noise-kind", "flipped"]) == 2
    assert capsys.readouterr().err == (
        "error: --noise-kind has no effect without NOISY_CLIENTS\n"
        "  hint: leave it out; it is read under NOISY_CLIENTS that is not empty\n"
    )
    assert list(tmp_path.iterdir()) == []
