import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.apps.commands import COMMANDS
from fccl.apps.main import main
from fccl.config import GROUPS, Settings, allowed, group_of, load_settings
from fccl.errors import SettingsError
from fccl.library.given import WholeClientArguments, WholeOrchestratorArguments
from fccl.library.ignored import read_by
from fccl.presets import FEW, PRESETS, USUAL

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_argument_over_environment_over_dotenv_over_preset_over_default(empty_folder, monkeypatch):
    assert load_settings().max_length == Settings.model_fields["max_length"].default
    monkeypatch.setenv("PRESET", "gpt2")
    assert load_settings().max_length == PRESETS["gpt2"]["max_length"] != Settings.model_fields["max_length"].default
    (empty_folder / ".env").write_text("MAX_LENGTH=101\nUNRELATED=1\n")
    assert load_settings().max_length == 101
    monkeypatch.setenv("MAX_LENGTH", "102")
    assert load_settings().max_length == 102
    assert load_settings({"max_length": "103"}).max_length == 103


def test_the_preset_itself_may_stand_in_dotenv(empty_folder):
    (empty_folder / ".env").write_text("PRESET=gpt2\n")
    assert load_settings().model_name == "gpt2"
    assert load_settings({"preset": "quickstart"}).model_name == "builtin:micro"


def test_any_model_but_the_built_in_one_takes_the_pretrained_preset_where_none_is_named(empty_folder, monkeypatch):
    quickstart = load_settings()
    assert (quickstart.preset, quickstart.sft_lr) == ("quickstart", Settings.model_fields["sft_lr"].default)
    assert "preset" not in quickstart.model_fields_set
    own = load_settings({"model_name": "./smollm2"})
    assert own.preset == "pretrained"
    assert {name: getattr(own, name) for name in PRESETS["pretrained"]} == PRESETS["pretrained"]
    (empty_folder / ".env").write_text("MODEL_NAME=./smollm2\nSFT_LR=0.001\n")
    monkeypatch.setenv("VA_LR", "0.0001")
    mixed = load_settings({"dpo_beta": "0.3"})
    assert (mixed.preset, mixed.sft_lr, mixed.va_lr, mixed.dpo_beta) == ("pretrained", 0.001, 0.0001, 0.3)
    assert load_settings({"preset": "quickstart"}).va_lr == 0.0001
    monkeypatch.setenv("MODEL_NAME", "builtin:micro\r")
    assert load_settings().preset == "quickstart", "with the line end of Windows too"


def test_a_preset_that_is_named_is_taken_whatever_the_model(empty_folder):
    named = load_settings({"preset": "quickstart", "model_name": "./smollm2"})
    assert (named.preset, named.sft_lr) == ("quickstart", Settings.model_fields["sft_lr"].default)
    assert load_settings({"preset": "gpt2", "model_name": "./smollm2"}).sft_lr == PRESETS["gpt2"]["sft_lr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fed_rounds": "0"}, "FED_ROUNDS=0: allowed is a whole number >= 1"),
        ({"lora_r": "many"}, "LORA_R=many: allowed is a whole number >= 1 and <= 1,024"),
        ({"max_length": "7"}, "MAX_LENGTH=7: must be a whole number >= 8, or 0"),
        ({"sft_lr": "2"}, "SFT_LR=2: allowed is a number > 0 and <= 1"),
        ({"sft_lr": "nan"}, "SFT_LR=nan: allowed is a number > 0 and <= 1"),
        ({"preset": "big"}, "PRESET=big: allowed is one of quickstart, pretrained, gpt2"),
        ({"sft_data": ""}, r"SFT_DATA=: allowed is text \(not empty\)"),
        ({"noisy_clients": "one"}, "NOISY_CLIENTS=one: must be client numbers"),
        ({"client_lora_r": "8,,2"}, "CLIENT_LORA_R=8,,2: must be ranks with commas between"),
        ({"client_lora_r": "0"}, "CLIENT_LORA_R=0: must be ranks"),
        ({"noisy_clients": "\N{SUPERSCRIPT TWO}"}, "NOISY_CLIENTS=.: must be client numbers"),
        ({"noisy_clients": "1" * 5000}, r"NOISY_CLIENTS=1{200}\.\.\.: must be client numbers"),
        ({"client_lora_r": "\N{SUPERSCRIPT TWO}"}, "CLIENT_LORA_R=.: must be ranks"),
        ({"client_lora_r": "8,\N{ARABIC-INDIC DIGIT TWO}"}, "CLIENT_LORA_R=8,.: must be ranks"),
        ({"client_lora_r": "9" * 5000}, r"CLIENT_LORA_R=9{200}\.\.\.: must be ranks"),
        ({"lora_targets": ", "}, "LORA_TARGETS=, : names nothing; must be auto, all-linear, or module names"),
        ({"lora_layers": "0"}, "LORA_LAYERS=0: must be all, or a whole number >= 1"),
        ({"lora_layers": "some"}, "LORA_LAYERS=some: must be all"),
        ({"lora_layers": ""}, "LORA_LAYERS=: must be all"),
        ({"lora_layers": "\N{SUPERSCRIPT TWO}"}, "LORA_LAYERS=.: must be all"),
        ({"threads": "1025"}, "THREADS=1025: allowed is a whole number >= 0 and <= 1,024"),
        (
            {"bootstrap_samples": "1" + 12 * "0"},
            "BOOTSTRAP_SAMPLES=.*: allowed is a whole number >= 100 and <= 1,000,000",
        ),
        ({"heartbeat_s": "1e10"}, "HEARTBEAT_S=1e10: allowed is a number >= 0.1 and <= 86,400"),
        ({"sft_data": "x" * 5000}, r"SFT_DATA=x{200}\.\.\.: is no path that can be used"),
        ({"log_dir": "logs/" + "x" * 256}, "LOG_DIR=.*: is no path that can be used"),
        ({"log_dir": ""}, "LOG_DIR=: names no folder; for the one where you are, write [.]"),
        ({"data_dir": "  "}, "DATA_DIR=  : names no folder"),
        ({"exchange_dir": "\t"}, "EXCHANGE_DIR=.*: names no folder"),
        ({"state_dir": ""}, "STATE_DIR=: names no folder"),
        ({"log_dir": "\r"}, "LOG_DIR=.*: names no folder"),
        ({"model_name": "a\0b"}, "MODEL_NAME=.*: is no path that can be used"),
        ({"evaluate": "perhaps"}, "EVALUATE=perhaps: allowed is true or false"),
        ({"contribution_temperature": "inf"}, "CONTRIBUTION_TEMPERATURE=inf"),
    ],
)
def test_a_value_out_of_range_says_which_what_and_what_is_allowed(arguments, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("said", "layers"), [("all", None), ("4", 4), (4, 4), (" 2 ", 2)])
def test_layers_that_carry_lora_are_all_or_a_number(said, layers):
    assert load_settings({"lora_layers": said}).model_spec().lora_layers == layers


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(SettingsError, match="unknown setting FED_ROUND") as caught:
        load_settings({"fed_round": "2"})
    assert caught.value.hint == "did you mean FED_ROUNDS?"


def test_a_misspelt_name_in_dotenv_is_refused_a_foreign_one_is_not(empty_folder):
    (empty_folder / ".env").write_text("NUM_CLIENT=4\n")
    with pytest.raises(SettingsError, match="unknown setting NUM_CLIENT") as caught:
        load_settings()
    assert caught.value.hint == "did you mean NUM_CLIENTS?"
    (empty_folder / ".env").write_text("POSTGRES_PASSWORD=x\n")
    load_settings()


@pytest.mark.parametrize("size", [2**20 + 1, 2**24, 2**32, 2**36, 2**40])
def test_a_dotenv_of_any_length_takes_no_memory(empty_folder, size):
    (empty_folder / ".env").write_text("NUM_CLIENTS=4\n")
    os.truncate(empty_folder / ".env", size)
    with pytest.raises(SettingsError, match=r"^\.env has [0-9,]+ bytes, at most 1,048,576 are read(\n|$)"):
        load_settings()


def test_a_dotenv_that_is_no_text_is_named(empty_folder):
    (empty_folder / ".env").write_bytes(b"FED_ROUNDS=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8 \(byte 12\)") as caught:
        load_settings()
    assert "save it as UTF-8" in caught.value.hint


def test_client_numbers_that_contradict_each_other():
    with pytest.raises(SettingsError, match=r"CLIENTS_PER_ROUND=5 is more than NUM_CLIENTS=3"):
        load_settings({"clients_per_round": "5"}).round_plan()
    with pytest.raises(SettingsError, match=r"MIN_CLIENTS=9 is more than the 3 clients of a round"):
        load_settings({"min_clients": "9"}).round_plan()


def test_infinite_alpha_is_iid():
    assert load_settings({"non_iid_alpha": "inf"}).partition_spec().alpha is None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_name_real_settings(preset):
    assert set(PRESETS[preset]) <= set(Settings.model_fields)
    settings = load_settings({"preset": preset})
    (
        settings.round_plan(),
        settings.model_spec(),
        settings.partition_spec(),
        settings.train_spec("sft"),
        settings.train_spec("va"),
    )


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_in_a_group(name):
    field = Settings.model_fields[name]
    assert group_of(field) in GROUPS
    assert field.description
    assert allowed(field) != "a value"


@given(st.sampled_from(sorted(Settings.model_fields)))
def test_recorded_settings_load_again_as_they_were(name):
    settings = load_settings({"preset": "gpt2", "non_iid_alpha": "inf", "noisy_clients": "0,2"})
    again = load_settings({key: str(value) for key, value in settings.model_dump().items()})
    assert getattr(again, name) == getattr(settings, name)


def read(setting):
    """The commands that take a setting, in words."""
    group = group_of(Settings.model_fields[setting])
    return ", ".join(f"fccl {name}" for name, command in COMMANDS.items() if command.reads(setting, group))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--fed-round", "2"], "error: unknown argument --fed-round\n  hint: did you mean --fed-rounds?\n"),
        (["run", "--fed-rounds", "-1"], "error: FED_ROUNDS=-1: allowed is a whole number >= 1\n"),
        (
            ["run", "--fed-rounds"],
            "error: argument --fed-rounds: expected one argument\n  hint: `fccl run --help-all` lists the arguments\n",
        ),
        (["prepar"], "error: unknown command prepar\n  hint: did you mean `fccl prepare`?\n"),
        (
            ["client", "--keep-rounds", "2"],
            "error: fccl client does not read --keep-rounds\n"
            f"  hint: leave it out; it is read by {read('keep_rounds')}\n",
        ),
        (
            ["keys", "--no-skip-bad-rows"],
            "error: fccl keys does not read --no-skip-bad-rows\n"
            f"  hint: leave it out; it is read by {read('skip_bad_rows')}\n",
        ),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(arguments, line, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", line)


def test_a_wrong_argument_ends_the_process_with_one_line_and_2():
    command = [sys.executable, "-m", "fccl", "run", "--fed-round", "2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    line = "error: unknown argument --fed-round\n  hint: did you mean --fed-rounds?\n"
    assert (result.returncode, result.stderr, result.stdout) == (2, line, "")


def help_of(command, capsys, flag="--help-all"):
    with pytest.raises(SystemExit) as ended:
        main([command, flag])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_explains_every_setting_of_a_command_with_range_and_default(command, capsys):
    text = help_of(command, capsys)
    for name, field in Settings.model_fields.items():
        if COMMANDS[command].reads(name, group_of(field)):
            assert "--" + name.replace("_", "-") in text
            assert f"[{allowed(field)}; default" in text
            assert f"read under {read_by(name)}]" in text or not read_by(name)
    for group in COMMANDS[command].groups:
        assert f" {group}: " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_settings_that_people_change_by_group_and_the_way_to_the_others(command, capsys):
    text, reads = help_of(command, capsys, "--help"), COMMANDS[command].reads
    mine = {name: group_of(field) for name, field in Settings.model_fields.items() if reads(name, group_of(field))}
    shown = {name for name in mine if len(mine) <= FEW or name in USUAL}
    for name, group in mine.items():
        assert (f"--{name.replace('_', '-')} X" in text or f"--no-{name.replace('_', '-')}" in text) == (name in shown)
        assert f" {group}: " in text or not any(mine[each] == group for each in shown)
    if hidden := len(mine) - len(shown):
        assert f"`fccl {command} --help-all` explains the other {hidden} settings" in text
    assert len(shown) <= 15


def test_every_group_belongs_to_a_command():
    assert {group for command in COMMANDS.values() for group in command.groups} == set(GROUPS)


@pytest.mark.parametrize(
    ("command", "kind"), [("client", WholeClientArguments), ("orchestrator", WholeOrchestratorArguments)]
)
def test_a_command_and_its_class_take_the_same_settings(command, kind):
    read = {name for name, field in Settings.model_fields.items() if COMMANDS[command].reads(name, group_of(field))}
    own = {flag.removeprefix("--").replace("-", "_") for flag, _ in COMMANDS[command].options}
    refused = set(COMMANDS[command].refuses)  # where the class says why, too
    assert set(kind.__annotations__) == read | refused | own & set(Settings.model_fields)
