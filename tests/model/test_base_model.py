"""What a MODEL_NAME stands for: a checkpoint's loss is the checkpoint's, and what would load as something else is one
line with the way out.
"""

import json
import shutil

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fccl.data.examples import SftExample
from fccl.errors import ModelError
from fccl.model.base_model import base_path, load_base, public_name
from fccl.model.encoding import collate, encode_sft
from fccl.model.export import save_merged, save_peft
from fccl.model.loading import load_model
from fccl.model.losses import target_log_probs
from fccl.specs import ModelSpec

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:peft", "ignore::RuntimeWarning:peft"
)  # of the trainer that the tests play

EXAMPLES = [SftExample("Name a bird.", "It is a sparrow."), SftExample("What is it?", "A dog, of course.")]


def spec(name, **changes):
    return ModelSpec(
        **{"name": str(name), "lora_r": 2, "lora_alpha": 4, "lora_targets": "all-linear", "max_length": 64} | changes
    )


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory, tiny_model_path):
    """A random Llama of two layers whose head is not tied, beside the tokenizer of the tiny GPT-2."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=128,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.1,
            **shape,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def checkpoint(folder, base_path, config, rows=0, tokenizer=None):
    """A folder as a trainer of PEFT leaves it: the adapter of a base model, all that it trains drawn at random."""
    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    if rows:
        base.resize_token_embeddings(rows, mean_resizing=False)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = get_peft_model(base, config)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
def nll(model, batch):
    """The mean response NLL, whose exp is the perplexity."""
    ids, mask = batch.input_ids, batch.response_mask[:, 1:]
    return -float(target_log_probs(model(input_ids=ids).logits[:, :-1][mask], ids[:, 1:][mask]).mean())


@torch.no_grad()
def loaded_nll(model, batch):
    log_probs, mask = model.response_log_probs(batch)
    return -float(log_probs[mask].mean())


def batch_of(tokenizer):
    return collate(encode_sft(tokenizer, EXAMPLES, 64), tokenizer.pad_token_id)


LORA = {"r": 3, "lora_alpha": 6, "task_type": "CAUSAL_LM", "init_lora_weights": False}
KINDS = {
    "LoRA": ("llama", LoraConfig(**LORA, target_modules=["q_proj", "v_proj"])),
    "LoRA of Conv1D": ("gpt2", LoraConfig(**LORA, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    "rank-stabilised": ("llama", LoraConfig(**LORA, target_modules="all-linear", use_rslora=True)),
    "DoRA": ("llama", LoraConfig(**LORA, target_modules=["q_proj", "down_proj"], use_dora=True)),
    "DoRA of Conv1D": ("gpt2", LoraConfig(**LORA, target_modules=["c_attn"], use_dora=True, fan_in_fan_out=True)),
    "biases": ("gpt2", LoraConfig(**LORA, target_modules=["c_attn"], bias="all", fan_in_fan_out=True)),
    "ranks of their own": (
        "llama",
        LoraConfig(
            **LORA, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 1}, alpha_pattern={"v_proj": 5}
        ),
    ),
    "a head of its own": ("llama", LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "a head of its own, tied before": (
        "gpt2",
        LoraConfig(**LORA, target_modules=["c_attn"], modules_to_save=["lm_head"], fan_in_fan_out=True),
    ),
    "embeddings of its own, tied before": (
        "gpt2",
        LoraConfig(**LORA, target_modules=["c_attn"], modules_to_save=["wte"], fan_in_fan_out=True),
    ),
    "LoRA of tied embeddings": ("gpt2", LoraConfig(**LORA, target_modules=["wte", "c_attn"], fan_in_fan_out=True)),
    "LoRA of a tied head": ("gpt2", LoraConfig(**LORA, target_modules=["lm_head"])),
    "LoRA of embeddings and head": ("llama", LoraConfig(**LORA, target_modules=["embed_tokens", "lm_head"])),
    "single tokens": (
        "llama",
        LoraConfig(**LORA, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1, 2, 3]}),
    ),
    "single tokens, tied": (
        "gpt2",
        LoraConfig(**LORA, target_modules=["c_attn"], trainable_token_indices=[1, 2, 3], fan_in_fan_out=True),
    ),
    "IA3": (
        "llama",
        IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "LoHa": ("llama", LoHaConfig(r=2, alpha=4, task_type="CAUSAL_LM", target_modules=["q_proj"], init_weights=False)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_has_the_checkpoint_s_loss_and_so_has_its_export(kind, llama_path, tiny_model_path, tmp_path):
    which, config = KINDS[kind]
    base = {"llama": llama_path, "gpt2": tiny_model_path}[which]
    theirs = checkpoint(tmp_path / "checkpoint", base, config)
    model = load_model(spec(tmp_path / "checkpoint"))
    batch = batch_of(model.tokenizer)
    reloaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "checkpoint"
    ).eval()
    expected = nll(reloaded, batch)
    assert expected == pytest.approx(nll(theirs, batch), rel=1e-5)
    assert (
        abs(expected - nll(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), batch)) > 1e-3
    )  # the adapter says something
    assert loaded_nll(model, batch) == pytest.approx(expected, rel=1e-4)
    assert model.made_of == (str(base), str(tmp_path / "checkpoint"))
    save_merged(model, model.initial_adapter(1), tmp_path / "merged", "card")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert nll(plain, batch) == pytest.approx(expected, rel=1e-4)


def edited(folder, file, **changes):
    """A JSON file of a folder with other values; None takes a key away."""
    path = folder / file
    kept = {name: value for name, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(kept))


def copy_of(path, to):
    shutil.copytree(path, to)
    return to


def refusal(name, **changes):
    """The one line and the way out that a model is refused with."""
    with pytest.raises(ModelError) as caught:
        load_model(spec(name, **changes))
    assert "\n" not in str(caught.value)
    assert str(name) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


PLAIN_LORA = LoraConfig(**LORA, target_modules=["q_proj", "v_proj"])


@pytest.fixture(scope="module")
def lora_path(tmp_path_factory, llama_path):
    folder = tmp_path_factory.mktemp("lora")
    checkpoint(folder, llama_path, PLAIN_LORA)
    return folder


@pytest.mark.parametrize(("which", "targets"), [("llama", ["q_proj"]), ("gpt2", ["c_attn"])])
def test_a_checkpoint_with_tokens_of_its_own_brings_their_embeddings_and_its_tokenizer(
    which, targets, llama_path, tiny_model_path, tmp_path
):
    base = {"llama": llama_path, "gpt2": tiny_model_path}[which]
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<think>", "</think>"])
    config = LoraConfig(**LORA, target_modules=targets, fan_in_fan_out=which == "gpt2")
    theirs = checkpoint(tmp_path / "checkpoint", base, config, rows=len(tokenizer), tokenizer=tokenizer)
    model = load_model(spec(tmp_path / "checkpoint"))
    batch = collate(
        encode_sft(model.tokenizer, [SftExample("Name a bird.", "<think>It flies.</think> A sparrow.")], 64),
        model.pad_id,
    )
    assert int(batch.input_ids.max()) == len(tokenizer) - 1
    assert loaded_nll(model, batch) == pytest.approx(nll(theirs, batch), rel=1e-4)


def test_an_adapter_may_stand_on_an_adapter_but_not_in_a_circle(llama_path, lora_path, tmp_path):
    lower = copy_of(lora_path, tmp_path / "lower")
    merged = tmp_path / "merged"
    first = load_model(spec(lower))
    save_merged(first, first.initial_adapter(1), merged, "card")
    theirs = checkpoint(tmp_path / "upper", merged, LoraConfig(**LORA, target_modules=["o_proj"]))
    edited(tmp_path / "upper", "adapter_config.json", base_model_name_or_path=str(lower))
    model = load_model(spec(tmp_path / "upper"))
    batch = batch_of(model.tokenizer)
    assert loaded_nll(model, batch) == pytest.approx(nll(theirs, batch), rel=1e-4)
    assert model.made_of == (str(llama_path), str(lower), str(tmp_path / "upper"))
    edited(lower, "adapter_config.json", base_model_name_or_path=str(tmp_path / "upper"))
    assert "in a circle" in refusal(tmp_path / "upper")
    edited(lower, "adapter_config.json", base_model_name_or_path=str(lower))
    assert "in a circle" in refusal(lower)


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


@pytest.mark.parametrize("length", [129, 4096])
def test_a_context_that_is_too_short_is_named_under_an_adapter_too(lora_path, length):
    assert f"MAX_LENGTH={length} is more than the 128 positions" in refusal(lora_path, max_length=length)


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("gpt2", "gpt2"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("builtin:micro", "builtin:micro"),
        ("/srv/models/secret", None),
        ("./model", None),
        ("~/model", None),
        ("a/b/c", None),
        ("/cache/models--meta-llama--Llama-3.2-1B/snapshots/0123abc", "meta-llama/Llama-3.2-1B"),
    ],
)
def test_only_a_name_that_means_the_same_elsewhere_is_public(name, public):
    assert public_name(name) == public


def test_a_folder_of_this_machine_is_not_public_though_it_looks_like_a_hub_name(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (public_name("gpt2"), public_name("org/model")) == (None, None)


def test_an_adapter_that_fccl_has_exported_is_a_model_name(tmp_path):
    model = load_model(spec("builtin:micro"))
    adapter = model.initial_adapter(3)
    save_peft(model, adapter, tmp_path / "adapter", "card")
    assert load_model(spec(tmp_path / "adapter")).made_of == ("builtin:micro", str(tmp_path / "adapter"))
    assert base_path("builtin:micro").endswith("micro")
