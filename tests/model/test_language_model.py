import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.data.examples import SftExample
from fccl.errors import AdapterError, ModelError
from fccl.model.encoding import collate, encode_sft
from fccl.model.export import save_merged, save_peft
from fccl.model.loading import load_model
from fccl.specs import ModelSpec

EXAMPLES = [SftExample("Name a bird.", "It is a sparrow."), SftExample("What is it?", "A dog, of course.")]


def spec(name, **changes):
    return ModelSpec(
        **{"name": str(name), "lora_r": 2, "lora_alpha": 4, "lora_targets": "all-linear", "max_length": 64} | changes
    )


def random_adapter(model, seed=3):
    draw = torch.Generator().manual_seed(seed)
    return Adapter(
        {name: 0.2 * torch.randn(parameter.shape, generator=draw) for name, parameter in model.factors.items()}
    )


def batch_of(model):
    return collate(encode_sft(model.tokenizer, EXAMPLES, 64), model.pad_id)


@torch.no_grad()
def test_the_initial_adapter_changes_nothing_and_comes_from_the_seed(tiny_model, tiny_model_path):
    tiny_model.load(tiny_model.initial_adapter(7))
    batch = batch_of(tiny_model)
    log_probs, mask = tiny_model.token_log_probs(batch)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    expected = (
        plain(input_ids=batch.input_ids).logits[:, :-1].log_softmax(-1).gather(2, batch.input_ids[:, 1:, None])[..., 0]
    )
    torch.testing.assert_close(log_probs[mask], expected[mask], rtol=1e-5, atol=1e-6)
    assert bool((log_probs[~mask] == 0).all())
    assert (
        tiny_model.initial_adapter(7).sha256
        == tiny_model.initial_adapter(7).sha256
        != tiny_model.initial_adapter(8).sha256
    )


def test_load_then_take_out_is_the_same_adapter(tiny_model):
    adapter = random_adapter(tiny_model)
    tiny_model.load(adapter)
    assert tiny_model.adapter().sha256 == adapter.sha256
    with pytest.raises(AdapterError, match="different tensors"):
        tiny_model.load(Adapter({"w": torch.zeros(1)}))


def test_only_lora_factors_can_move(tiny_model):
    trainable = {name.replace(".default", "") for name, p in tiny_model.model.named_parameters() if p.requires_grad}
    assert trainable == set(tiny_model.factors)
    assert all("lora_A" in name or "lora_B" in name for name in trainable)
    assert not tiny_model.model.training


@torch.no_grad()
def test_peft_reads_what_is_exported(tiny_model, tiny_model_path, tmp_path):
    adapter = random_adapter(tiny_model)
    save_peft(tiny_model, adapter, tmp_path / "adapter", "# card\n")
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = batch_of(tiny_model).input_ids
    torch.testing.assert_close(
        theirs(input_ids=ids).logits, tiny_model.model(input_ids=ids).logits, rtol=1e-6, atol=1e-6
    )
    assert (tmp_path / "adapter" / "README.md").read_text() == "# card\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


@torch.no_grad()
def test_the_merged_folder_is_a_plain_model(tiny_model, tmp_path):
    adapter = random_adapter(tiny_model)
    tiny_model.load(adapter)
    ids = batch_of(tiny_model).input_ids
    expected = tiny_model.model(input_ids=ids).logits
    before = {name: tensor.clone() for name, tensor in tiny_model.base.state_dict().items()}
    save_merged(tiny_model, adapter, tmp_path / "merged", "# card\n")
    plain, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    again = load_model(spec(tmp_path / "merged"))
    assert again.tokenizer("Name a bird.")["input_ids"] == tiny_model.tokenizer("Name a bird.")["input_ids"]
    for name, tensor in tiny_model.base.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@torch.no_grad()
def test_merged_weights_are_peft_s_to_the_bit(tiny_model_path, tmp_path):
    model = load_model(spec(tiny_model_path))
    model.write_merged(random_adapter(model), tmp_path / "merged")
    theirs = model.model.merge_and_unload().state_dict()
    mine = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    assert {name for name, tensor in theirs.items() if not torch.equal(tensor, mine[name])} == set()


@pytest.mark.parametrize("targets", ["auto", "all-linear", "c_attn", "c_attn, c_fc"])
def test_targets_of_gpt2(tiny_model_path, targets):
    names = {
        name.split(".lora_")[0].rsplit(".", 1)[-1]
        for name in load_model(spec(tiny_model_path, lora_targets=targets)).factors
    }
    expected = {
        "auto": {"c_attn"},
        "all-linear": {"c_attn", "c_proj", "c_fc"},
        "c_attn": {"c_attn"},
        "c_attn, c_fc": {"c_attn", "c_fc"},
    }
    assert names == expected[targets]


def test_a_model_of_linear_layers_works_too(tmp_path, tiny_model):
    """Llama: `Linear` instead of `Conv1D`, rotary positions, and a head that is not tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=len(tiny_model.tokenizer), max_position_embeddings=128, bos_token_id=0, eos_token_id=0, **shape
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_model.tokenizer.save_pretrained(tmp_path)
    model = load_model(spec(tmp_path, lora_targets="auto"))
    adapter = random_adapter(model)
    model.load(adapter)
    batch = batch_of(model)
    with torch.no_grad():
        log_probs, mask = model.token_log_probs(batch)
        expected = (
            model.model(input_ids=batch.input_ids)
            .logits[:, :-1]
            .log_softmax(-1)
            .gather(2, batch.input_ids[:, 1:, None])[..., 0]
        )
    torch.testing.assert_close(log_probs[mask], expected[mask], rtol=1e-5, atol=1e-5)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in model.factors} == {"q_proj", "v_proj"}


def test_a_target_that_the_model_lacks_names_those_it_has(tiny_model_path):
    with pytest.raises(ModelError, match="has no module 'q_proj'") as caught:
        load_model(spec(tiny_model_path, lora_targets="q_proj"))
    assert "c_attn, c_fc, c_proj" in caught.value.hint


def test_a_context_that_is_too_short_is_named(tiny_model_path):
    with pytest.raises(ModelError, match="MAX_LENGTH=4096 is more than the 128 positions"):
        load_model(spec(tiny_model_path, max_length=4096))


def test_what_cannot_be_loaded_is_one_line_with_the_ways_out(tmp_path, tiny_model_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_path, broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    for name in (broken, tmp_path / "empty", tmp_path / "none", "./none", "builtin:huge"):
        with pytest.raises(ModelError) as caught:
            load_model(spec(name))
        assert str(name) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "builtin:micro" in caught.value.hint


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch, tmp_path):
    """A hub of ours that accepts connections and never answers: the deadline is ours, not the library's retries."""
    import socket

    from huggingface_hub import constants

    from fccl.model import base_model as module

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(module, "HUB_TIMEOUT_S", 0.5)
        with pytest.raises(ModelError, match="the hub cannot be asked") as caught:
            load_model(spec("someone/no-such-model-in-any-cache"))
    assert "local folder" in caught.value.hint
