"""Federations of a chat model: the form is decided once, recorded, carried to the clients and kept."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import fccl
from fccl.errors import FederationError, ModelError, SettingsError
from fccl.federation.run_folder import RunFolder
from fccl.model.generate import generate
from fccl.model.loading import Models, load_model
from fccl.model.text_form import with_template
from fccl.paths import LogPaths
from fccl.specs import ModelSpec, TextForm
from tests.model.chats import CHATML, with_chats

CHAT = TextForm(prompt="chat", learn="all")


@pytest.fixture(scope="module")
def chat_model(tiny_model_path, tmp_path_factory):
    return with_chats(tiny_model_path, tmp_path_factory.mktemp("chat-model"))


def spec_of(name, text=CHAT):
    return ModelSpec(name=name, lora_r=2, lora_alpha=4.0, lora_targets="all-linear", max_length=96, text=text)


def conversations(folder):
    """Rows of two turns, and pairs after two."""
    words = ["cold", "hot", "red", "small", "old", "new", "big", "seven", "five", "bird", "tree", "fruit"]
    said = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"The opposite of {word}?"},
            {"role": "assistant", "content": f"Not {word}."},
            {"role": "user", "content": f"And of the {word} tree?"},
        ]
        for word in words
    ]
    sft = [{"messages": [*turns, {"role": "assistant", "content": "No tree."}]} for turns in said]
    answers = {
        name: [{"role": "assistant", "content": content}]
        for name, content in (("chosen", "None."), ("rejected", "Go."))
    }
    va = [{"prompt": turns, **answers} for turns in said]
    for name, rows in (("sft", sft), ("va", va)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"sft_data": str(folder / "sft.jsonl"), "va_data": str(folder / "va.jsonl")}


@pytest.fixture
def asked(chat_model, tmp_path, monkeypatch):
    """The arguments of a small federation of conversations."""
    monkeypatch.chdir(tmp_path)
    small = {"num_clients": 2, "fed_rounds": 1, "threads": 1, "max_length": 96, "num_topics": 1, "gen_samples": 1}
    return {"model_name": chat_model, **small, **conversations(tmp_path)}


def test_a_run_of_a_chat_model_records_its_form_and_goes_on_with_it(asked, monkeypatch):
    whole = fccl.FederatedRun(**asked, learn_turns="all", log_dir="logs-whole").train()
    run = fccl.FederatedRun(**asked, learn_turns="all")
    for _ in run:
        break
    info = RunFolder.at(Path("logs")).info()
    assert (info.settings["prompt_format"], info.settings["learn_turns"]) == ("chat", "all")
    assert len(info.chat_template) == 64
    monkeypatch.setenv("PROMPT_FORMAT", "plain")
    monkeypatch.setenv("LEARN_TURNS", "last")
    resumed = fccl.FederatedRun(resume=True)
    assert resumed.train().sha256 == whole.sha256
    report = resumed.evaluate(gen_samples=1, bootstrap_samples=100)
    assert report.models[0].generations[0].instruction.startswith("System: Be brief.")
    assert "apply_chat_template" in (LogPaths(Path("logs")).adapter / "README.md").read_text()


def test_the_forms_train_otherwise_and_so_do_all_turns(asked):
    forms = [{"prompt_format": "plain"}, {"prompt_format": "chat"}, {"learn_turns": "all"}]
    found = [fccl.FederatedRun(**asked, **form, log_dir=f"logs-{place}").train() for place, form in enumerate(forms)]
    assert len({adapter.sha256 for adapter in found}) == 3
    started = [json.loads(Path(f"logs-{place}/progress.jsonl").read_text().splitlines()[0]) for place in range(3)]
    assert len({count["validation"]["loss"] for count in started}) == 3, "validation is in the run's form too"


def test_a_template_that_changed_stops_a_resumed_run_in_one_line(asked, chat_model, tmp_path):
    model = shutil.copytree(chat_model, tmp_path / "model")
    run = fccl.FederatedRun(**{**asked, "model_name": str(model)})
    for _ in run:
        break
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHATML + "{# changed #}"
    tokenizer.save_pretrained(model)
    with pytest.raises(FederationError, match="chat template of the model is no longer the one"):
        fccl.FederatedRun(resume=True).train()


def test_a_client_with_another_template_does_not_train_on_it(chat_model, tmp_path):
    """Its answer is a failure with the reason; the base model is what it was, and the spec names the template."""
    told = with_template(spec_of(chat_model), AutoTokenizer.from_pretrained(chat_model))
    assert len(told.text.template) == 64
    models = Models()
    assert models.of(told) is models.of(spec_of(chat_model)), "one model in memory, whatever names its template"
    other = shutil.copytree(chat_model, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = CHATML + "{# mine #}"
    tokenizer.save_pretrained(other)
    with pytest.raises(ModelError, match="here is another than the run's") as caught:
        Models().of(told.model_copy(update={"name": str(other)}))
    assert "tokenizer that the server has" in caught.value.hint


def test_a_chat_that_the_model_cannot_have_is_refused_when_it_is_loaded(tiny_model_path, chat_model, tmp_path):
    with pytest.raises(ModelError, match="has no chat template"):
        load_model(spec_of(str(tiny_model_path)))
    refuses = with_chats(chat_model, tmp_path / "refuses", "{{ raise_exception('never') }}")
    with pytest.raises(ModelError, match="cannot be rendered for the turns user, assistant, user: never"):
        load_model(spec_of(refuses))
    assert load_model(spec_of(refuses, TextForm())).spec.text.prompt == "plain"


def test_a_model_stops_at_the_end_of_its_turn(chat_model):
    model = load_model(spec_of(chat_model))
    model.load(model.initial_adapter(0))
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    steps = iter(range(100))

    def choose(scores):
        scores = scores.clone()
        scores[:, end] = 1e9 if next(steps) == 2 else -1e9
        return scores

    (row,) = model.continuations([[5, 6, 7]], 10, choose)
    assert row[2] == end
    assert len(row) == 3
    assert "<|im_end|>" not in generate(model, ["Go"], 10, 1)[0]


def test_peers_that_know_the_plain_form_alone_do_not_go_with_chats(asked):
    with pytest.raises(SettingsError, match="PROMPT_FORMAT=chat: they know the plain form alone"):
        fccl.Orchestrator(**asked, original_clients="1")
