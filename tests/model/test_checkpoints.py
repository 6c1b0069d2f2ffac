"""Checkpoints as people bring them: in shards, in bfloat16, with a head of their own or the embeddings' weights."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fccl.data.examples import SftExample
from fccl.model.encoding import collate, encode_sft
from fccl.model.loading import load_model
from tests.model.checkpoints import spec

EXAMPLES = [SftExample("Name a bird.", "It is a sparrow."), SftExample("What is it?", "A dog, of course.")]


def saved(folder, tiny_model_path, tied, dtype, **how):
    """A small random Llama in a folder of its own. Returns it, in float32, as it was saved."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.1, **shape
    )
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    plain = LlamaForCausalLM(config)  # whose rotary frequencies were never rounded: no file has them
    plain.load_state_dict(model.float().state_dict())
    return plain.eval()


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shards", [True, False], ids=["sharded", "whole"])
def test_a_checkpoint_is_read_to_the_bit_and_trained_in_float32(tmp_path, tiny_model_path, tied, dtype, shards):
    plain = saved(tmp_path, tiny_model_path, tied, dtype, **({"max_shard_size": "20KB"} if shards else {}))
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == shards
    model = load_model(spec(tmp_path))
    embeddings, head = model.base.get_input_embeddings().weight, model.base.get_output_embeddings().weight
    assert (embeddings is head) == tied
    for name, weight in plain.state_dict().items():
        inner = name.replace("_proj.weight", "_proj.base_layer.weight")
        assert torch.equal(model.base.state_dict()[inner], weight), name
    model.load(model.initial_adapter(seed=0))
    batch = collate(encode_sft(model.tokenizer, EXAMPLES, 64), model.pad_id)
    logits = plain(input_ids=batch.input_ids).logits[:, :-1].log_softmax(-1)
    expected = logits.gather(-1, batch.input_ids[:, 1:, None]).squeeze(-1)
    found, mask = model.token_log_probs(batch)
    assert found.dtype == torch.float32
    assert torch.allclose(found[mask], expected[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_merged_export_of_it_is_read_again(tmp_path, tiny_model_path, tied):
    saved(tmp_path / "own", tiny_model_path, tied, torch.bfloat16, max_shard_size="20KB")
    model = load_model(spec(tmp_path / "own"))
    draw = torch.Generator().manual_seed(1)
    adapter = model.initial_adapter(seed=0)
    drawn = {name: 0.1 * torch.randn(part.shape, generator=draw) for name, part in adapter.tensors.items()}
    model.load(type(adapter)(drawn))
    rows = [(row,) for row in encode_sft(model.tokenizer, EXAMPLES, 64)]
    expected = model.response_log_probs(rows)
    model.write_merged(type(adapter)(drawn), tmp_path / "merged")
    again = load_model(spec(tmp_path / "merged"))
    again.load(again.initial_adapter(seed=0))
    assert torch.allclose(again.response_log_probs(rows), expected, rtol=1e-4, atol=1e-4)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.tie_word_embeddings == tied
