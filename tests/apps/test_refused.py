"""A command's help lists no setting that the command then refuses."""

import pytest

import fccl
from fccl.apps.arguments import build_parser
from fccl.apps.commands import COMMANDS
from fccl.apps.main import main
from fccl.apps.refused import BY_COMPARE, BY_FLOWER, BY_ORCHESTRATOR
from fccl.compare.methods import DECIDED_HERE
from fccl.config import Settings, group_of
from fccl.errors import SettingsError
from fccl.library.ignored import read_by
from tests.apps.test_commands import OTHER

# What each command ends at when it has accepted the settings: two folders that are one, or a folder without a run.
ENDS = {
    "init": (["--machine", "nowhere"], "nowhere"),
    "plan": (["--data-dir", "same", "--log-dir", "same"], "are the same folder"),
    "flower": (["run", "--superlink", "nowhere"], "the SuperLink at nowhere is on another host"),
    "prepare": (["--data-dir", "same", "--log-dir", "same"], "are the same folder"),
    "run": (["--data-dir", "same", "--log-dir", "same"], "are the same folder"),
    "orchestrator": (["--data-dir", "same", "--log-dir", "same"], "are the same folder"),
    "client": (["--data-dir", "same", "--exchange-dir", "same"], "are the same folder"),
    "compare": (["--log-dir", "same", "--out", "same"], "are the same folder"),
    "audit": (["--data-dir", "same", "--log-dir", "same"], "are the same folder"),
    **{name: (["--log-dir", "none"], "none") for name in ("replay", "verify", "privacy")},
    "forget": (["--client", "0", "--log-dir", "none"], "none"),
    "evaluate": (["--log-dir", "none"], "none"),
    "chat": (["--log-dir", "none"], "none"),
    "export": (["out", "--log-dir", "none"], "none"),
}
TAKES_SETTINGS = [name for name, command in COMMANDS.items() if command.groups and name != "keys"]  # which makes them


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def listed(command):
    """The settings of `--help-all`, without those of which it says that they depend on another."""
    reads, fields = COMMANDS[command].reads, Settings.model_fields
    return [name for name, field in fields.items() if reads(name, group_of(field)) and not read_by(name)]


def arguments(names, beside):
    """Each of these settings as an argument: its default, or a value that is valid where that is empty."""
    for name in names:
        flag, default = "--" + name.replace("_", "-"), Settings.model_fields[name].default
        if flag not in beside:
            value = OTHER[name] if default in ("", None) and name in OTHER else default
            yield from ([flag] if value is True else [f"--no-{flag[2:]}"] if value is False else [flag, str(value)])


@pytest.mark.parametrize("command", TAKES_SETTINGS)
def test_a_command_accepts_every_setting_of_its_help_at_once(command, capsys):
    beside, expected = ENDS[command]
    status = main([command, *beside, *arguments(listed(command), beside)])
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert expected in said, said


@pytest.mark.parametrize(
    ("command", "refused"),
    [("compare", BY_COMPARE), ("orchestrator", BY_ORCHESTRATOR), ("flower", BY_FLOWER)],
    ids=["compare", "orchestrator", "flower"],
)
def test_what_a_command_refuses_is_not_in_its_help_and_its_reason_is_said(command, refused, capsys):
    words = build_parser(command, COMMANDS[command]).format_help().split()
    for name, (reason, hint) in refused.items():
        assert name in Settings.model_fields
        flag = "--" + name.replace("_", "-")
        assert flag not in words
        assert main([command, *ENDS[command][0], flag, "1"]) == 2
        assert capsys.readouterr().err == f"error: {flag}: {reason}\n  hint: {hint}\n"


def test_a_comparison_refuses_whatever_its_methods_decide():
    assert BY_COMPARE.keys() >= DECIDED_HERE


@pytest.mark.parametrize("name", BY_ORCHESTRATOR)
def test_the_class_refuses_what_the_command_does_at_any_value(name):
    with pytest.raises(SettingsError, match=f"{name.upper()}=1: the clients are other processes"):
        fccl.Orchestrator(**{name: 1})
