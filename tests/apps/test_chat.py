"""`fccl chat`: the answers of a run's models to one prompt, beside each other."""

import io
import shutil
import sys

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.adapters.adapter import adapter_file
from fccl.apps.chat import show
from fccl.apps.main import main
from fccl.data.examples import prompt_of
from fccl.model.base_model import BUILTIN_MODEL, base_path
from fccl.paths import LogPaths

PROMPT = "What is the opposite of hot?"


@pytest.fixture
def chat(small_run, capsys):
    """What the command prints, and what it says of an error."""

    def run(*arguments, logs=small_run / "logs", status=0):
        assert main(["chat", "--log-dir", str(logs), *arguments]) == status
        out, err = capsys.readouterr()
        return err if status else out

    return run


def peft_answer(folder, tokens):
    """The same prompt through transformers and PEFT alone."""
    tokenizer = AutoTokenizer.from_pretrained(base_path(BUILTIN_MODEL))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_path(BUILTIN_MODEL)), folder).eval()
    ids = torch.tensor([tokenizer(prompt_of(PROMPT))["input_ids"]])
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_a_prompt_is_answered_by_base_sft_and_fedva_and_the_last_is_what_peft_says(chat, small_run):
    lines = chat(PROMPT, "--gen-tokens", "12").splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["base", "SFT", "FedVA"]
    assert lines[-1] == f"FedVA: {peft_answer(small_run / 'logs' / 'adapter', 12)}"
    assert lines[0] != lines[-1]


def test_prompts_are_read_line_by_line_and_sampling_is_drawn_from_the_run_s_seed(chat, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PROMPT}\n\n{PROMPT}\n"))
    first, second = (
        lines for lines in zip(*[iter(chat("--sample", "--gen-tokens", "8").splitlines())] * 3, strict=True)
    )
    assert first == second


def test_a_run_whose_va_is_not_done_has_the_columns_that_there_are(chat, small_run, tmp_path):
    logs = LogPaths(shutil.copytree(small_run / "logs", tmp_path / "logs"))
    adapter_file(logs.global_final).unlink()
    found = chat(PROMPT, "--gen-tokens", "2", logs=logs.root)
    assert [line.partition(":")[0] for line in found.splitlines()] == ["base", "SFT"]
    adapter_file(logs.global_sft).unlink()
    assert "has no finished phase yet" in chat(PROMPT, logs=logs.root, status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("  ",), 2, "the prompt is empty"),
        ((PROMPT, "--gen-temperature", "0.5"), 2, "add --sample"),
    ],
)
def test_what_makes_no_sense_is_one_line(chat, arguments, status, said):
    assert said in chat(*arguments, status=status)


def test_without_a_run_there_is_nobody_to_chat_with(chat, tmp_path):
    assert "chat with" in chat(PROMPT, logs=tmp_path / "nothing", status=1)


def test_a_terminal_shows_columns_and_a_pipe_a_line_each(capsys):
    said = {"base": "one\ntwo", "FedVA": "three"}
    screen, pipe = io.StringIO(), io.StringIO()
    show(Console(file=screen, force_terminal=True, width=60, color_system=None), said)
    show(Console(file=pipe), said)
    head, answers = [line for line in screen.getvalue().splitlines() if "base" in line or "one" in line]
    assert head.index("FedVA") == answers.index("three") > 20
    assert pipe.getvalue() == "base: one two\nFedVA: three\n"
