"""What a MODEL_NAME stands for: a checkpoint's loss is the checkpoint's, and what would load as something else is one
line with the way out.
"""

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.data.examples import SftExample
from fccl.model.base_model import base_path, public_name
from fccl.model.encoding import collate, encode_sft
from fccl.model.export import save_merged, save_peft
from fccl.model.loading import load_model
from fccl.model.losses import target_log_probs
from tests.model.checkpoints import LORA, checkpoint, copy_of, edited, refusal, spec

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:peft", "ignore::RuntimeWarning:peft"
)  # of the trainer that the tests play

EXAMPLES = [SftExample("Name a bird.", "It is a sparrow."), SftExample("What is it?", "A dog, of course.")]


@torch.no_grad()
def nll(model, batch):
    """The mean response NLL, whose exp is the perplexity."""
    ids, mask = batch.input_ids, batch.response_mask[:, 1:]
    return -float(target_log_probs(model(input_ids=ids).logits[:, :-1][mask], ids[:, 1:][mask]).mean())


@torch.no_grad()
def loaded_nll(model, batch):
    log_probs, mask = model.token_log_probs(batch)
    return -float(log_probs[mask].mean())


def batch_of(tokenizer):
    return collate(encode_sft(tokenizer, EXAMPLES, 64), tokenizer.pad_token_id)


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
