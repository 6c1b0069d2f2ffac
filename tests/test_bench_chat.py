"""`benchmarks/bench_chat.py`: the rows of its TRL script, and what it starts."""

import argparse

import pytest
from transformers import AutoTokenizer

from benchmarks.bench_chat import Rows, run_arguments
from fccl.apps.arguments import parse
from fccl.data.examples import PreferencePair, SftExample, Turn, prompt_of
from tests.model.chats import CHATML

LONG = "the small bird sings in the old tree. " * 30
MOST = 96
TURNS = (Turn("user", "Say it."), Turn("assistant", "It."), Turn("user", "Again."))


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path):
    found = AutoTokenizer.from_pretrained(tiny_model_path)
    found.chat_template = CHATML
    return found


def test_rows_have_the_form_that_trl_takes_for_a_prompt_with_completions(tokenizer):
    pair = PreferencePair("Say it.", "It.", "No.", asked=TURNS)
    assert Rows(tokenizer, "plain", MOST).of(SftExample("Say it.", "It.")) == {
        "prompt": prompt_of("Say it."),
        "completion": " It.",
    }
    assert Rows(tokenizer, "chat", MOST).of(pair) == {
        "prompt": [{"role": turn.role, "content": turn.content} for turn in TURNS],
        "chosen": [{"role": "assistant", "content": "It."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }


@pytest.mark.parametrize("asked", [(), (Turn("user", LONG), Turn("assistant", LONG), Turn("user", LONG))])
def test_of_a_long_row_the_end_of_the_question_and_the_beginning_of_the_answer_stay(tokenizer, asked):
    for form in ("plain", "chat"):
        row = Rows(tokenizer, form, MOST).of(SftExample(LONG, LONG, asked=asked))
        texts = row["prompt"], row["completion"]
        prompt, answer = texts if form == "plain" else (texts[0][-1]["content"], texts[1][0]["content"])
        assert len(tokenizer(answer)["input_ids"]) <= MOST // 2
        assert LONG.startswith(answer.strip())
        assert prompt.removesuffix("\n\n### Response:").endswith(LONG[-20:])
        assert form == "plain" or len(texts[0]) == 1


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_the_orchestrator_understands_its_arguments(form):
    options = argparse.Namespace(model="./model", max_length=MOST, base_precision="bf16")
    found, _ = parse("orchestrator", list(run_arguments(options, form)))
    assert (found["prompt_format"], found["base_precision"]) == (form, "bf16")
