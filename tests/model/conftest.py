"""The split, the adapters and the checkpoints that models are tested on."""

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.evaluation.conftest import an_adapter, boot, options, split, taught
from tests.model.checkpoints import PLAIN_LORA, checkpoint

__all__ = ["an_adapter", "boot", "options", "split", "taught"]


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def lora_path(tmp_path_factory, llama_path):
    folder = tmp_path_factory.mktemp("lora")
    checkpoint(folder, llama_path, PLAIN_LORA)
    return folder
