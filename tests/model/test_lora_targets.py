"""A LoRA on models of many kinds: a round of training, its export and its merged folder say the same; or one line says
which targets work.
"""

import json
import re

import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.adapters.ranks import pairs
from fccl.data.examples import SftExample
from fccl.data.shards import ClientShard
from fccl.errors import ModelError
from fccl.messages import FitTask
from fccl.model.encoding import collate, encode_sft
from fccl.model.export import save_merged, save_peft
from fccl.model.loading import Models, load_model
from fccl.model.lora_targets import linear_names, targets, top_layers
from fccl.specs import ModelSpec, TrainSpec
from fccl.training.engines import learner_for

ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
HEADS = {"num_hidden_layers": 2, "num_attention_heads": 2}
USUAL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    **HEADS,
    **ENDS,
}
TWO_OF_FOUR = {"num_experts": 4, "num_experts_per_tok": 2}
TWO_OF_FOUR_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
MAMBA = {
    "use_mamba_kernels": False,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
}

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MIXTURES = {
    "Mixtral": (USUAL | TWO_OF_FOUR_LOCAL, ATTENTION),
    "Qwen2Moe": (
        USUAL | TWO_OF_FOUR | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
        ATTENTION | {"gate_proj", "up_proj", "down_proj", "shared_expert_gate"},
    ),
    "Qwen3Moe": (USUAL | TWO_OF_FOUR | {"moe_intermediate_size": 16, "head_dim": 16}, ATTENTION),
    "GptOss": (
        USUAL | TWO_OF_FOUR_LOCAL | {"head_dim": 16, "layer_types": ["full_attention", "sliding_attention"]},
        ATTENTION,
    ),
    "Olmoe": (USUAL | TWO_OF_FOUR, ATTENTION),
    "Phimoe": (USUAL | TWO_OF_FOUR_LOCAL, ATTENTION),
    "GraniteMoe": (USUAL | TWO_OF_FOUR_LOCAL, ATTENTION),
    "DeepseekV3": (
        USUAL | LATENT | ROUTED | {"moe_intermediate_size": 16, "initializer_range": 0.2},
        {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
    ),
    "Jamba": (
        USUAL | TWO_OF_FOUR | MAMBA,
        ATTENTION | {"in_proj", "x_proj", "dt_proj", "out_proj", "gate_proj", "up_proj", "down_proj"},
    ),
}
DENSE = {
    "GPTNeoX": (USUAL, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    "OPT": (
        {"hidden_size": 32, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32, **HEADS, **ENDS},
        {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    ),
    "Bloom": (
        {"hidden_size": 32, "n_layer": 2, "n_head": 2, **ENDS},
        {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    ),
    "Falcon": ({"hidden_size": 32, **HEADS, **ENDS}, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    "Gemma2": (USUAL | {"head_dim": 16}, ATTENTION | {"gate_proj", "up_proj", "down_proj"}),
    "Phi3": (USUAL, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    "GPTBigCode": ({"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2, **ENDS}, {"c_attn", "c_proj", "c_fc"}),
}
EXAMPLES = (SftExample("Name a bird.", "It is a sparrow."), SftExample("What is it?", "A dog, of course."))


def tiny(name, shape, tokenizer):
    """A random model of an architecture."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), **shape)
        return getattr(transformers, f"{name}ForCausalLM")(config)


@pytest.fixture
def folder_of(tmp_path, tiny_model_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)

    def make(name, shape):
        tiny(name, shape, tokenizer).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def spec(name, targets="all-linear", layers=None):
    return ModelSpec(name=str(name), lora_r=2, lora_alpha=4, lora_targets=targets, lora_layers=layers, max_length=64)


def a_round(spec):
    """The model, and what a client makes of its initial adapter."""
    model = load_model(spec)
    train = TrainSpec(epochs=1, learning_rate=1e-2, batch_size=2, warmup=0.0, max_grad_norm=1.0)
    task = FitTask("run", 0, "sft", model.initial_adapter(1), None, spec, train, 1)
    return model, learner_for(Models.holding(model)).fit(
        task, ClientShard(0, EXAMPLES, ()), lambda status: None
    ).adapter


@torch.no_grad()
def response_log_probs(plain, batch):
    found = (
        plain.eval()(input_ids=batch.input_ids)
        .logits[:, :-1]
        .log_softmax(-1)
        .gather(2, batch.input_ids[:, 1:, None])[..., 0]
    )
    return found[batch.response_mask[:, 1:]]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MIXTURES | DENSE)
def test_a_round_its_export_and_its_merged_folder_say_the_same(name, folder_of, tmp_path):
    shape, expected = (MIXTURES | DENSE)[name]
    folder = folder_of(name, shape)
    model, adapter = a_round(spec(folder))
    assert {pair.a.split(".lora_A")[0].rsplit(".", 1)[-1] for pair in pairs(adapter.form)} == expected
    assert {pair.rank for pair in pairs(adapter.form)} == {2}
    require_same_when_exported(model, adapter, folder, tmp_path)


def require_same_when_exported(model, adapter, folder, tmp_path):
    """PEFT's folder over the base model, and the merged folder, are this model with this adapter."""
    assert adapter.distance(model.initial_adapter(1)) > 0
    save_peft(model, adapter, tmp_path / "adapter", "card")
    save_merged(model, adapter, tmp_path / "merged", "card")
    batch = collate(encode_sft(model.tokenizer, EXAMPLES, 64), model.pad_id)
    model.load(adapter)
    with torch.no_grad():
        log_probs, mask = model.token_log_probs(batch)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert not torch.allclose(response_log_probs(base, batch), log_probs[mask], rtol=0, atol=1e-5)
    for theirs in (
        PeftModel.from_pretrained(base, tmp_path / "adapter"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
    ):
        torch.testing.assert_close(response_log_probs(theirs, batch), log_probs[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["DeepseekV3", "Jamba", "OPT", "GPTBigCode", "Falcon"])
def test_with_lora_on_the_top_layer_alone_a_round_and_its_exports_say_the_same_too(name, folder_of, tmp_path):
    folder = folder_of(name, (MIXTURES | DENSE)[name][0])
    model, adapter = a_round(spec(folder, layers=1))
    every = set(load_model(spec(folder)).factors)
    assert set(adapter.form.shapes) == {factor for factor in every if re.search(r"\.1\.", factor)} < every
    require_same_when_exported(model, adapter, folder, tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [1]


@pytest.mark.parametrize("layers", [1, 2, None])
def test_the_layers_that_carry_lora_are_the_top_ones(tiny_model_path, layers):
    numbers = {
        int(name.split(".h.")[1].split(".")[0]) for name in load_model(spec(tiny_model_path, "auto", layers)).factors
    }
    assert numbers == set(range(2 - (layers or 2), 2))


def test_more_layers_than_the_model_has_are_refused_in_one_line(tiny_model_path):
    with pytest.raises(ModelError, match=r"^LORA_LAYERS=3: .* has 2 layers\n") as caught:
        load_model(spec(tiny_model_path, layers=3))
    assert caught.value.hint == "use 1 to 2, or all"


def test_layers_that_are_in_no_list_are_refused_in_one_line(tiny_model_path):
    base = tiny("OPT", DENSE["OPT"][0], AutoTokenizer.from_pretrained(tiny_model_path))
    base.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match=r"^LORA_LAYERS=1: m does not keep its layers in one list\n") as caught:
        top_layers(spec("m", layers=1), base)
    assert caught.value.hint == "use LORA_LAYERS=all"


@pytest.mark.parametrize("name", MIXTURES)
def test_peft_s_own_choice_stays_outside_of_the_experts_too(name, tiny_model_path):
    base = tiny(name, MIXTURES[name][0], AutoTokenizer.from_pretrained(tiny_model_path))
    found = targets(spec(name, "auto"), base)
    assert found
    assert {path.rpartition(".")[2] for path in found} <= MIXTURES[name][1]


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("Mixtral", "w1", "has no module 'w1'"),
        ("Mixtral", "q_proj,gate_up_proj", "has no module 'gate_up_proj'"),
        ("DeepseekV3", "gate_proj", "'gate_proj' of .* belongs to experts that are fused into one tensor"),
        ("DeepseekV3", "o_proj,up_proj", "'up_proj' of .* belongs to experts that are fused into one tensor"),
        ("Phimoe", "router", "'router' of .* is not a plain linear layer everywhere"),
        ("Olmoe", "experts", "has no module 'experts'"),
    ],
)
def test_a_name_of_the_experts_is_one_line_with_the_targets_that_work(name, target, said, tiny_model_path):
    base = tiny(name, MIXTURES[name][0], AutoTokenizer.from_pretrained(tiny_model_path))
    with pytest.raises(ModelError, match=said) as caught:
        targets(spec(name, target), base)
    usable = [name for name, reason in linear_names(base).items() if not reason]
    assert f"these work: {', '.join(usable)}; or use auto or all-linear" in caught.value.hint
    assert targets(spec(name, ",".join(usable)), base) == usable


def test_a_model_that_peft_has_no_lora_for_is_one_line(folder_of):
    folder = folder_of(
        "Mamba", {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "time_step_rank": 4, **ENDS}
    )
    with pytest.raises(ModelError, match=r"takes no LoRA there .*out_proj") as caught:
        load_model(spec(folder))
    assert "dt_proj, in_proj, out_proj, x_proj" in caught.value.hint
    _, adapter = a_round(spec(folder, "in_proj,x_proj"))
    assert len(pairs(adapter.form)) == 4


def test_a_name_that_other_modules_have_too_is_taken_by_its_paths(tiny_model_path):
    base = tiny("GPTNeoX", USUAL, AutoTokenizer.from_pretrained(tiny_model_path))
    base.gpt_neox.layers[1].mlp.add_module("dense", torch.nn.LayerNorm(32))
    found = targets(spec("neox"), base)
    assert "dense" not in found
    assert {"gpt_neox.layers.0.attention.dense", "gpt_neox.layers.1.attention.dense"} <= set(found)
    with pytest.raises(ModelError, match="'dense' of neox is not a plain linear layer everywhere"):
        targets(spec("neox", "dense"), base)
