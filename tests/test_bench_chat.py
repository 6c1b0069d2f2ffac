"""`benchmarks/bench_chat.py`: the texts that both forms read, the rows of its TRL script, and what it starts."""

import argparse
import json

import pytest
from transformers import AutoTokenizer

from benchmarks.bench_chat import Texts, beside, left_out, row_of, run_arguments
from fccl.apps.arguments import parse
from fccl.data.examples import PreferencePair, SftExample, Turn, prompt_of
from fccl.model.encoding import encode
from fccl.paths import LogPaths
from fccl.specs import TextForm
from fccl.storage.files import write_text
from tests.model.chats import CHATML

LONG = "the small bird sings in the old tree. " * 30
MOST = 240  # the tiny tokenizer has few pieces, and a form's own words are many tokens
TURNS = (Turn("user", "Say it."), Turn("assistant", "It."), Turn("user", "Again."))


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path):
    found = AutoTokenizer.from_pretrained(tiny_model_path)
    found.chat_template = CHATML
    return found


def test_rows_have_the_form_that_trl_takes_for_a_prompt_with_completions():
    pair = PreferencePair("Say it.", "It.", "No.", asked=TURNS)
    assert row_of(SftExample("Say it.", "It."), "plain") == {"prompt": prompt_of("Say it."), "completion": " It."}
    assert row_of(pair, "chat") == {
        "prompt": [{"role": turn.role, "content": turn.content} for turn in TURNS],
        "chosen": [{"role": "assistant", "content": "It."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }


def test_instructions_that_fit_are_taken_and_pairs_keep_the_question_s_end_and_the_answers_beginning(tokenizer):
    texts = Texts(tokenizer, MOST)
    assert texts.fits(SftExample("Say it.", "It.", asked=TURNS))
    assert not texts.fits(SftExample("Say it.", LONG))
    assert not texts.fits(SftExample("Say it.", "It.", asked=(Turn("user", LONG), *TURNS)))
    short = PreferencePair("Say it.", "It.", "No.")
    assert texts.cut(short) == short
    cut = texts.cut(PreferencePair(LONG, LONG, "No.", asked=(*TURNS[:2], Turn("user", LONG))))
    assert LONG.strip().endswith(cut.instruction)
    assert LONG.startswith(cut.preferred)
    assert (cut.dispreferred, cut.asked) == ("No.", ())
    tokens = [len(tokenizer(text)["input_ids"]) for text in (cut.instruction, cut.preferred)]
    assert texts.room - 4 <= sum(tokens) <= texts.room + 4


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_nothing_that_fits_is_cut_in_either_form(tokenizer, form):
    texts = Texts(tokenizer, MOST)
    pair = texts.cut(PreferencePair(LONG, LONG, LONG))
    (rows,) = encode(tokenizer, "va", [pair], MOST, TextForm(prompt=form))
    assert not any(row.truncated for row in rows)


def test_both_forms_stand_beside_each_other_on_the_same_examples():
    """By hand: chat takes 1, 2 and 3 nats less, which no resample makes more."""
    margins = [-1.0, 1.0, 2.0] * 10
    plain = {"SFT": {"nats": [5.0, 6.0, 7.0] * 10, "margins": margins}}
    chat = {"SFT": {"nats": [4.0, 4.0, 4.0] * 10, "margins": margins}}
    nats, accuracy, margin = beside(plain, chat).splitlines()[2:]
    assert nats.startswith("| SFT | nats a response | 6.00 | 4.00 | -2.00 [")
    assert nats.endswith("| better |")
    assert accuracy.startswith("| SFT | preference accuracy, sum of log-probs | 66.7% | 66.7% | 0.0% [0.0%, 0.0%]")
    assert accuracy.endswith("| no significant difference |")
    assert "| +0.67 | +0.67 |" in margin


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_the_orchestrator_understands_its_arguments(form):
    options = argparse.Namespace(model="./model", max_length=MOST, base_precision="bf16")
    found, _ = parse("orchestrator", list(run_arguments(options, form)))
    assert (found["prompt_format"], found["base_precision"], found["evaluate"]) == (form, "bf16", False)


def test_an_answer_that_did_not_count_is_said(small_run, tmp_path):
    logs = LogPaths(small_run / "logs")
    assert list(left_out(logs)) == []
    lines = [json.loads(line) for line in logs.progress.read_text().splitlines()]
    (first,) = [line for line in lines if line["event"] == "round" and line["round"] == 0]
    changed = first | {"excluded": [{"client_id": 2, "reason": "no answer within 600 s"}]}
    other = LogPaths(tmp_path)
    write_text(other.progress, json.dumps(changed) + "\n")
    assert list(left_out(other)) == ["NOT COUNTED: client 2 in round 1: no answer within 600 s"]
