"""`fccl init`: what is answered is checked, and what is written is what the commands then read."""

import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.apps import init_answers
from fccl.apps.init_file import Part, dotenv
from fccl.apps.main import main
from fccl.config import Settings, load_settings
from tests.examples import few


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


@pytest.fixture
def init(capsys):
    """The command without a terminal: what it prints, and what it says of an error."""

    def run(*arguments, status=0):
        assert main(["init", *arguments]) == status
        out, err = capsys.readouterr()
        return err if status else out

    return run


@pytest.fixture
def typing(monkeypatch):
    """A person at a terminal who types these lines."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def lines(*said):
        monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in said)))
        monkeypatch.setenv("TTY_COMPATIBLE", "1")

    return lines


def test_without_a_terminal_and_without_arguments_it_writes_the_quickstart(init, empty_folder):
    out = init()
    found, usual = load_settings(), load_settings({"model_name": "builtin:micro"})
    assert found == usual
    assert "Next: fccl run" in out
    assert "nobody was asked: --model-name, --sft-data, --va-data, --num-clients, --machine, --privacy have" in out
    assert "weights in 4 layers" in (empty_folder / ".env").read_text()


def test_arguments_are_the_answers_and_a_model_of_one_s_own_has_its_preset_written_out(
    init, tiny_model_path, empty_folder
):
    (empty_folder / "my data.jsonl").write_text(
        '{"instruction": "Say a", "output": "a"}\n' * 2 + '{"instruction": "Say b", "output": "b"}\n'
    )
    data = ("--sft-data", "my data.jsonl", "--va-data", "synthetic", "--num-clients", "2")
    out = init("--model-name", str(tiny_model_path), *data, "--machine", "apart", "--privacy", "forget,signed")
    found = load_settings()
    assert (found.model_name, found.sft_data, found.va_data) == (str(tiny_model_path), "my data.jsonl", "synthetic")
    assert (found.preset, found.sft_lr, found.max_length) == ("pretrained", 2e-4, 128)
    assert (found.num_clients, found.keys_dir, found.keep_updates_mb) == (2, "keys", 0)
    assert "2 instructions" in out, "two of the three are one"
    assert "fccl keys; fccl orchestrator" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model-name", "./nowhere"), "there is no such folder"),
        (("--sft-data", "nowhere.json"), "nowhere.json is not there"),
        (("--num-clients", "0"), "NUM_CLIENTS=0"),
        (("--num-clients", "99999"), "instructions for 99999 clients"),
        (("--machine", "moon"), "'moon': allowed is one of here, apart"),
        (("--privacy", "magic"), "'magic': allowed is one of none, signed, forget, no-texts"),
        (("--privacy", "signed"), "nothing is sent"),
    ],
)
def test_an_answer_that_cannot_be_is_one_line_and_nothing_is_written(init, empty_folder, arguments, said):
    assert main(["init", *arguments]) in (1, 2)
    assert list(empty_folder.iterdir()) == []


def test_a_file_that_is_there_stays_unless_somebody_says_so(init, empty_folder):
    (empty_folder / ".env").write_text("FED_ROUNDS=7\n")
    assert "--replace replaces it" in init(status=2)
    assert (empty_folder / ".env").read_text() == "FED_ROUNDS=7\n"
    init("--out", "other.env")
    init("--replace")
    assert (empty_folder / ".env").read_text() == (empty_folder / "other.env").read_text()


def test_at_a_terminal_a_wrong_answer_is_asked_for_again(typing, empty_folder, monkeypatch, capsys):
    (empty_folder / ".env").write_text("FED_ROUNDS=7\n")
    typing("yes", "./nowhere", "", "", "", "many", "2", "apart", "signed, no-texts")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert main(["init"]) == 0
    out = capsys.readouterr().out
    assert out.count("1/5") == 2
    assert "./nowhere: there is no such folder" in out
    found = load_settings()
    assert (found.num_clients, found.keys_dir, found.gen_samples, found.fed_rounds) == (2, "keys", 0, 3)


def test_a_person_who_says_no_keeps_the_file(typing, empty_folder, monkeypatch):
    (empty_folder / ".env").write_text("FED_ROUNDS=7\n")
    typing("no")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert main(["init"]) == 2
    assert (empty_folder / ".env").read_text() == "FED_ROUNDS=7\n"


def test_a_machine_with_too_little_memory_gets_a_smaller_batch(init, monkeypatch):
    shape = init_answers.shape_of(init_answers.load_model(load_settings().model_spec()))
    enough_for_two = shape.training_bytes(2 * 2 * load_settings().max_length)
    monkeypatch.setattr(init_answers, "own_memory", lambda: enough_for_two)
    init()
    assert load_settings().batch_size == 2
    monkeypatch.setattr(init_answers, "own_memory", lambda: 1)
    assert "may not fit" in init("--replace")


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip() == text))
@settings(max_examples=few(100))
def test_any_value_comes_back_from_the_file_as_it_was(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("values")
    (folder / "file").write_text(dotenv([Part("A comment\nof two lines", {"topic_column": name})]), encoding="utf-8")
    from dotenv import dotenv_values

    assert dotenv_values(folder / "file") == {"TOPIC_COLUMN": name}
