"""Models that would load as something else than they are: each is refused in one line with a hint."""

import shutil

import pytest
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.errors import ModelError
from fccl.model.base_model import load_base
from fccl.model.loading import load_model
from tests.model.checkpoints import copy_of, edited, refusal, spec

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:peft", "ignore::RuntimeWarning:peft"
)  # of the trainer that the tests play


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": 7}, "names no base model"),
        (
            {"base_model_name_or_path": "/nowhere/at/all"},
            "its base model cannot be had: /nowhere/at/all: there is no such folder",
        ),
        ({"base_model_name_or_path": "builtin:huge"}, "there is no such built-in model"),
        ({"task_type": "SEQ_CLS"}, "is for SEQ_CLS"),
        ({"peft_type": "NO_SUCH_KIND"}, "can"),
        ({"r": 5}, "cannot be merged"),
        ({"target_modules": ["q_proj", "o_proj"]}, "cannot be merged"),
        ({"target_modules": ["not_there"]}, "cannot be merged"),
    ],
)
def test_an_adapter_that_cannot_be_folded_in_is_one_line(lora_path, tmp_path, changes, said):
    folder = copy_of(lora_path, tmp_path / "adapter")
    edited(folder, "adapter_config.json", **changes)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "its tokenizer cannot be loaded ("),
        ('{"version": "1.0", "model": {"type": "BPE"}}', "its tokenizer cannot be loaded (KeyError 'added_tokens')"),
    ],
)
def test_a_damaged_tokenizer_is_named(tiny_model_path, tmp_path, content, said):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError) as caught:
        load_model(spec(folder))
    assert said in str(caught.value)
    assert caught.value.hint == "save the tokenizer into the folder again (`tokenizer.save_pretrained`)"


def test_a_damaged_adapter_is_one_line(lora_path, tmp_path):
    for number, (file, content) in enumerate(
        [
            ("adapter_config.json", b"{"),
            ("adapter_config.json", b"[]"),
            ("adapter_model.safetensors", b"x" * 900),
            ("adapter_model.safetensors", None),
        ]
    ):
        folder = copy_of(lora_path, tmp_path / f"{number}")
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
        refusal(folder)


def test_a_base_model_that_is_not_here_is_one_line_without_a_network(lora_path, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    folder = copy_of(lora_path, tmp_path / "adapter")
    edited(folder, "adapter_config.json", base_model_name_or_path="someone/no-such-base-in-any-cache")
    assert (
        "is an adapter, its base model cannot be had: someone/no-such-base-in-any-cache: not in the local cache"
        in refusal(folder)
    )


def test_an_adapter_that_is_no_product_is_refused(llama_path, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(llama_path),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    )
    model.save_pretrained(tmp_path)
    assert "a PROMPT_TUNING adapter cannot be merged" in refusal(tmp_path)


def test_a_folder_with_a_whole_model_and_an_adapter_is_refused_and_a_configuration_alone_is_none(
    llama_path, lora_path, tmp_path
):
    both = copy_of(llama_path, tmp_path / "both")
    shutil.copy(lora_path / "adapter_config.json", both)
    shutil.copy(lora_path / "adapter_model.safetensors", both)
    assert "holds a whole model and an adapter" in refusal(both)
    beside = copy_of(lora_path, tmp_path / "beside")
    shutil.copy(llama_path / "config.json", beside)
    assert load_model(spec(beside)).made_of == (str(llama_path), str(beside))


@pytest.mark.parametrize(
    "quantisation",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "fp8"},
        {"quant_method": "mxfp4"},
        {"quant_method": "compressed-tensors"},
    ],
)
def test_a_quantised_model_is_refused_before_it_is_loaded_also_under_an_adapter(
    llama_path, lora_path, tmp_path, quantisation
):
    folder = copy_of(llama_path, tmp_path / "quantised")
    edited(folder, "config.json", quantization_config=quantisation)
    next(folder.glob("*.safetensors")).write_bytes(b"")  # would be another error
    assert "its weights are quantised" in refusal(folder)
    adapter = copy_of(lora_path, tmp_path / "adapter")
    edited(adapter, "adapter_config.json", base_model_name_or_path=str(folder))
    assert "its weights are quantised" in refusal(adapter)


@pytest.mark.parametrize("names", ["base_model.model.{}", "{}.base_layer", "half", "no head"])
def test_weights_that_would_be_drawn_at_random_are_refused(llama_path, tmp_path, names):
    folder = copy_of(llama_path, tmp_path / "model")
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    if names == "half":
        weights = {name: tensor for name, tensor in weights.items() if ".1." not in name}
    elif names == "no head":
        weights.pop("lm_head.weight")
    else:
        stem = {name: name.removesuffix(".weight") for name in weights}
        weights = {names.format(stem[name]) + ".weight": tensor for name, tensor in weights.items()}
    save_file(weights, file, metadata={"format": "pt"})
    said = refusal(folder)
    assert "files lack weights" in said or "still wrapped by PEFT" in said


def with_tokens(folder, tokenizer_path, *tokens, **special):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    tokenizer.add_tokens(list(tokens))
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("tokens", "special", "beyond"),
    [
        (("<tool>",), {}, 1),
        (("<a>", "<b>", "<c>"), {}, 3),
        ((), {"pad_token": "<pad>"}, 1),
        ((), {"eos_token": "<|im_end|>"}, 1),
        ((), {"additional_special_tokens": ["<|user|>", "<|system|>"]}, 2),
        ((), {"bos_token": "<s>"}, 1),
    ],
)
def test_a_tokenizer_with_more_ids_than_the_model_embeds_is_refused_at_load(
    llama_path, tmp_path, tokens, special, beyond
):
    folder = copy_of(llama_path, tmp_path / "model")
    with_tokens(folder, llama_path, *tokens, **special)
    assert f"({beyond} token{'s' * (beyond > 1)} without embedding)" in refusal(folder)


def test_embeddings_may_be_more_than_the_tokenizer_s_ids(llama_path, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama_path)
    model.resize_token_embeddings(model.config.vocab_size + 64, mean_resizing=False)
    model.save_pretrained(tmp_path)
    with_tokens(tmp_path, llama_path, "<tool>", pad_token="<pad>")
    assert load_model(spec(tmp_path)).pad_id == model.config.vocab_size - 64 + 1


def test_a_tokenizer_without_an_end_is_refused_and_without_padding_pads_with_the_end(llama_path, tmp_path):
    folder = copy_of(llama_path, tmp_path / "model")
    edited(folder, "tokenizer_config.json", pad_token=None)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    base = load_base(str(folder), 64)
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id
    edited(folder, "tokenizer_config.json", eos_token=None)
    assert "no end-of-text token" in refusal(folder)


def test_a_model_without_a_tokenizer_s_files_is_refused(tiny_model_path, tmp_path):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "no token but <|endoftext|>, so all text would be nothing" in refusal(folder)


@pytest.mark.parametrize("length", [129, 4096])
def test_a_context_that_is_too_short_is_named_under_an_adapter_too(lora_path, length):
    assert f"MAX_LENGTH={length} is more than the 128 positions" in refusal(lora_path, max_length=length)
